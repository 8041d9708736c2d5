"""Which stages of a recipe have to wait for which, from what each of them reads and makes.

Stages speak through files, so what one makes and another reads is all that ties them. It is told here in words of the
pipeline (`captions`, `model sft`) rather than in paths, and rather one word too many: a stage that waits without need
costs time, one that doesn't wait costs the result. That the audit has passed counts as something that `sft` and `grpo`
read, so neither begins beside an audit, or after one that found a leak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from mllmrec.settings.base import StageSettings


@dataclass(frozen=True)
class Ties:
    """What a stage reads, and what it makes anew."""

    reads: frozenset[str]
    makes: frozenset[str]


def _ties(reads: str, makes: str) -> Ties:
    """From words with commas between them."""
    return Ties(*(frozenset(filter(None, words.split(", "))) for words in (reads, makes)))


ON_DATA = {
    "prepare": _ties("", "lines"),
    "caption": _ties("lines", "captions"),
    "pseudo-cot": _ties("lines, captions", "traces"),
    "refine": _ties("lines, captions, traces", "traces"),
    "candidates": _ties("lines", "candidates"),
    "retrieve": _ties("lines, captions", "candidates, fitted baselines"),
    "baselines": _ties("lines, captions, candidates", "fitted baselines"),
    "audit": _ties("lines, captions, traces, candidates", "audit"),
}


def waits_for(stages: Sequence[StageSettings]) -> list[frozenset[int]]:
    """For each stage the earlier ones, by index, that have to be done before it begins.

    Those make what it reads, or make or read what it makes anew. A stage that `ties` doesn't know waits for all before
    it, and all after it wait for it.
    """
    known = [ties(stage) for stage in stages]

    def tied(before: Ties | None, after: Ties | None) -> bool:
        if before is None or after is None:
            return True
        return bool(before.makes & (after.reads | after.makes) or before.reads & after.makes)

    return [frozenset(i for i in range(number) if tied(known[i], own)) for number, own in enumerate(known)]


def ties(stage: StageSettings) -> Ties | None:
    """What a stage reads and makes; None for one that ties itself to all others, as the report does."""
    own: Any = stage
    lines = frozenset({"lines"})
    match stage.verb:
        case "backbone":
            return Ties(lines | {"captions", "traces"}, _models(own.out))
        case "sft" | "grpo":
            start = own.backbone if stage.verb == "sft" else own.sft_tag
            hints = {"traces"} if own.use_cot else set()
            replay = {f"replay {start}"} if getattr(own, "replay", False) else set()
            return Ties(lines | {"captions", "audit"} | hints | _models(start), _models(own.tag) | replay)
        case "assess":
            return Ties(lines | {"captions", "traces"} | _models(*own.scorer), frozenset({"traces"}))
        case "merge":
            merged = own.merged_tag or f"{own.tag}-merged"
            return Ties(lines | _models(own.tag, own.backbone), _models(merged))
        case "evaluate" | "probe":
            asked = own.tag, own.sft_tag, own.backbone
            hints = {"traces"} if stage.verb == "probe" else set()
            made = [stage.verb, PurePath(next(filter(None, asked))).name, getattr(own, "shard", "")]
            return Ties(lines | {"captions", "candidates"} | hints | _models(*asked), frozenset({" ".join(made)}))
    return ON_DATA.get(stage.verb)


def _models(*names: str) -> frozenset[str]:
    """A model may be named by its tag, by its folder or by a path: the last part is the same."""
    return frozenset(f"model {PurePath(name).name}" for name in names if name)
