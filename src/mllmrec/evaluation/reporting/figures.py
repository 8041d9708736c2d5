"""Drawings for the page: SVG in the colours and fonts of the page around it.

matplotlib draws with a few stand-in colours, which are then replaced by the page's own (`var(--ink)` and so on), so
that one drawing serves light and dark. Words stay text, and legends are left to the page. Drawings are small, so that
several fit side by side on a wide screen and none has to shrink on a narrow one.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mllmrec.evaluation.comparison.statistics import Interval
from mllmrec.evaluation.reporting.page import Drawing, Key

PAINT = {"ink": "#0a0b0c", "muted": "#0a0b0d", "rule": "#0a0b0e", "paper": "#0a0b0f", "alarm": "#0a0b10"}
SERIES = tuple(f"#0a0c{number:02x}" for number in range(6))
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mllmrec",
    "font.size": 11,
    "axes.edgecolor": PAINT["rule"],
    "axes.labelcolor": PAINT["muted"],
    "xtick.color": PAINT["muted"],
    "ytick.color": PAINT["muted"],
    "xtick.labelcolor": PAINT["muted"],
    "ytick.labelcolor": PAINT["muted"],
    "text.color": PAINT["ink"],
    "text.parse_math": False,
    "axes.unicode_minus": True,
}
WIDTH, HEIGHT = 5.0, 3.0
ROW, MARGIN = 0.27, 0.75
LABEL = 24
DOTTED = (0, (1, 2.5))
DASHES: tuple[tuple[float, ...], ...] = ((), (7, 2.5), (3.5, 1.5), (8, 2, 1.5, 2))
MARKED = 30


def draw_intervals(rows: Sequence[tuple[str, Interval, bool]], marks: Mapping[str, float], name: str) -> Drawing:
    """A dot and its interval for each (label, interval, is a model), the first row on top.

    `marks` are values that are drawn as lines with their names: the first, chance, beneath the last row, and ceilings
    from the top.
    """
    with _drawing(height=ROW * len(rows) + MARGIN) as (figure, axes):
        for row, (_, interval, is_model) in enumerate(rows):
            colour = SERIES[0] if is_model else PAINT["muted"]
            axes.plot([interval.low, interval.high], [row, row], color=colour, linewidth=2.2, solid_capstyle="butt")
            axes.plot([interval.value], [row], "o" if is_model else "D", color=colour, markersize=6 if is_model else 5)
        for number, (mark, value) in enumerate(marks.items()):
            axes.axvline(value, color=PAINT["muted"], linewidth=1, linestyle=DOTTED)
            axes.annotate(
                mark,
                (value, 0.9 * (number - 1) - 0.5 if number else len(rows) - 0.5),
                (-3, -2) if number else (3, 2),
                textcoords="offset points",
                ha="right" if number else "left",
                va="top" if number else "bottom",
                color=PAINT["muted"],
            )
        axes.set_yticks(range(len(rows)), [_short(label) for label, _, _ in rows])
        for tick, (_, _, is_model) in zip(axes.get_yticklabels(), rows, strict=True):
            tick.set_color(PAINT["ink"] if is_model else PAINT["muted"])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.xaxis.grid(visible=True, color=PAINT["rule"], linewidth=0.8)
        axes.margins(x=0.06)
        return Drawing(_svg(figure, name))


def draw_hit_rates(
    curves: Sequence[tuple[str, Sequence[float], bool]], cuts: Sequence[int], num_candidates: int, name: str
) -> Drawing:
    """HR at every cut for each (label, values, is a model), and what guessing gives."""
    keys = [Key("chance", "muted", "1 2.5")]
    with _drawing() as (figure, axes):
        guessing = [min(1.0, cut / num_candidates) for cut in cuts]
        axes.plot(cuts, guessing, color=PAINT["muted"], linewidth=1, linestyle=DOTTED)
        models, others = 0, 0
        for label, values, is_model in curves:
            if is_model:
                axes.plot(cuts, values, color=SERIES[models % len(SERIES)], linewidth=2)
                keys.append(Key(label, f"series-{models % len(SERIES)}"))
                models += 1
            else:
                dashes = DASHES[others % len(DASHES)]
                axes.plot(cuts, values, color=PAINT["muted"], linewidth=1.3, linestyle=(0, dashes) if dashes else "-")
                keys.append(Key(label, "muted", " ".join(f"{length:g}" for length in dashes)))
                others += 1
        highest = max(guessing[-1], *(max(values) for _, values, _ in curves))
        axes.set_ylim(0, min(1.02, max(0.1, 1.1 * highest)))
        axes.set_xlabel("K")
        axes.set_xticks(cuts if len(cuts) <= 10 else [1, *range(5, cuts[-1] + 1, 5)])
        axes.yaxis.grid(visible=True, color=PAINT["rule"], linewidth=0.8)
        return Drawing(_svg(figure, name), tuple(keys))


def draw_lines(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    name: str,
    *,
    mark: float | None = None,
    alarms: Sequence[float] = (),
    shares: bool = False,
) -> Drawing:
    """Values by step, a line for each label; `mark` is a step to point at, `alarms` are steps to warn of."""
    with _drawing() as (figure, axes):
        for number, points in enumerate(lines.values()):
            steps, values = zip(*points, strict=True)
            marker = "o" if len(points) <= MARKED else None
            axes.plot(steps, values, color=SERIES[number % len(SERIES)], linewidth=1.8, marker=marker, markersize=3.5)
        if mark is not None:
            axes.axvline(mark, color=PAINT["muted"], linewidth=1, linestyle=DOTTED)
        for step in alarms:
            axes.axvline(step, color=PAINT["alarm"], linewidth=1.4)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.yaxis.grid(visible=True, color=PAINT["rule"], linewidth=0.8)
        axes.margins(x=0.03, y=0.12)
        if shares:
            axes.set_ylim(-0.02, 1.02)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        keys = [Key(label, f"series-{number % len(SERIES)}") for number, label in enumerate(lines)]
        keys += [Key("alarm", "alarm")] if alarms else []
        return Drawing(_svg(figure, name), tuple(keys) if len(keys) > 1 else ())


def draw_points(rows: Sequence[tuple[str, Interval]], name: str, *, what: str) -> Drawing:
    """A dot and its interval for each (label, interval), from left to right; their mean as a line."""
    with _drawing() as (figure, axes):
        for column, (_, interval) in enumerate(rows):
            axes.plot([column, column], [interval.low, interval.high], color=SERIES[0], linewidth=2)
            axes.plot([column], [interval.value], "o", color=SERIES[0], markersize=5)
        mean = sum(interval.value for _, interval in rows) / len(rows)
        axes.axhline(mean, color=PAINT["muted"], linewidth=1, linestyle=DOTTED)
        axes.set_xticks(range(len(rows)), [label for label, _ in rows])
        axes.set_xlabel(what)
        axes.yaxis.grid(visible=True, color=PAINT["rule"], linewidth=0.8)
        axes.margins(x=0.06, y=0.15)
        return Drawing(_svg(figure, name))


def draw_groups(
    series: Sequence[tuple[str, Sequence[tuple[str, Interval]], bool]], chance: float, name: str, *, what: str
) -> Drawing:
    """A dot and its interval for each group of users and each (label, [(group, interval)], is a model); chance too."""
    keys = [Key("chance", "muted", "1 2.5")]
    with _drawing() as (figure, axes):
        models = 0
        for number, (label, points, is_model) in enumerate(series):
            colour = SERIES[models % len(SERIES)] if is_model else PAINT["muted"]
            keys.append(Key(label, f"series-{models % len(SERIES)}" if is_model else "muted"))
            models += is_model
            shift = (number - (len(series) - 1) / 2) * 0.18
            for column, (_, interval) in enumerate(points):
                axes.plot([column + shift] * 2, [interval.low, interval.high], color=colour, linewidth=2)
                axes.plot([column + shift], [interval.value], "o" if is_model else "D", color=colour, markersize=5)
        axes.axhline(chance, color=PAINT["muted"], linewidth=1, linestyle=DOTTED)
        groups = [group for group, _ in series[0][1]]
        axes.set_xticks(range(len(groups)), groups)
        axes.set_xlim(-0.5, len(groups) - 0.5)
        axes.set_xlabel(what)
        axes.yaxis.grid(visible=True, color=PAINT["rule"], linewidth=0.8)
        axes.margins(y=0.1)
        return Drawing(_svg(figure, name), tuple(keys))


def draw_columns(values: Sequence[float], name: str, *, what: str) -> Drawing:
    """A column for each of some shares in their order, and the line on which they would all be equal."""
    with _drawing() as (figure, axes):
        axes.bar(range(1, len(values) + 1), values, color=SERIES[0], width=0.7)
        axes.axhline(sum(values) / len(values), color=PAINT["muted"], linewidth=1, linestyle=DOTTED)
        axes.set_xlabel(what)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.yaxis.grid(visible=True, color=PAINT["rule"], linewidth=0.8)
        axes.set_axisbelow(True)
        return Drawing(_svg(figure, name))


def draw_histogram(groups: Mapping[str, Sequence[float]], name: str, *, what: str, bins: int = 30) -> Drawing:
    """Stacked counts of the values of each group."""
    shown = ("series-0", "muted", "series-1")[: len(groups)]
    with _drawing() as (figure, axes):
        every = np.concatenate([np.asarray(values, dtype=float) for values in groups.values()])
        low, high = float(every.min()), float(every.max())
        edges = np.linspace(low, high if high > low else low + 1e-3, bins + 1)
        colours = [SERIES[0], PAINT["muted"], SERIES[1]][: len(groups)]
        axes.hist(list(groups.values()), bins=edges.tolist(), stacked=True, color=colours)
        axes.set_xlabel(what)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.yaxis.grid(visible=True, color=PAINT["rule"], linewidth=0.8)
        axes.set_axisbelow(True)
        keys = tuple(Key(label, colour) for label, colour in zip(groups, shown, strict=True))
        return Drawing(_svg(figure, name), keys)


def finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that can be drawn."""
    return [(step, value) for step, value in points if math.isfinite(step) and math.isfinite(value)]


