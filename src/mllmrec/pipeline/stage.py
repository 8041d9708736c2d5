"""`mllmrec run`: the stages of a recipe in order, the finished ones skipped; at the end the table of results.

Every stage knows by itself whether it is finished, so running a recipe again goes on where it stopped. Training
stages are resumed from their last checkpoint.

`--ladder` runs a recipe with and without chains of thought, so that the gain of each stage can be measured. A recipe
trains one SFT model and one GRPO model on it. Its ladder has five rungs: the backbone, SFT without and with traces, and
GRPO on each of these two. Models of the recipe keep their names and are trained once; the missing ones get the recipe's
settings and a name that ends in -plain or -cot. All are evaluated as the recipe evaluates its models.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mllmrec.errors import SettingsError
from mllmrec.launch import rank_and_size
from mllmrec.pipeline.lanes import Entry
from mllmrec.pipeline.own import OWN, RECIPES, own_recipe
from mllmrec.pipeline.recipe import Recipe, load_recipe
from mllmrec.pipeline.schedule import Schedule, one_by_one, side_by_side
from mllmrec.records import Summary, Table
from mllmrec.settings.base import StageSettings
from mllmrec.settings.pipeline import DemoSettings, RunRecipeSettings
from mllmrec.settings.training import SftSettings
from mllmrec.stages import STAGES, entry_point
from mllmrec.storage.workspace import Workspace

Block = dict[str, Any]
MODEL = ("backbone", "sft_tag", "tag")
INHERITED = ("min_inter", "captions", "max_prompt_tokens")


def run(settings: RunRecipeSettings) -> Summary:
    """Run a recipe in the workspace that --root names, or else the recipe, or else the current folder."""
    if settings.recipe == DemoSettings.verb:
        raise SettingsError(
            "The recipe demo works on a made-up world, which `mllmrec demo` draws and then takes through it: run that."
        )
    if settings.recipe == RECIPES["gpu"]:
        raise SettingsError(f"The recipe {settings.recipe} is completed from the data: `mllmrec run own --size gpu`.")
    overrides: dict[str, Any] = {"root": settings.root} if "root" in settings.model_fields_set else {}
    if settings.dataset:
        overrides["dataset"] = settings.dataset
    if settings.overwrite:
        overrides["overwrite"] = True
    recipe = own_recipe(settings, Workspace(settings.root)) if settings.recipe == OWN else load_recipe(settings.recipe)
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
    pace: float | None = None,
    lanes: int = 1,
    threads: int | None = None,
) -> Summary:
    """Run stages; the summary holds the results of all that ranked the same candidates.

    `below` maps the name of a RUN to that of the RUN whose model it was made from, `entry` gives the `run` of a verb,
    and `usual` the seconds that stages take on some machine, by name or by verb, from which the time left is estimated;
    `pace` is how much longer this machine takes, where that was measured.
    With several `lanes`, or with `threads` given, stages run in processes of their own, side by side where none waits
    for another; `entry` must then be picklable, and scripts that call this need an `if __name__ == "__main__"`. Under a
    launcher, which has its own processes, stages run in this process, one by one.

    A check that fails is the last stage. Errors and Ctrl-C carry a note that names the stage and the `command` that
    goes on with it.
    """
    began, launched = time.monotonic(), rank_and_size()[1] > 1
    apart = not launched and (lanes > 1 or threads is not None)
    schedule = Schedule(
        stages=stages, command=command, usual=usual or {}, pace=pace, lanes=lanes if apart else 1, apart=apart
    )
    if apart:
        side_by_side(schedule, entry, threads or max(1, cores() // lanes))
    else:
        one_by_one(schedule, entry)
    if (failed := schedule.failed) is not None:
        advice = f"{schedule.which([failed])}; mend it, and go on with `{command}`."
        return replace(summary := schedule.summaries[failed], headline=f"{summary.headline} {advice}")
    ordered = sorted(schedule.summaries)
    ranked = {index: _runs(schedule.summaries[index]) for index in ordered}
    models = [folder for index, folders in ranked.items() if stages[index].verb == "evaluate" for folder in folders]
    tables = (
        _time_table(schedule, time.monotonic() - began),
        *(
            table
            for index in ordered
            if stages[index].verb == "blend"
            for table in schedule.summaries[index].tables[1:]
        ),
        *_steps(models, below or {}),
        *_ladders([folder for folders in ranked.values() for folder in folders]),
    )
    reports = [index for index in ordered if stages[index].verb == "report"]
    pages = [str(schedule.summaries[index].artifact) for index in reports]
    where = f"\nOpen {', '.join(pages)}" if pages else ""
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


@dataclass(frozen=True, kw_only=True)
class Arm:
    """SFT without or with traces, the name of its full model, and GRPO on it, where the recipe has GRPO."""

    sft: Block
    merge: Block
    model: str
    grpo: Block | None


def ladder_of(recipe: Recipe) -> tuple[Recipe, dict[str, str]]:
    """The recipe with both arms, and from the name of each RUN to that of the RUN whose model it was made from."""
    arms = [_arm(recipe, use_cot) for use_cot in (False, True)]
    backbone = arms[0].sft.get("backbone", SftSettings.model_fields["backbone"].default)
    rungs = [
        {"backbone": backbone, **{key: arms[0].sft[key] for key in INHERITED if key in arms[0].sft}},
        *({"sft_tag": arm.model} for arm in arms),
        *({"sft_tag": arm.model, "tag": arm.grpo["tag"]} for arm in arms if arm.grpo),
    ]
    below = {arm.model: Path(backbone).name for arm in arms}
    below |= {arm.grpo["tag"]: arm.model for arm in arms if arm.grpo}
    blocks = {
        **recipe.blocks,
        "sft": _with(recipe, "sft", [arm.sft for arm in arms]),
        "merge": _with(recipe, "merge", [arm.merge for arm in arms]),
        "grpo": _with(recipe, "grpo", [arm.grpo for arm in arms if arm.grpo]),
        "evaluate": _evaluations(recipe, rungs),
    }
    ordered = {verb: blocks[verb] for verb in STAGES if blocks.get(verb)}
    return replace(recipe, blocks=ordered), below


def _arm(recipe: Recipe, use_cot: bool) -> Arm:
    sft, merge, grpo = _chain(recipe)
    suffix = "cot" if use_cot else "plain"
    tag = _tag("sft", sft)
    full = sft.get("peft") == "none" or (grpo is not None and grpo["sft_tag"] == tag)
    own = bool(sft.get("use_cot", False)) == use_cot
    model = tag if full else _merged_tag({"tag": tag, **merge})
    if not own:
        tag = f"{tag}-{suffix}"
        model = tag if full else f"{tag}-merged"
    if grpo:
        kept = own and bool(grpo.get("use_cot", False)) == use_cot
        named = _tag("grpo", grpo)
        grpo = {**grpo, "sft_tag": model, "tag": named if kept else f"{named}-{suffix}", "use_cot": use_cot}
    return Arm(
        sft={**sft, "tag": tag, "use_cot": use_cot},
        merge={**merge, "tag": tag, **({} if full else {"merged_tag": model})},
        model=model,
        grpo=grpo,
    )


def _chain(recipe: Recipe) -> tuple[Block, Block, Block | None]:
    """The blocks of the last GRPO model, or else of the last SFT model: sft, merge, grpo."""
    sfts, merges, grpos = (recipe.blocks.get(verb, []) for verb in ("sft", "merge", "grpo"))
    if not sfts:
        raise SettingsError(
            f"{recipe.path} has no block sft, and --ladder holds stages against each other. Add sft, merge and grpo."
        )
    grpo = grpos[-1] if grpos else None
    made_by = {_merged_tag(merge): _tag("merge", merge) for merge in merges}
    wanted = made_by.get(grpo["sft_tag"], grpo["sft_tag"]) if grpo else _tag("sft", sfts[-1])
    sft = next((block for block in sfts if _tag("sft", block) == wanted), None)
    if sft is None:
        raise SettingsError(
            f"{recipe.path}: grpo starts from {wanted}, which no block of sft or merge makes, so that --ladder doesn't "
            "know how it was trained. Name one of them in sft_tag."
        )
    merge = next((block for block in merges if _tag("merge", block) == wanted), {})
    return sft, merge, grpo


def _tag(verb: str, block: Mapping[str, Any]) -> str:
    return str(block.get("tag", STAGES[verb].settings.model_fields["tag"].default))


def _merged_tag(merge: Mapping[str, Any]) -> str:
    return str(merge.get("merged_tag") or f"{_tag('merge', merge)}-merged")


def _with(recipe: Recipe, verb: str, arms: list[Block]) -> list[Block]:
    """The blocks of a verb, with those of the ladder in place of the ones with the same tag."""
    tags = {_tag(verb, block) for block in arms}
    return [*(block for block in recipe.blocks.get(verb, []) if _tag(verb, block) not in tags), *arms]


def _evaluations(recipe: Recipe, rungs: list[Block]) -> list[Block]:
    """Every rung with each of the recipe's settings of evaluation, and then the recipe's other evaluations."""
    given = recipe.blocks.get("evaluate", [])
    ways = [{key: block[key] for key in block if key not in (*MODEL, *INHERITED)} for block in given] or [{}]
    distinct = [way for number, way in enumerate(ways) if way not in ways[:number]]
    blocks = [{**rung, **way} for way in distinct for rung in rungs]
    models = [_model(rung) for rung in rungs]
    return [*blocks, *(block for block in given if _model(block) not in models)]


def _model(block: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(block.get(key) for key in MODEL)
