"""`mllmrec run`: the stages of a recipe in order, the finished ones skipped, and one table at the end.

Every stage knows by itself whether it is finished, so running a recipe again goes on where it stopped. Training
stages are resumed from their last checkpoint.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mllmrec.errors import SettingsError
from mllmrec.launch import rank_and_size
from mllmrec.pipeline.ladder import ladder_of
from mllmrec.pipeline.lanes import Entry
from mllmrec.pipeline.recipe import load_recipe
from mllmrec.pipeline.schedule import Schedule, one_by_one, side_by_side
from mllmrec.records import Summary, Table
from mllmrec.settings.base import StageSettings
from mllmrec.settings.pipeline import DemoSettings, RunRecipeSettings
from mllmrec.stages import entry_point


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
    return run_stages(recipe.stages(**overrides), command_of(settings), below, lanes=settings.lanes)


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
    entry: Entry = entry_point,
    usual: Mapping[str, float] | None = None,
    lanes: int = 1,
    threads: int | None = None,
) -> Summary:
    """Run stages; the summary holds the results of all that ranked the same candidates.

    `below` maps the name of a RUN to that of the RUN whose model it was made from, `entry` gives the `run` of a verb,
    and `usual` the seconds that stages take on some machine, by name or by verb, from which the time left is estimated.
    With several `lanes`, or with `threads` given, stages run in processes of their own, side by side where none waits
    for another; `entry` must then be picklable, and scripts that call this need an `if __name__ == "__main__"`. Under a
    launcher, which has its own processes, stages run in this process, one by one.

    A check that fails is the last stage. Errors and Ctrl-C carry a note that names the stage and the `command` that
    goes on with it.
    """
    began, launched = time.monotonic(), rank_and_size()[1] > 1
    apart = not launched and (lanes > 1 or threads is not None)
    schedule = Schedule(stages=stages, command=command, usual=usual or {}, lanes=lanes if apart else 1, apart=apart)
    if apart:
        side_by_side(schedule, entry, threads or max(1, cores() // lanes))
    else:
        one_by_one(schedule, entry)
    if (failed := schedule.failed) is not None:
        advice = f"{schedule.which([failed])}; mend it, and go on with `{command}`."
        return replace(summary := schedule.summaries[failed], headline=f"{summary.headline} {advice}")
    ranked = {index: _runs(summary) for index, summary in sorted(schedule.summaries.items())}
    models = [folder for index, folders in ranked.items() if stages[index].verb == "evaluate" for folder in folders]
    tables = (
        _time_table(schedule, time.monotonic() - began),
        *_ladders([folder for folders in ranked.values() for folder in folders]),
        *_steps(models, below or {}),
    )
    reports = [index for index in sorted(schedule.summaries) if stages[index].verb == "report"]
    pages = [str(schedule.summaries[index].artifact) for index in reports]
    where = f" See {', '.join(pages)}." if pages else ""
    return Summary(headline=f"All {len(stages)} stages are done.{where}", tables=tables)


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _time_table(schedule: Schedule, seconds: float) -> Table:
    rows = [(schedule.names[index], f"{taken:.0f} s") for index, taken in sorted(schedule.seconds.items())]
    if schedule.lanes > 1:
        rows.append((f"all, up to {schedule.lanes} at a time", f"{seconds:.0f} s"))
    return Table(title="Time", columns=("stage", "seconds"), rows=tuple(rows))


def _runs(summary: Summary) -> list[Path]:
    listed = summary.facts.get("runs")
    if isinstance(listed, list):
        return [Path(folder) for folder in listed]
    return [summary.artifact] if summary.artifact and (summary.artifact / "rankings.jsonl").exists() else []


def _ladders(folders: list[Path]) -> list[Table]:
    """One table of results for each candidate file, its RUNs in the order in which they were made."""
    from mllmrec.evaluation.comparison.tables import results_table
    from mllmrec.evaluation.ranking.runs import read_run

    return [results_table([read_run(folder) for folder in group]) for group in _by_candidates(folders)]


def _steps(models: list[Path], below: Mapping[str, str]) -> list[Table]:
    """The differences of each model from the one above it and the one it was made from, for each candidate file."""
    from mllmrec.evaluation.comparison.steps import steps_table
    from mllmrec.evaluation.ranking.runs import read_run

    tables = [steps_table([read_run(folder) for folder in group], below) for group in _by_candidates(models)]
    return [table for table in tables if table is not None]


def _by_candidates(folders: list[Path]) -> list[list[Path]]:
    groups: dict[str, list[Path]] = {}
    for folder in dict.fromkeys(folders):
        groups.setdefault(folder.name, []).append(folder)
    return list(groups.values())