@contextmanager
def _drawing(height: float = HEIGHT) -> Iterator[tuple[Figure, Any]]:
    """A figure with one pair of axes in the page's style."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots()
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(length=0)
        yield figure, axes


def _short(label: str) -> str:
    """A label that leaves room for the drawing."""
    return label if len(label) <= LABEL else f"{label[: LABEL - 1]}…"


def _svg(figure: Figure, name: str) -> str:
    """The drawing as an element to stand in a page: no fixed size, the page's colours, ids of its own."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r" font-family: [^;\"]*;", "", text)
    text = re.sub(r'<svg [^>]*viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1)
    text = _own_ids(text, re.sub(r"[^A-Za-z0-9-]", "-", name))
    for colour, stand_in in PAINT.items():
        text = text.replace(stand_in, f"var(--{colour})")
    for number, stand_in in enumerate(SERIES):
        text = text.replace(stand_in, f"var(--series-{number})")
    return text


def _own_ids(text: str, name: str) -> str:
    """Prefix the ids that something refers to with the drawing's name, and drop the others."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))

    def renamed(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in used else ""

    text = re.sub(r' id="([^"]+)"', renamed, text)
    text = re.sub(r'xlink:href="#', f'href="#{name}-', text)
    return text.replace("url(#", f"url(#{name}-")
