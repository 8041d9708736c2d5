"""The ladders on the page: every RUN with intervals, the differences of each step, the verdict, and the overview.

The overview puts all protocols side by side. A column is one candidate file and its users, with one metric; figures of
two columns don't compare, because the negatives decide how hard a question is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mllmrec.data.candidates.protocols import Protocol
from mllmrec.evaluation.blending.stage import blend_table
from mllmrec.evaluation.comparison.pairing import paired_positions
from mllmrec.evaluation.comparison.statistics import ALPHA, Interval, PairedDifference
from mllmrec.evaluation.comparison.steps import MAIN, corrected_on, differences_of_pairs
from mllmrec.evaluation.comparison.tables import NOTE, ceiling_of, ceiling_rows, own_note, users_of
from mllmrec.evaluation.metrics import Position, per_user
from mllmrec.evaluation.reporting.ladder_figures import ladder_figures
from mllmrec.evaluation.reporting.page import Block, FigureRow, Section, Sheet
from mllmrec.evaluation.reporting.runs import Ladder, Rung
from mllmrec.records import Table

SLICED = re.compile(r"limit\d+")
READING = (
    "Paired differences with 95 % intervals over users. p: paired randomisation test, two-sided, corrected by Holm "
    f"over the rows; bold where it is below {ALPHA}: only that counts as found. detectable: the true difference that a "
    "5 % test on these users finds in 80 % of repetitions."
)


@dataclass(frozen=True, kw_only=True)
class Step:
    """What `upper` brings over `lower`, metric by metric; that of the ladder's metric is corrected for its table."""

    lower: Rung
    upper: Rung
    differences: dict[str, PairedDifference]

    @property
    def blended_with(self) -> str:
        """The other parts, where `upper` blends `lower` with them; else empty."""
        parts = self.upper.parts
        own = parts.pop(self.lower.run.folder.resolve(), None)
        return ", ".join(parts.values()) if own else ""

    @property
    def label(self) -> str:
        blend = f": {self.lower.label} blended with {self.blended_with}" if self.blended_with else ""
        return f"{self.upper.label}{blend}\n− {self.lower.label}"


@dataclass(frozen=True, kw_only=True)
class MeasuredLadder:
    """A ladder with what follows from its rankings: the positions of all targets, and paired differences."""

    ladder: Ladder
    positions: tuple[list[Position], ...]
    steps: tuple[Step, ...]
    over_baseline: tuple[Step, ...]
    thinking: tuple[Step, ...] = ()


def measure(ladder: Ladder, seed: int) -> MeasuredLadder:
    """Read the rankings once and compute every difference that the page shows, with one set of resamples."""
    positions = paired_positions([rung.run for rung in ladder.rungs])
    common = [name for name in ladder.names if all(name in rung.run.facts["metrics"] for rung in ladder.rungs)]
    values = [per_user(of_run, common) for of_run in positions]
    best = ladder.strongest_baseline
    base = ladder.rungs.index(best) if best is not None else 0
    over = [(base, number) for number, rung in enumerate(ladder.rungs) if rung.is_model and best is not None]
    steps, thinking = ladder.steps, ladder.thinking
    differences = differences_of_pairs(values, common, [*steps, *over, *thinking], seed=seed)
    first = len(steps) + len(over)
    return MeasuredLadder(
        ladder=ladder,
        positions=tuple(positions),
        steps=_steps(ladder, steps, differences[: len(steps)]),
        over_baseline=_steps(ladder, over, differences[len(steps) : first]),
        thinking=_steps(ladder, thinking, differences[first:]),
    )


