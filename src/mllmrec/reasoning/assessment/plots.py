"""The figure of an assessment: how many traces are kept and why others aren't, and histograms of their scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from mllmrec.reasoning.assessment.verdicts import LESS_TRUSTED, Assessment, Parts, TraceVerdict
from mllmrec.storage.workspace import replacing, sweep_drafts

INK, FAINT, GRID = "#22303c", "#71808c", "#e6eaed"
COLOURS = {"kept": "#1f8a83", "less trusted": "#b4c0c9", "rejected": "#d0614f"}
WORDS = COLOURS | {"less trusted": "#84939e"}
BINS, RANKS, FEWEST_BARS = 40, 0.02, 5
Values = NDArray[np.float64]
Score = Callable[[Parts, TraceVerdict], float | None]


def draw_assessment(assessment: Assessment, path: Path, dataset: str) -> None:
    """Write a PNG of four panels: fates, modality consistency, lift (length where there is none), confidence."""
    spacing = ConstrainedLayoutEngine(w_pad=0.16, h_pad=0.12)
    figure = Figure(figsize=(11, 7), dpi=130, facecolor="white", layout=spacing)
    figure.suptitle(f"Reasoning traces of {dataset}", x=0.015, ha="left", fontsize=15, fontweight="bold", color=INK)
    fates, modality, lift, confidence = figure.subplots(2, 2).ravel()
    _draw_fates(fates, assessment)
    _draw_scores(modality, assessment, lambda parts, _: parts.modality, _ranks)
    _caption(modality, "Modality consistency", "share of drawn histories farther from the trace than its own")
    if any(parts.lift is not None for parts in assessment.parts.values()):
        _draw_scores(lift, assessment, lambda parts, _: parts.lift, _around_zero)
        lift.axvline(0, color=INK, linewidth=0.8)
        _caption(lift, "Prediction consistency", "lift of the target's log-odds by the trace, in nats")
    else:
        _draw_scores(lift, assessment, lambda parts, _: parts.length, _upper)
        _caption(lift, "Length", "1: a usual number of words; no scorer was given, so no lift is known")
    _draw_scores(confidence, assessment, lambda _, verdict: verdict.confidence or None, _upper)
    _caption(confidence, "Confidence", "weighted geometric mean of the parts; rejected traces have none")
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_drafts([path])
    with replacing(path, "wb") as file:
        figure.savefig(file, format="png", metadata={"Software": "mllmrec"})


def _draw_fates(axes: Any, assessment: Assessment) -> None:
    """A bar for each fate, its count beside it."""
    counts = assessment.counts()
    reasons = counts["left_out"]
    rows = [("kept", counts["kept"]), ("less trusted", reasons.get(LESS_TRUSTED, 0))]
    rows += [(reason, count) for reason, count in reasons.items() if reason != LESS_TRUSTED]
    positions, total = range(len(rows)), max(1, sum(count for _, count in rows))
    colours = [COLOURS.get(name, COLOURS["rejected"]) for name, _ in rows]
    axes.barh(positions, [count for _, count in rows], color=colours, height=0.62)
    for position, (_, count) in zip(positions, rows, strict=True):
        axes.annotate(
            f"{count:,}  ({count / total:.1%})",
            (count, position),
            (5, 0),
            textcoords="offset points",
            va="center",
            color=INK,
        )
    axes.set_yticks(positions, [name for name, _ in rows])
    axes.set_ylim(max(len(rows), FEWEST_BARS) - 0.4, -0.6)
    axes.set_xlim(0, 1.32 * max(count for _, count in rows) + 1)
    _plain(axes)
    axes.set_xticks([])
    _caption(axes, "What became of them", f"{total:,} traces; red ones are rejected whatever their confidence")


def _draw_scores(axes: Any, assessment: Assessment, score: Score, edges: Callable[[Values], Values]) -> None:
    """Stacked histograms of kept, less trusted and rejected traces, named where there is room."""
    groups: dict[str, list[float]] = {name: [] for name in COLOURS}
    for key, verdict in assessment.verdicts.items():
        if (value := score(assessment.parts[key], verdict)) is not None:
            groups[_fate(verdict)].append(value)
    every = np.concatenate([np.asarray(values, dtype=float) for values in groups.values()])
    bins = edges(every)
    low, high = float(bins[0]), float(bins[-1])
    shown = {name: np.clip(values, low, high) for name, values in groups.items() if values}
    if shown:
        colours = [COLOURS[name] for name in shown]
        axes.hist(list(shown.values()), bins=bins, stacked=True, color=colours, rwidth=0.92)
    high_ones = not len(every) or np.median(every) > (low + high) / 2
    side, at = ("left", 0.015) if high_ones else ("right", 0.985)
    for position, name in enumerate(shown):
        y = 0.93 - 0.09 * position
        axes.text(at, y, name, transform=axes.transAxes, ha=side, color=WORDS[name], fontweight="bold", fontsize=10)
    axes.set_xlim(low, high)
    _plain(axes)
    axes.yaxis.grid(visible=True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _ranks(values: Values) -> Values:
    """Bins around each possible rank, from some way below all but the lowest hundredth."""
    lowest = float(np.quantile(values, 0.01)) if len(values) else 0.0
    first = round(max(0.0, min(0.8, lowest - 0.1)) / RANKS)
    return (np.arange(first, round(1 / RANKS) + 2) - 0.5) * RANKS


def _upper(values: Values) -> Values:
    """Up to 1, from some way below all but the lowest hundredth; what lies below is drawn at the edge."""
    lowest = float(np.quantile(values, 0.01)) if len(values) else 0.0
    return np.linspace(max(0.0, min(0.8, lowest - 0.1)), 1, BINS + 1)


def _around_zero(values: Values) -> Values:
    """All but the farthest hundredth, zero in the middle; what lies beyond is drawn at the edge."""
    reach = float(np.quantile(np.abs(values), 0.99)) if len(values) else 1.0
    return np.linspace(-(reach or 1.0), reach or 1.0, BINS + 1)


def _fate(verdict: TraceVerdict) -> str:
    if verdict.keep:
        return "kept"
    return "less trusted" if verdict.reason == LESS_TRUSTED else "rejected"


def _caption(axes: Any, title: str, text: str) -> None:
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold", color=INK, pad=20)
    axes.text(0, 1.025, text, transform=axes.transAxes, fontsize=9, color=FAINT)


def _plain(axes: Any) -> None:
    """No frame, quiet ticks."""
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0, labelsize=9, colors=INK)
