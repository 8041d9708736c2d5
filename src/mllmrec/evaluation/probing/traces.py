"""The training examples that the hint probe asks about: those with a usable trace, and nothing of another split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mllmrec.artifacts import Workspace
from mllmrec.data.candidates import make_sampler, questions, with_candidates
from mllmrec.data.draws import uniform
from mllmrec.data.hints import find_usable
from mllmrec.data.sequences import Interactions
from mllmrec.data.traces import TraceJoin, usable_traces
from mllmrec.errors import ArtifactError
from mllmrec.records import RankingExample


@dataclass(frozen=True, kw_only=True)
class HintedExamples:
    """Examples of the train split in the order of a hash, with candidates and the hint of each."""

    examples: list[RankingExample]
    hints: Mapping[str, str]

    @property
    def digest(self) -> str:
        """A short hash of all that is asked: scores of other traces are not taken for these."""
        what = [[vars(example), self.hints[example.example_id]] for example in self.examples]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def trace_file(workspace: Workspace, dataset: str) -> Path | None:
    """The file of traces, None where there is none."""
    try:
        return usable_traces(workspace, dataset)
    except ArtifactError:
        return None


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
