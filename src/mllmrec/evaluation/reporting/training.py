"""The section about training: curves of what each checkpoint's trainer logged beside its exact validation.

`training.jsonl` holds what the trainer logs and every validation reading, `metrics.jsonl` the timeline of the
reward-inflation monitor where one was on. Reward inflation shows as a reward that rises while validation doesn't.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllmrec.evaluation.reporting.figures import draw_columns, draw_lines, finite
from mllmrec.evaluation.reporting.page import Block, Figure, FigureRow, Prose, Section
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import Workspace, read_jsonl

LOG, TIMELINE = "training.jsonl", "metrics.jsonl"
Points = list[tuple[float, float]]
FEWEST = 3
"""Points of a curve: two make a straight line, and are told in words."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One drawing: which logged values go into it, by the name that the legend gives them."""

    title: str
    values: Mapping[str, tuple[str, ...]]
    shares: bool = False
    validation: bool = False


PANELS = (
    Panel(title="Loss", values={"loss": ("loss",)}),
    Panel(title="Reward", values={"reward": ("reward",), "its spread": ("reward_std",)}),
    Panel(
        title="Sampled answers",
        values={
            "hits": ("hit_share",),
            "well formed": ("format_share",),
            "invalid": ("invalid_share",),
            "groups without advantage": ("frac_reward_zero_std", "zero_advantage_share"),
        },
        shares=True,
    ),
    Panel(
        title="Validation, exact",
        values={
            "NDCG@3": ("valid_NDCG@3", "NDCG@3"),
            "HR@1": ("valid_HR@1", "HR@1"),
            "expected reward": ("valid_reward",),
        },
        validation=True,
    ),
    Panel(title="Validation, loss of answers", values={"loss": ("valid_loss",)}, validation=True),
    Panel(title="KL from the model it began with", values={"KL": ("kl",)}),
    Panel(title="Entropy", values={"entropy": ("entropy",)}),
    Panel(
        title="Answer length, tokens", values={"mean": ("completions/mean_length", "mean_length", "completion_length")}
    ),
)
REWARDED = ("Reward", "Sampled answers", "Validation, exact", "KL from the model it began with", "Entropy")
UNREWARDED = ("Loss", "Validation, exact", "Validation, loss of answers")


def training_section(workspace: Workspace, dataset: str) -> Section | None:
    """The curves of all checkpoints, in the order in which they were finished; None where nothing was trained.

    Scorers of traces, which are trained on a part of the users, come last.
    """
    folders = [path for path in workspace.checkpoint(dataset, "any").parent.glob("*") if (path / LOG).exists()]
    read = [(folder, Manifest.read(folder)) for folder in folders]
    read.sort(key=lambda pair: (_is_helper(pair[1]), pair[1].finished_at if pair[1] else "", pair[0].name))
    blocks = [block for folder, manifest in read for block in _curves(folder, manifest)]
    if not blocks:
        return None
    return Section(
        key="training",
        title="Training and the reward monitor",
        short="Training",
        lead="Validation is exact: every candidate of a fixed slice of users is scored; with --validate loss it is "
        "the loss of their right answers. The dashed line marks the step "
        "whose weights are kept.",
        blocks=tuple(blocks),
    )