def ladder_section(measured: MeasuredLadder) -> Section:
    """FigureRow, the table of RUNs, and the differences."""
    ladder = measured.ladder
    facts = ladder.facts
    words, whom = Protocol.parse(facts["protocol"]).words, _whom(facts)
    blocks: list[Block] = [FigureRow(figures=ladder_figures(ladder, measured.positions)), _results(ladder)]
    if measured.steps:
        blends = ", a blend against its best part" if any(step.blended_with for step in measured.steps) else ""
        blocks.append(_differences(f"Each row against the row above{blends}", measured.steps, ladder))
    if measured.over_baseline and measured.over_baseline != measured.steps:
        title = "Models against the strongest baseline"
        blocks.append(_differences(title, measured.over_baseline, ladder, explained=bool(measured.steps)))
    if measured.thinking:
        blocks.append(_worth(measured.thinking, ladder))
    blocks += [_parts(rung) for rung in ladder.blends]
    part = ", validation" if ladder.of_validation else ""
    return Section(
        key=f"ladder-{ladder.key}",
        title=f"Ladder, {facts['protocol']}, {facts['num_users']:,} users{part}",
        short=f"Ladder {facts['protocol']}{part}",
        lead=f"{words[:1].upper()}{words[1:]}{'. ' if words else ''}Candidate file `{facts['candidates']}`, sha256 "
        f"`{facts['candidates_sha256'][:12]}`. Ties count as the expectation over their orders.{whom}",
        blocks=tuple(blocks),
    )


def verdict(measured: MeasuredLadder) -> list[str]:
    """Up to four sentences: the last model's metric, its gains over the best baseline and the model below, and what the
    best blend gains over its best part.
    """
    ladder, metric = measured.ladder, measured.ladder.metric
    top = ladder.top
    chance = f"Chance is {ladder.facts['chance'][metric]:.3f}."
    sentences = [
        f"`{top.label}` reaches {ladder.shown(metric)} = {top.run.intervals[metric]} over "
        f"{ladder.facts['num_users']:,} users. {chance}"
    ]
    if measured.over_baseline:
        step = measured.over_baseline[-1]
        sentences.append(f"Against the strongest baseline, `{step.lower.label}`: {_in_words(step, metric)}")
    if len(ladder.models) > 1:
        step = next(step for step in measured.steps if step.upper is top)
        sentences.append(f"Against the model below it, `{step.lower.label}`: {_in_words(step, metric)}")
    if blends := [step for step in measured.steps if step.blended_with]:
        step = blends[-1]
        sentences.append(f"`{step.lower.label}` blended with {step.blended_with}: {_in_words(step, metric)}")
    return sentences


def with_interval(rung: Rung, metric: str) -> str:
    """A RUN's mean, and beneath it the bounds; empty where it doesn't report the metric."""
    if metric not in rung.run.facts["metrics"]:
        return ""
    interval = rung.run.intervals[metric]
    return f"{interval.value:.3f}\n{interval.low:.3f}–{interval.high:.3f}"


def overview_section(ladders: Sequence[Ladder]) -> Section | None:
    """A row for each recommender, a column for each ladder; None where there are fewer than two ladders."""
    if len(ladders) < 2:
        return None
    columns = [{name_of(rung): rung for rung in ladder.rungs} for ladder in ladders]
    names = in_order(columns)
    rows = tuple(
        (name, *(_cell(ladder, column, name) for ladder, column in zip(ladders, columns, strict=True)))
        for name in names
    )
    strong = frozenset(
        (names.index(name), number)
        for number, (ladder, column) in enumerate(zip(ladders, columns, strict=True), 1)
        for name, rung in column.items()
        if math.isclose(rung.value(ladder.metric), max(other.value(ladder.metric) for other in ladder.rungs))
    )
    chance = ("chance", *(f"{ladder.facts['chance'][ladder.metric]:.3f}" for ladder in ladders))
    return Section(
        key="overview",
        title="Every protocol at a glance",
        short="Overview",
        lead="Each column asks another question, so figures compare down a column and never across. The sections below "
        "hold all metrics, and which differences are found.",
        blocks=(
            Sheet(
                table=Table(
                    title="",
                    columns=("recommender", *_headings(ladders)),
                    rows=rows,
                    note="Means over users with 95 % bootstrap intervals; the highest of a column is bold. "
                    "n/a: it chose the negatives. Empty: not ranked.",
                ),
                foot=(chance,),
                strong=strong,
            ),
        ),
    )


