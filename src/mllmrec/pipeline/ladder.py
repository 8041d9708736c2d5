"""`mllmrec run --ladder`: a recipe with and without chains of thought, so that the gain of each stage can be measured.

A recipe trains one SFT model and one GRPO model on it. Its ladder has five rungs: the backbone, SFT without and with
traces, and GRPO on each of these two. Models of the recipe keep their names and are trained once; the missing ones get
the recipe's settings and a name that ends in -plain or -cot. All are evaluated as the recipe evaluates its models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mllmrec.errors import SettingsError
from mllmrec.pipeline.recipe import Recipe
from mllmrec.settings.training import SftSettings
from mllmrec.stages import STAGES

Block = dict[str, Any]
MODEL = ("backbone", "sft_tag", "tag")
INHERITED = ("min_inter", "captions", "max_prompt_tokens")


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
