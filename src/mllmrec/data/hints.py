"""Which training examples carry a hint, and its words.

A hint is a trace shown in the user's turn, and few examples have one: most data stays plain. The share is one of all
training examples, exact up to rounding, and drawn by hash among those whose trace may be used. An assessed file gives
its kept traces alone; a trace that names its own target is never used, whatever file it comes from. A trace whose
window this run doesn't train on (another part of the users, fewer windows, other lengths) is left out. The file is read
twice, first for which traces may be used and then for the words of the drawn ones, so that memory holds no more than
those. An assessed file is checked against its source, since scores of traces that were written anew count for nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllmrec.data.draws import uniform
from mllmrec.data.naming import Naming
from mllmrec.data.sequences import Interactions
from mllmrec.data.traces import TraceJoin, usable_traces, verify_assessed, was_conditioned, written_traces
from mllmrec.progress import note
from mllmrec.records import RankingExample, Trace, counted
from mllmrec.storage.workspace import DatasetFiles

LEFT_OUT = {
    "mismatched": (
        "trace belongs to no window of the train split and is left out",
        "traces belong to no window of the train split and are left out",
    ),
    "leaking": (
        "trace names its own target and is left out",
        "traces name their own target and are left out",
    ),
}
KINDS = {
    "mismatched": "belong to no window of the train split",
    "leaking": "name their own target",
    "rejected": "were rejected by `mllmrec assess`",
    "empty": "hold no words",
    "elsewhere": "are of windows that this run doesn't train on",
}


@dataclass(frozen=True, kw_only=True)
class HintDraw:
    """How many hints: `share` of all training examples, drawn with `seed`.

    `before_assessment` takes the traces as they were written: the models that assess them are trained before.
    """

    share: float
    seed: int
    before_assessment: bool = False


@dataclass(frozen=True, kw_only=True)
class Hints:
    """The words of hints by example id, and how many of their writers were shown the target."""

    texts: Mapping[str, str]
    answer_conditioned: int = 0


def read_hints(
    files: DatasetFiles, interactions: Interactions, examples: Sequence[RankingExample], draw: HintDraw
) -> Hints:
    """The hints of a training run, the same in every epoch; notes say what is left out and what is short.

    Raises DataError when the file's own records don't fit the train split, ArtifactError when there is none or it was
    assessed before its traces were written anew.
    """
    path = hint_file(files, draw)
    if path == files.assessed_cot:
        verify_assessed(files)
    elif not draw.before_assessment:
        note(f"{path} isn't assessed: all of its traces may be hints. `mllmrec assess` keeps the trustworthy ones.")
    usable, counts = find_usable(path, interactions, {example.example_id for example in examples})
    chosen = draw_hints(examples, usable, draw)
    texts, conditioned, refined = dict[str, str](), 0, files.refined_cot.exists()
    for trace, record in TraceJoin(path, interactions):
        if trace.example_id in chosen:
            texts[trace.example_id] = trace.reasoning
            conditioned += was_conditioned(record, refined=refined)
    _note_counts(path, counts, len(texts), round(draw.share * len(examples)))
    if conditioned:
        note(
            f"{path}: {conditioned} of the {len(texts)} hints were written with the target in view, so they may lead "
            "to it without naming it. Report what comes of them as answer-conditioned."
        )
    return Hints(texts=texts, answer_conditioned=conditioned)


def hint_file(files: DatasetFiles, draw: HintDraw) -> Path:
    """The file that hints come from; an ArtifactError when there is none."""
    return written_traces(files) if draw.before_assessment else usable_traces(files)


def draw_hints(examples: Sequence[RankingExample], usable: Container[str], draw: HintDraw) -> set[str]:
    """The ids of round(share x all examples) of them: those with the smallest hash among the usable.

    There are fewer when traces are short.
    """
    eligible = [example.example_id for example in examples if example.example_id in usable]
    eligible.sort(key=lambda key: uniform(draw.seed, "hint", key))
    return set(eligible[: round(draw.share * len(examples))])


def find_usable(path: Path, interactions: Interactions, asked: Container[str]) -> tuple[set[str], Counter[str]]:
    """The ids in `asked` that have a usable trace, and how many traces there are of each kind."""
    joined, usable = TraceJoin(path, interactions), set[str]()
    naming, counts = Naming(interactions.catalogue), Counter[str]()
    for trace, record in joined:
        kind = _kind(trace, record, asked, naming)
        counts[kind] += 1
        if kind == "usable":
            usable.add(trace.example_id)
    return usable, counts + joined.counts


def _kind(trace: Trace, record: dict[str, Any], asked: Container[str], naming: Naming) -> str:
    if trace.example_id not in asked:
        return "elsewhere"
    if not trace.reasoning:
        return "empty"
    if record.get("keep") is False:
        return "rejected"
    return "leaking" if naming.names(trace.reasoning, trace.target_id, trace.history) else "usable"


def _note_counts(path: Path, counts: Counter[str], num_chosen: int, wanted: int) -> None:
    for kind in LEFT_OUT:
        if counts[kind]:
            note(f"{path}: {counted(counts[kind], *LEFT_OUT[kind])}.")
    if num_chosen < wanted:
        reasons = "; ".join(_reasons(counts)) or "the file holds no more"
        note(f"{path}: hints for {num_chosen} of the {wanted} examples asked for. Of the other traces {reasons}.")


def _reasons(counts: Counter[str]) -> Iterator[str]:
    return (f"{counts[kind]} {words}" for kind, words in KINDS.items() if counts[kind])