def name_of(rung: Rung) -> str:
    """The name of a RUN without the slice of users that it ranked."""
    return " ".join(word for word in rung.label.split(" ") if not SLICED.fullmatch(word))


def in_order(columns: Sequence[dict[str, Rung]]) -> list[str]:
    """All names, baselines before models and blends last, each in the order of the first ladder that has it."""
    firsts: dict[str, Rung] = {}
    for column in columns:
        firsts = {**firsts, **{name: rung for name, rung in column.items() if name not in firsts}}
    return sorted(firsts, key=lambda name: (firsts[name].is_blend, firsts[name].is_model))


def _whom(facts: Mapping[str, Any]) -> str:
    """Which slice of the users was ranked, and how many targets a retriever's lists hold; empty where it is all."""
    part = f"These are {users_of(facts)}." if "slice" in facts else ""
    return "".join(f" {sentence}" for sentence in (part, ceiling_of(facts)) if sentence)


def _steps(
    ladder: Ladder, pairs: Sequence[tuple[int, int]], differences: Sequence[dict[str, PairedDifference]]
) -> tuple[Step, ...]:
    """The steps of one table, from the differences of each pair (lower, upper) of rungs."""
    return tuple(
        Step(lower=ladder.rungs[lower], upper=ladder.rungs[upper], differences=step)
        for (lower, upper), step in zip(pairs, corrected_on(ladder.metric, differences), strict=False)
    )


def _in_words(step: Step, metric: str) -> str:
    difference = step.differences[metric]
    low, value, high = difference.interval.low, difference.interval.value, difference.interval.high
    if low == high == 0:
        return "the same for every user."
    size = f"{_signed(value)} [{_signed(low)}, {_signed(high)}]"
    if difference.holds:
        return f"{difference.verdict} by {size}."
    return f"no difference found ({size}); these users could have shown one of {difference.detectable:.3f}."


def _results(ladder: Ladder) -> Sheet:
    facts, names = ladder.facts, ladder.names
    rows = tuple((rung.label, *(with_interval(rung, name) for name in names)) for rung in ladder.rungs)
    chance = ("chance", *(f"{facts['chance'][name]:.3f}" if name in facts["chance"] else "" for name in names))
    best = ceiling_rows(ladder.rungs[0].run, names)
    own = [(chooser, *("n/a" for _ in names)) for chooser in [Protocol.parse(facts["protocol"]).chooser] if chooser]
    empty = [ladder.shown(name) for name in facts["vacuous"]]
    vacuous = f" {', '.join(empty)} is always 1 and left out." if empty else ""
    strong = frozenset(
        (row, column)
        for column, name in enumerate(names, 1)
        for row, rung in enumerate(ladder.rungs)
        if math.isclose(rung.value(name), max(other.value(name) for other in ladder.rungs))
    )
    return Sheet(
        table=Table(
            title="All RUNs",
            columns=("run", *(ladder.shown(name) for name in names)),
            rows=rows,
            note=f"Means over users with 95 % bootstrap intervals; the highest of a column is bold.{vacuous} "
            f"{own_note(facts['protocol'])} {NOTE if best else ''}".rstrip(),
        ),
        foot=(*own, chance, *best),
        strong=strong,
    )


def _differences(title: str, steps: Sequence[Step], ladder: Ladder, *, explained: bool = False) -> Sheet:
    """Differences of the main metrics, and for the metric of the verdict the corrected p and the detectable size.

    A note explains how to read them, unless an earlier table has `explained` it.
    """
    metric = ladder.metric
    names = [name for name in ladder.names if name in (*MAIN, metric) and name in steps[0].differences]
    rows = tuple(
        (
            step.label,
            *(_in_cell(step.differences[name].interval) for name in names),
            _p(step.differences[metric]),
            f"{step.differences[metric].detectable:.3f}",
        )
        for step in steps
    )
    judged = names.index(metric) + 1
    strong = frozenset((row, judged) for row, step in enumerate(steps) if step.differences[metric].holds)
    return Sheet(
        table=Table(
            title=title,
            columns=("step", *(ladder.shown(name) for name in names), f"p, {metric}", f"detectable, {metric}"),
            rows=rows,
            note="" if explained else READING,
        ),
        strong=strong,
    )