def _curves(folder: Path, manifest: Manifest | None) -> list[Block]:
    timeline = list(read_jsonl(folder / TIMELINE)) if (folder / TIMELINE).exists() else []
    series = read_series(timeline) | read_series(read_jsonl(folder / LOG))
    alarms = [row for row in timeline if row.get("alarm")]
    best = manifest.details.get("best_step") if manifest else None
    shown = REWARDED if "reward" in series else UNREWARDED
    figures = [
        _figure(folder.name, panel, lines, best, [float(row["step"]) for row in alarms])
        for panel in PANELS
        if panel.title in shown and (lines := _lines(panel, series, FEWEST))
    ]
    drawn = {figure.title for figure in figures}
    told = [
        _in_words(panel, lines)
        for panel in PANELS
        if panel.title in shown and panel.title not in drawn and (lines := _lines(panel, series, 1))
    ]
    if positions := next((row["chosen_positions"] for row in reversed(timeline) if "chosen_positions" in row), None):
        figures.append(_positions(folder.name, positions))
    if not figures and not told:
        return []
    last = max(step for points in series.values() for step, _ in points)
    verb = manifest.verb if manifest else "unfinished"
    helper = ", a scorer of traces" if _is_helper(manifest) else ""
    title = f"{folder.name} · {verb}, {last:,.0f} steps{helper}"
    words = [Prose(text=f"Too few readings for a curve. {' '.join(told)}", tone="note")] if told else []
    return [FigureRow(title=title, figures=tuple(figures)), *words, *([_alarm(alarms)] if alarms else [])]


def _is_helper(manifest: Manifest | None) -> bool:
    """Whether a checkpoint was trained on a part of the users, to score traces about the others."""
    return bool(manifest and manifest.settings.get("fold"))


def read_series(rows: Iterable[Mapping[str, Any]]) -> dict[str, Points]:
    """Every logged number by name, as (step, value), the last of a step counting.

    >>> read_series([{"step": 1, "loss": 2.0}, {"step": 1, "loss": 1.5, "note": "x"}])
    {'loss': [(1.0, 1.5)]}
    """
    series: dict[str, dict[float, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step" and isinstance(value, (int, float)) and not isinstance(value, bool):
                series.setdefault(name, {})[float(row["step"])] = float(value)
    return {name: sorted(points.items()) for name, points in series.items()}


def _lines(panel: Panel, series: Mapping[str, Points], fewest: int) -> dict[str, Points]:
    """The values of a panel that have at least `fewest` points."""
    lines = {}
    for label, names in panel.values.items():
        points = next((finite(series[name]) for name in names if name in series), [])
        if len(points) >= fewest:
            lines[label] = points
    return lines


def _in_words(panel: Panel, lines: Mapping[str, Points]) -> str:
    values = "; ".join(
        f"{label} {', '.join(f'{value:.3g} at step {step:,.0f}' for step, value in points)}"
        for label, points in lines.items()
    )
    return f"{panel.title}: {values}."


def _figure(
    name: str, panel: Panel, lines: Mapping[str, Points], best: float | None, alarms: Sequence[float]
) -> Figure:
    ranges = "; ".join(f"{label} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for label, points in lines.items())
    mark = best if panel.validation else None
    kept = f"; weights of step {best:,.0f} are kept" if mark is not None else ""
    return Figure(
        title=panel.title,
        drawing=draw_lines(lines, f"{name}-{panel.title}", mark=mark, alarms=alarms, shares=panel.shares),
        text=f"{panel.title} of {name} by step: {ranges}{kept}.",
    )


def _positions(name: str, shares: Sequence[float]) -> Figure:
    """The share of answers at each slot of the candidate list, last reading; a position bias prefers one."""
    listed = ", ".join(f"{slot}: {share:.1%}" for slot, share in enumerate(shares, 1))
    return Figure(
        title="Places chosen in the list, last reading",
        drawing=draw_columns(shares, f"{name}-positions", what="place in the candidate list"),
        text=f"Share of answers that chose each place of the list. {listed}.",
    )


def _alarm(rows: Sequence[Mapping[str, Any]]) -> Prose:
    steps = ", ".join(f"{row['step']:,}" for row in rows)
    first = rows[0]
    slopes = "".join(
        f" {what} {value:+.3f} [{low:+.3f}, {high:+.3f}]{end}"
        for key, what, end in (("reward_slope", "reward", ","), ("valid_slope", "validation", "."))
        if key in first
        for value, low, high in [first[key]]
    )
    return Prose(
        text=f"Alarm at step {steps}: the training reward rose and validation didn't."
        + (f" The first time, along fitted lines:{slopes}" if slopes else ""),
        tone="alarm",
    )
