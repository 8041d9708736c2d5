"""What is asked of whom: the slice of users, the conditions of each probe, and the chunks they are scored in.

Users come in the order of a hash, so that a larger slice holds the smaller one and its chunks, and what was scored for
it counts on. A chunk is scored under one condition at a time and is one record of the stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mllmrec.data.sequences import Interactions
from mllmrec.evaluation.joining import CHUNK_USERS
from mllmrec.evaluation.probing import position
from mllmrec.evaluation.probing.conditions import CHANGES, HINTED, PLAIN, UNHINTED, Condition
from mllmrec.evaluation.probing.traces import HintedExamples, hinted_examples
from mllmrec.records import RankingExample

NO_CAPTIONS = "the prompts hold no captions (the model was trained without, or `mllmrec caption` has not run)"
NO_TRACES = "there are no traces of the training split to give as hints (`mllmrec pseudo-cot` writes them)"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A chunk of examples under one condition."""

    key: str
    condition: Condition
    examples: Sequence[RankingExample]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The probed users, the conditions that each probe asks under, and why a probe can't be made.

    The plain prompts are asked whichever probe is made. `hinted` are the training examples of the hint probe.
    """

    users: Sequence[RankingExample]
    conditions: Mapping[str, Sequence[Condition]]
    not_applicable: Mapping[str, str]
    hinted: HintedExamples

    def parts(self) -> list[Part]:
        """All chunks, plain prompts first."""
        of_users = [PLAIN, *(each for name, own in self.conditions.items() if name != "hint" for each in own)]
        parts = [part for condition in of_users for part in _chunks(condition, condition.name, self.users)]
        for condition in self.conditions.get("hint", ()):
            parts += _chunks(condition, f"{condition.name}.{self.hinted.digest}", self.hinted.examples)
        return parts


def make_plan(
    probes: Sequence[str],
    examples: Sequence[RankingExample],
    captions: Mapping[str, str],
    hinted: HintedExamples,
    *,
    rotations: int,
) -> Plan:
    """The plan of `probes` for the sliced users `examples`, whose prompts hold `captions`."""
    conditions: dict[str, Sequence[Condition]] = {}
    missing: dict[str, str] = {}
    for name in probes:
        if name == "caption-swap" and not _shows_captions(examples, captions):
            missing[name] = NO_CAPTIONS
        elif name == "hint" and not hinted.examples:
            missing[name] = NO_TRACES
        elif name == "hint":
            conditions[name] = [UNHINTED, HINTED]
        elif name == "position":
            conditions[name] = position.conditions(rotations, examples)
        else:
            conditions[name] = [CHANGES[name]] if name in CHANGES else []
    return Plan(users=examples, conditions=conditions, not_applicable=missing, hinted=hinted)


def hints_of(
    path: Path | None, interactions: Interactions, users: Sequence[RankingExample], seed: int
) -> HintedExamples:
    """As many training examples with hints as there are users, with lists as long; none without a file of traces."""
    if path is None:
        return HintedExamples(examples=[], hints={})
    return hinted_examples(
        path,
        interactions,
        window=len(users[0].history) + 1,
        num_neg=len(users[0].candidates) - 1,
        count=len(users),
        seed=seed,
    )


def _shows_captions(examples: Sequence[RankingExample], captions: Mapping[str, str]) -> bool:
    """Whether any prompt holds a caption, and there is another one to take its place."""
    shown = {captions.get(item, "") for example in examples for item in (*example.history, *example.candidates)}
    return bool(shown - {""}) and len(set(captions.values())) > 1


def _chunks(condition: Condition, name: str, examples: Sequence[RankingExample]) -> list[Part]:
    parts = []
    for start in range(0, len(examples), CHUNK_USERS):
        chunk = examples[start : start + CHUNK_USERS]
        key = f"{name}:{start}-{start + len(chunk)}"
        parts.append(Part(key=key, condition=condition, examples=chunk))
    return parts
