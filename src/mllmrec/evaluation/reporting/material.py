"""The sections about what models are made from: data card, audit, captions, reasoning traces and their assessment."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mllmrec.data.auditing.stage import run as audit
from mllmrec.data.card import card
from mllmrec.data.card import table as card_table
from mllmrec.data.draws import uniform
from mllmrec.data.item_files import read_captions
from mllmrec.data.traces import usable_traces
from mllmrec.evaluation.reporting.cases import Posters
from mllmrec.evaluation.reporting.figures import draw_histogram
from mllmrec.evaluation.reporting.page import (
    Block,
    Described,
    Figure,
    FigureRow,
    Prose,
    Reasoning,
    Reasonings,
    Section,
    Sheet,
)
from mllmrec.records import Table
from mllmrec.settings.data import AuditSettings
from mllmrec.storage.json_streams import read_list
from mllmrec.storage.workspace import Workspace, read_json

CAPTIONS, KEPT, LEFT_OUT = 8, 3, 2
SCORES = {"confidence": "confidence", "modality": "modality", "prediction": "prediction", "lift": "lift, nats"}


@dataclass(kw_only=True)
class Traces:
    """One pass over the file of traces: counts, confidences, a few examples, and those of chosen users."""

    path: Path
    counts: Counter[str] = field(default_factory=Counter)
    confidences: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    examples: dict[str, list[tuple[float, Reasoning]]] = field(default_factory=lambda: defaultdict(list))
    of_users: dict[str, Reasoning] = field(default_factory=dict)


def data_section(workspace: Workspace, dataset: str, window: int) -> Section:
    """The data card, counted anew, with what `prepare` noted about the import."""
    path = workspace.dataset(dataset).card
    imported = read_json(path).get("import") if path.exists() else None
    facts = card(workspace.dataset(dataset), window=window) | ({"import": imported} if imported else {})
    return Section(
        key="data",
        title="Data",
        lead="What the models learnt from and were asked about.",
        blocks=(Sheet(table=replace(card_table(facts), title=""), sortable=False),),
    )


def audit_section(workspace: Workspace, dataset: str, window: int) -> Section:
    """What the audit says of all files as they are now."""
    summary = audit(AuditSettings(dataset=dataset, root=str(workspace.root), min_inter=window), workspace)
    table, *further = summary.tables
    blocks: list[Block] = [Prose(text=_without_seconds(summary.headline), tone="plain" if summary.passed else "alarm")]
    strong = frozenset((row, 3) for row, cells in enumerate(table.rows) if cells[3] in ("leak", "wrong", "warning"))
    blocks.append(Sheet(table=replace(table, title=""), strong=strong))
    blocks += [Sheet(table=other) for other in further]
    return Section(
        key="audit",
        title="Audit",
        lead="Whether anything in the dataset's files gives the answers away, checked for this page.",
        blocks=tuple(blocks),
    )


def captions_section(workspace: Workspace, dataset: str, posters: Posters, seed: int) -> Section | None:
    """Some captions beside what they describe; None where there are none."""
    captions = read_captions(workspace, dataset, "auto")
    if not captions:
        return None
    drawn = sorted(captions, key=lambda item: uniform(seed, "report/caption", item))[:CAPTIONS]
    words = [len(caption.split()) for caption in captions.values()]
    return Section(
        key="captions",
        title="Captions",
        lead=f"{len(captions):,} items have a caption, of {sum(words) / len(words):.0f} words on average. "
        "These are drawn by hash.",
        blocks=(Described(title="", posters=tuple((posters(item), captions[item]) for item in drawn)),),
    )


def read_traces(workspace: Workspace, dataset: str, users: Collection[str], seed: int) -> Traces | None:
    """The traces from which hints come, counted and sampled in one pass; None where there are none."""
    files = workspace.dataset(dataset)
    if not any(path.exists() for path in (files.assessed_cot, files.refined_cot, files.pseudo_cot)):
        return None
    traces = Traces(path=usable_traces(files))
    for row in read_list(traces.path):
        trace = _reasoning(row)
        traces.counts[trace.fate] += 1
        if row.get("confidence"):
            traces.confidences["kept" if trace.kept else "left out"].append(row["confidence"])
        if trace.user_id in users and (trace.user_id not in traces.of_users or trace.kept):
            traces.of_users[trace.user_id] = trace
        _consider(traces.examples[trace.fate], uniform(seed, "report/trace", str(row.get("example_id"))), trace)
    return traces


def traces_section(traces: Traces, posters: Posters) -> Section:
    """The fates of the traces, their confidences, and some of them in full."""
    blocks: list[Block] = []
    if traces.confidences:
        blocks.append(FigureRow(figures=(_confidence(traces.confidences),)))
        blocks.append(_fates(traces.counts))
    kept = [trace for fate in ("kept", "not assessed") for _, trace in traces.examples.get(fate, [])]
    others = [
        trace for fate, rows in traces.examples.items() if fate not in ("kept", "not assessed") for _, trace in rows
    ]
    kept, others = ([replace(trace, user_id=posters.user(trace.user_id)) for trace in some] for some in (kept, others))
    if kept:
        blocks.append(Reasonings(title="Some that may be hints", traces=tuple(kept[:KEPT])))
    if others:
        blocks.append(Reasonings(title="Some that may not", traces=tuple(others[:LEFT_OUT])))
    return Section(
        key="traces",
        title="Reasoning traces",
        short="Traces",
        lead=f"`{traces.path.name}` holds {traces.counts.total():,} traces. A share of the training examples carries "
        "one as a hint; examples here are drawn by hash.",
        blocks=tuple(blocks),
    )


def _without_seconds(headline: str) -> str:
    """The audit's headline without its duration, which would make every page differ."""
    counts, _, rest = headline.partition(" in ")
    return f"{counts}. {rest.partition('. ')[2]}" if rest else headline


