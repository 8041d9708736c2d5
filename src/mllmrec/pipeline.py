"""`mllmrec run`: the stages of a recipe in order, the finished ones skipped, and one table at the end.

Every stage knows by itself whether it is finished, so running a recipe again goes on where it stopped. Training
stages are resumed from their last checkpoint.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mllmrec.artifacts import Workspace
from mllmrec.errors import SettingsError
from mllmrec.progress import note
from mllmrec.records import Summary, Table
from mllmrec.settings.base import StageSettings
from mllmrec.settings.ladder import ladder_of
from mllmrec.settings.pipeline import DemoSettings, RunRecipeSettings
from mllmrec.settings.recipe import load_recipe
from mllmrec.stages import Run, entry_point


def run(settings: RunRecipeSettings) -> Summary:
    """Run a recipe in the workspace that --root names, or else the recipe, or else the current folder."""
    if settings.recipe == DemoSettings.verb:
        raise SettingsError(
            "The recipe demo works on a made-up world, which `mllmrec demo` draws and then takes through it: run that."
        )
    overrides: dict[str, Any] = {"root": settings.root} if "root" in settings.model_fields_set else {}
    if settings.dataset:
        overrides["dataset"] = settings.dataset
    if settings.overwrite:
        overrides["overwrite"] = True
    recipe = load_recipe(settings.recipe)
    recipe, below = ladder_of(recipe) if settings.ladder else (recipe, {})
    return run_stages(recipe.stages(**overrides), command_of(settings), below)


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


def run_stages(
    stages: list[StageSettings],
    command: str,
    below: Mapping[str, str] | None = None,
    *,
    entry: Callable[[str], Run] = entry_point,
    usual: Mapping[str, float] | None = None,
) -> Summary:
    """Run stages one after the other; the summary holds the results of all that ranked the same candidates.

    `below` maps names of RUNs to that of the RUN they were made from, `entry` gives the `run` of a verb, and `usual`
    the seconds that stages take somewhere, by name or by verb, from which the time left is told. A check that fails is
    the last stage. An error, or Ctrl-C, takes a note along that names its stage and the `command` that goes on with it.
    """
    names = [f"{stage.verb}{_subject(stage)}" for stage in stages]
    usually = [
        (usual or {}).get(name, (usual or {}).get(stage.verb, 1.0)) for name, stage in zip(names, stages, strict=True)
    ]
    taken: list[float] = []
    folders: list[Path] = []
    models: list[Path] = []
    for number, stage in enumerate(stages, 1):
        note(f"[{number}/{len(stages)}] {names[number - 1]}{time_left(usually, taken) if usual else ''}")
        began = time.monotonic()
        place = f"stage {number} of {len(stages)}, {names[number - 1]}"
        try:
            summary = entry(stage.verb)(_resuming(stage), Workspace(stage.root))
        except (Exception, KeyboardInterrupt) as error:
            error.add_note(f"This was {place}; `{command}` goes on with it.")
            raise
        if not summary.passed:
            return replace(
                summary, headline=f"{summary.headline} This was {place}; mend it, and go on with `{command}`."
            )
        for told in (summary.headline, *summary.warnings):
            note(f"      {told}")
        taken.append(time.monotonic() - began)
        folders += (ranked := _runs(summary))
        models += ranked if stage.verb == "evaluate" else []
    tables = (
        *_ladders(folders),
        *_steps(models, below or {}),
        Table(
            title="Time",
            columns=("stage", "seconds"),
            rows=tuple((name, f"{seconds:.0f} s") for name, seconds in zip(names, taken, strict=True)),
        ),
    )
    return Summary(headline=f"All {len(stages)} stages are done.", tables=tables)


def time_left(usually: Sequence[float], taken: Sequence[float]) -> str:
    """What is left of the whole, at the pace so far; stages that were finished before tell nothing of it.

    >>> time_left([10, 60, 60], []), time_left([10, 60, 60], [20]), time_left([10, 60, 60], [20, 0.1])
    (', about 2 min left', ', about 4 min left', ', about 2 min left')
    >>> time_left([10, 60, 15], [10, 60])
    ', about 15 s left'
    """
    ran = [(usual, seconds) for usual, seconds in zip(usually, taken, strict=False) if seconds > usual / 4]
    pace = sum(seconds for _, seconds in ran) / sum(usual for usual, _ in ran) if ran else 1.0
    seconds = pace * sum(usually[len(taken) :])
    return f", about {seconds / 60:.0f} min left" if seconds > 90 else f", about {seconds:.0f} s left"


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
