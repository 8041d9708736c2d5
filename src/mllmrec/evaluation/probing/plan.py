"""The plan of a probe: which users are scored under which conditions, and in which chunks.

Users come in the order of a hash, so that a larger slice holds the smaller one and its chunks, whose scores are used
again. A chunk is scored under one condition at a time and is one record of the working log. The hint probe scores
examples of the train split that have a usable trace, and no others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mllmrec.data.candidates.drawing import make_sampler, questions, with_candidates
from mllmrec.data.draws import uniform
from mllmrec.data.hints import find_usable
from mllmrec.data.sequences import Interactions
from mllmrec.data.traces import TraceJoin, usable_traces
from mllmrec.errors import ArtifactError
from mllmrec.evaluation.probing.conditions import CHANGES, HINTED, PLAIN, UNHINTED, Condition
from mllmrec.evaluation.probing.groups import rotations_for
from mllmrec.evaluation.ranking.chunks import CHUNK_USERS
from mllmrec.records import RankingExample
from mllmrec.storage.workspace import DatasetFiles

NO_CAPTIONS = "the prompts hold no captions (the model was trained without, or `mllmrec caption` has not run)"
NO_TRACES = "there are no traces of the training split to give as hints (`mllmrec pseudo-cot` writes them)"


@dataclass(frozen=True, kw_only=True)
class ProbePlan:
    """The probed users, the conditions of each probe, and for a probe that can't be made the reason.

    The plain prompts are scored whichever probe is made. `hinted` are the training examples of the hint probe.
    """

    users: Sequence[RankingExample]
    conditions: Mapping[str, Sequence[Condition]]
    not_applicable: Mapping[str, str]
    hinted: HintedExamples

    def chunks(self) -> list[ProbeChunk]:
        """All chunks, plain prompts first."""
        of_users = [PLAIN, *(condition for name, own in self.conditions.items() if name != "hint" for condition in own)]
        chunks = [chunk for condition in of_users for chunk in _chunks(condition, condition.name, self.users)]
        for condition in self.conditions.get("hint", ()):
            chunks += _chunks(condition, f"{condition.name}.{self.hinted.digest}", self.hinted.examples)
        return chunks


@dataclass(frozen=True, kw_only=True)
class ProbeChunk:
    """A chunk of examples under one condition."""

    key: str
    condition: Condition
    examples: Sequence[RankingExample]


@dataclass(frozen=True, kw_only=True)
class HintedExamples:
    """Examples of the train split in the order of a hash, with candidates and the hint of each."""

    examples: list[RankingExample]
    hints: Mapping[str, str]

    @property
    def digest(self) -> str:
        """A short hash of examples and hints, so that scores with other hints are never taken for these."""
        what = [[vars(example), self.hints[example.example_id]] for example in self.examples]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def make_plan(
    probes: Sequence[str],
    examples: Sequence[RankingExample],
    captions: Mapping[str, str],
    hinted: HintedExamples,
    *,
    rotations: int,
) -> ProbePlan:
    """The plan of `probes` for `examples`, one for each user, whose prompts hold `captions` (item id -> text)."""
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
            conditions[name] = rotations_for(rotations, examples)
        else:
            conditions[name] = [CHANGES[name]] if name in CHANGES else []
    return ProbePlan(users=examples, conditions=conditions, not_applicable=missing, hinted=hinted)


def hints_of(
    path: Path | None, interactions: Interactions, users: Sequence[RankingExample], seed: int
) -> HintedExamples:
    """As many hinted training examples as there are users, with lists as long; none without a file of traces."""
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


def hinted_examples(
    path: Path, interactions: Interactions, *, window: int, num_neg: int, count: int, seed: int
) -> HintedExamples:
    """At most `count` windows of training lines that have a usable trace, each with negatives of its own."""
    asked, _ = questions(interactions.training_lines(), "train", window, "all")
    usable, _ = find_usable(path, interactions, {example.example_id for example in asked})
    chosen = [example for example in asked if example.example_id in usable]
    chosen.sort(key=lambda example: uniform(seed, "probe/hint", example.example_id))
    ids = {example.example_id for example in chosen[:count]}
    hints = {trace.example_id: trace.reasoning for trace, _ in TraceJoin(path, interactions) if trace.example_id in ids}
    sampler, known = make_sampler(interactions, "train"), interactions.known("train")
    examples = [
        with_candidates(example, sampler, known[example.user_id], num_neg, seed, "probe/hint")
        for example in chosen[:count]
    ]
    assert all(example.split == "train" for example in examples), "hints are for examples of the train split"
    return HintedExamples(examples=examples, hints=hints)


def trace_file(files: DatasetFiles) -> Path | None:
    """The file of traces, None where there is none."""
    try:
        return usable_traces(files)
    except ArtifactError:
        return None


def _shows_captions(examples: Sequence[RankingExample], captions: Mapping[str, str]) -> bool:
    """Whether any prompt holds a caption, and there is another one to take its place."""
    shown = {captions.get(item, "") for example in examples for item in (*example.history, *example.candidates)}
    return bool(shown - {""}) and len(set(captions.values())) > 1


def _chunks(condition: Condition, name: str, examples: Sequence[RankingExample]) -> list[ProbeChunk]:
    chunks = []
    for start in range(0, len(examples), CHUNK_USERS):
        chunk = examples[start : start + CHUNK_USERS]
        key = f"{name}:{start}-{start + len(chunk)}"
        chunks.append(ProbeChunk(key=key, condition=condition, examples=chunk))
    return chunks