def _worth(steps: Sequence[Step], ladder: Ladder) -> Sheet:
    """Is thinking worth it? What thoughts gain beside what they cost; bold where a gain is found."""
    metric = ladder.metric
    rows = tuple(
        (
            step.upper.label,
            with_interval(step.lower, metric),
            with_interval(step.upper, metric),
            _in_cell(step.differences[metric].interval),
            _p(step.differences[metric]),
            *_costs_of_thoughts(step),
        )
        for step in steps
    )
    shown = ladder.shown(metric)
    costs = ("tokens a user", "unfinished", "seconds a user", "seconds without")
    return Sheet(
        table=Table(
            title="Is thinking worth it?",
            columns=("run", f"{shown} without", f"{shown} with thoughts", "gain", f"p, {metric}", *costs),
            rows=rows,
            note="The same model on the same lists without thoughts and with them; the gain is bold where it is found "
            "after Holm's correction over the rows. Unfinished thoughts passed their bound and were closed there.",
        ),
        strong=frozenset((row, 3) for row, step in enumerate(steps) if step.differences[metric].holds),
    )


def _costs_of_thoughts(step: Step) -> tuple[str, str, str, str]:
    facts, without = step.upper.run.facts, step.lower.run.facts
    users, thoughts = facts["num_users"], facts["thoughts"]
    return (
        f"{thoughts['tokens'] / users:.1f}",
        f"{thoughts['unfinished'] / (users * thoughts['number']):.1%}",
        f"{facts['seconds'] / users:.3g}",
        f"{without['seconds'] / users:.3g}",
    )


def _parts(rung: Rung) -> Sheet:
    """The weights of a blend and what each part adds; bold where that is found."""
    table, facts = blend_table(rung.run), rung.run.facts["blend"]
    judged = next(number for number, name in enumerate(table.columns) if name.startswith(f"{facts['metric']}/"))
    strong = frozenset(
        (row, judged)
        for row, own in enumerate(facts["without"].values())
        if own["adds"][facts["metric"]]["p_holm"] < ALPHA
    )
    return Sheet(table=replace(table, title=f"What each part of {rung.label} adds"), strong=strong)


def _in_cell(interval: Interval) -> str:
    return f"{_signed(interval.value)}\n{_signed(interval.low)} to {_signed(interval.high)}"


def _signed(value: float) -> str:
    """With a true minus, and no sign where three digits show nothing.

    >>> _signed(-0.0123), _signed(0.5), _signed(-0.0001)
    ('−0.012', '+0.500', '0.000')
    """
    rounded = f"{abs(value):.3f}"
    return rounded if float(rounded) == 0 else f"{'+' if value > 0 else '−'}{rounded}"


def _p(difference: PairedDifference) -> str:
    assert difference.p_holm is not None
    return "< 0.001" if difference.p_holm < 0.001 else f"{difference.p_holm:.3f}"


def _cell(ladder: Ladder, column: dict[str, Rung], name: str) -> str:
    if name in column:
        return with_interval(column[name], ladder.metric)
    return "n/a" if name.removesuffix("-full") == Protocol.parse(ladder.facts["protocol"]).chooser else ""


def _headings(ladders: Sequence[Ladder]) -> list[str]:
    """Metric and protocol of each column, with the slice of users, and the candidate file where that isn't enough."""
    plain = [
        ladder.shown(ladder.metric) + (f", {ladder.facts['num_users']:,} users" if "slice" in ladder.facts else "")
        for ladder in ladders
    ]
    return [
        heading if plain.count(heading) == 1 else f"{heading}, {ladder.facts['candidates']}"
        for heading, ladder in zip(plain, ladders, strict=True)
    ]
