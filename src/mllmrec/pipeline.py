"""`mllmrec run`: the stages of a recipe in order, the finished ones skipped, and the results at the end.

Every stage knows by itself whether it is finished, so running a recipe again goes on where it stopped. Training
stages are resumed from their last checkpoint.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mllmrec.artifacts import Workspace
from mllmrec.launch import compute_with
from mllmrec.progress import note
from mllmrec.records import Summary, Table
from mllmrec.scheduling import OF_ONE_MODEL, Companion, Schedule
from mllmrec.settings.base import StageSettings
from mllmrec.settings.ladder import ladder_of
from mllmrec.settings.pipeline import DemoSettings, RunRecipeSettings
from mllmrec.settings.recipe import load_recipe
from mllmrec.stages import Run, entry_point


def run(settings: RunRecipeSettings) -> Summary:
    """Run a recipe in the workspace that --root names, or else the recipe, or else the current folder."""
    overrides: dict[str, Any] = {"root": settings.root} if "root" in settings.model_fields_set else {}
    if settings.dataset:
        overrides["dataset"] = settings.dataset
    if settings.overwrite:
        overrides["overwrite"] = True
    recipe = load_recipe(settings.recipe)
    recipe, below = ladder_of(recipe) if settings.ladder else (recipe, {})
    return run_stages(recipe.stages(**overrides), command_of(settings), below, jobs=settings.jobs)


def command_of(settings: RunRecipeSettings | DemoSettings) -> str:
    """The command line that goes on with these settings; what was to be replaced has been by then.

    >>> command_of(RunRecipeSettings(recipe="movielens", root="my films", overwrite=True))
    "mllmrec run movielens --root 'my films'"
    """
    given = settings.model_dump(exclude_defaults=True, exclude={"recipe", "overwrite"})
    words = [settings.verb, *([settings.recipe] if isinstance(settings, RunRecipeSettings) else [])]
    for name, value in given.items():
        words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return shlex.join(["mllmrec", *words])


@dataclass(kw_only=True)
class Stages:
    """The stages of a recipe, what they are called, and what came of them.

    `entry` gives the `run` of a verb; `usual` the seconds that stages take somewhere, by name or by verb, from which
    the time left is told; `command` goes on with all of it.
    """

    stages: Sequence[StageSettings]
    command: str
    entry: Callable[[str], Run] = entry_point
    usual: Mapping[str, float] = field(default_factory=dict)
    jobs: int = 1
    summaries: dict[int, Summary] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = [f"{stage.verb}{_subject(stage)}" for stage in self.stages]
        self.usually = [
            self.usual.get(name, self.usual.get(stage.verb, 1.0))
            for name, stage in zip(self.names, self.stages, strict=True)
        ]

    def begins(self, index: int) -> None:
        left = time_left(self.usually, self.seconds) if self.usual else ""
        note(f"[{index + 1}/{len(self.stages)}] {self.names[index]}{left}")

    def ends(self, index: int, summary: Summary, seconds: float) -> None:
        self.summaries[index], self.seconds[index] = summary, seconds
        done = "" if self.jobs == 1 else f"{self.names[index]}: "
        for told in (summary.headline, *summary.warnings):
            note(f"      {done}{told}")

    def run(self, index: int) -> bool:
        """Run one stage here; False where it is a check that found something wrong."""
        stage, began = self.stages[index], time.monotonic()
        self.begins(index)
        try:
            summary = self.entry(stage.verb)(stage, Workspace(stage.root))
        except (Exception, KeyboardInterrupt) as error:
            error.add_note(f"This was {self.place(index)}; `{self.command}` goes on with it.")
            raise
        if summary.passed:
            self.ends(index, summary, time.monotonic() - began)
        else:
            told = f"{summary.headline} This was {self.place(index)}; mend it, and go on with `{self.command}`."
            self.summaries[index] = replace(summary, headline=told)
        return summary.passed

    def place(self, index: int) -> str:
        return f"stage {index + 1} of {len(self.stages)}, {self.names[index]}"


def run_stages(
    stages: list[StageSettings],
    command: str,
    below: Mapping[str, str] | None = None,
    *,
    entry: Callable[[str], Run] = entry_point,
    usual: Mapping[str, float] | None = None,
    jobs: int = 1,
) -> Summary:
    """Run stages one after the other; the summary holds the results of all that ranked the same candidates.

    `below` maps names of RUNs to that of the RUN they were made from. With two `jobs` stages that don't need each other
    run at once, as `scheduling.py` tells. A check that fails is the last stage. An error, or Ctrl-C, takes a note along
    that names its stage and the `command` that goes on with it.
    """
    stages = [_resuming(stage) for stage in stages]
    all_of_it = Stages(stages=stages, command=command, entry=entry, usual=usual or {}, jobs=jobs)
    schedule = Schedule(stages=stages)
    cores = max(1, (os.cpu_count() or 1) // jobs)
    beside = Companion(schedule=schedule, threads=cores, begins=all_of_it.begins, ends=all_of_it.ends)
    with beside if jobs > 1 else nullcontext():
        while (index := _next(schedule, command)) is not None:
            if jobs > 1 and stages[index].verb in OF_ONE_MODEL:
                compute_with(cores if schedule.shared() else cores * jobs)
            if not all_of_it.run(index):
                return all_of_it.summaries[index]
            schedule.finish(index)
    return Summary(headline=f"All {len(stages)} stages are done.", tables=_tables(all_of_it, below or {}))


def _next(schedule: Schedule, command: str) -> int | None:
    """The next stage for this process, None when all are done."""
    try:
        while not schedule.wait():
            if (index := schedule.take()) is not None:
                return index
    except KeyboardInterrupt as error:
        error.add_note(f"`{command}` goes on with it.")
        raise
    return None


def time_left(usually: Sequence[float], taken: Mapping[int, float]) -> str:
    """What is left of the whole, at the pace so far; stages that were finished before tell nothing of it.

    >>> time_left([10, 60, 60], {}), time_left([10, 60, 60], {0: 20}), time_left([10, 60, 60], {0: 20, 1: 0.1})
    (', about 2 min left', ', about 4 min left', ', about 2 min left')
    >>> time_left([10, 60, 15], {0: 10, 1: 60})
    ', about 15 s left'
    """
    ran = [(usually[index], seconds) for index, seconds in taken.items() if seconds > usually[index] / 4]
    pace = sum(seconds for _, seconds in ran) / sum(usual for usual, _ in ran) if ran else 1.0
    seconds = pace * sum(usual for index, usual in enumerate(usually) if index not in taken)
    return f", about {seconds / 60:.0f} min left" if seconds > 90 else f", about {seconds:.0f} s left"


def _tables(made: Stages, below: Mapping[str, str]) -> tuple[Table, ...]:
    """The RUNs in the order of the recipe, what each model brings over the one above, and the time of every stage."""
    runs = {index: _runs(made.summaries[index]) for index in sorted(made.summaries)}
    folders = [folder for listed in runs.values() for folder in listed]
    models = [folder for index, listed in runs.items() if made.stages[index].verb == "evaluate" for folder in listed]
    rows = tuple((made.names[index], f"{made.seconds[index]:.0f} s") for index in sorted(made.seconds))
    return (*_ladders(folders), *_steps(models, below), Table(title="Time", columns=("stage", "seconds"), rows=rows))


def _resuming(stage: StageSettings) -> StageSettings:
    return stage.model_copy(update={"resume": True}) if "resume" in type(stage).model_fields else stage


def _subject(stage: StageSettings) -> str:
    names = [getattr(stage, field, "") for field in ("tag", "sft_tag", "out", "backbone")]
    return next((f" {name}" for name in names if name), "")


def _runs(summary: Summary) -> list[Path]:
    listed = summary.facts.get("runs")
    if isinstance(listed, list):
        return [Path(folder) for folder in listed]
    return [summary.artifact] if summary.artifact and (summary.artifact / "rankings.jsonl").exists() else []


def _ladders(folders: list[Path]) -> list[Table]:
    """One table for each candidate file, its RUNs in the order in which they were made."""
    from mllmrec.evaluation.runs import read_run
    from mllmrec.evaluation.tables import results_table

    return [results_table([read_run(folder) for folder in group]) for group in _by_candidates(folders)]


def _steps(models: list[Path], below: Mapping[str, str]) -> list[Table]:
    """What each model brings over the one above it and the one it was made from, for each candidate file."""
    from mllmrec.evaluation.runs import read_run
    from mllmrec.evaluation.steps import steps_table

    tables = [steps_table([read_run(folder) for folder in group], below) for group in _by_candidates(models)]
    return [table for table in tables if table is not None]


def _by_candidates(folders: list[Path]) -> list[list[Path]]:
    groups: dict[str, list[Path]] = {}
    for folder in dict.fromkeys(folders):
        groups.setdefault(folder.name, []).append(folder)
    return list(groups.values())