def _reasoning(row: Mapping[str, Any]) -> Reasoning:
    target = row.get("target_item")
    titled = target.get("title") or target.get("item_id") if isinstance(target, dict) else target
    scores: dict[str, Any] = {"confidence": row.get("confidence"), **(row.get("scores") or {})}
    keep = row.get("keep")
    return Reasoning(
        user_id=str(row.get("user_id", "")),
        target=str(titled or ""),
        text=str(row.get("reasoning") or "").strip(),
        fate="not assessed" if keep is None else "kept" if keep else f"left out: {row.get('reason') or 'unknown'}",
        kept=keep if isinstance(keep, bool) else None,
        scores=tuple(
            (shown, f"{scores[name]:.2f}")
            for name, shown in SCORES.items()
            if isinstance(scores.get(name), (int, float))
        ),
    )


def _consider(kept: list[tuple[float, Reasoning]], draw: float, trace: Reasoning) -> None:
    """Keep the few with the smallest draws."""
    kept.append((draw, trace))
    kept.sort(key=lambda pair: pair[0])
    del kept[KEPT:]


def _fates(counts: Mapping[str, int]) -> Sheet:
    total = sum(counts.values())
    ordered = sorted(counts.items(), key=lambda pair: (pair[0] != "kept", -pair[1]))
    return Sheet(
        table=Table(
            title="What became of them",
            columns=("fate", "traces", "share"),
            rows=tuple((fate, f"{count:,}", f"{count / total:.1%}") for fate, count in ordered),
        )
    )


def _confidence(groups: Mapping[str, Sequence[float]]) -> Figure:
    averages = "; ".join(
        f"{name}: {len(values):,} traces, on average {sum(values) / len(values):.2f}" for name, values in groups.items()
    )
    ordered = {name: groups[name] for name in ("kept", "left out") if name in groups}
    return Figure(
        title="Confidence of the traces",
        drawing=draw_histogram(ordered, "confidence", what="confidence (rejected traces have none)"),
        text=f"Distribution of confidence. {averages}.",
    )
