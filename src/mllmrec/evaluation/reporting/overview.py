"""All protocols side by side, one column each: what a stranger looks at before any single ladder.

A column is one candidate file and its users, with one metric; nothing in it compares with another column, because the
negatives decide how hard a question is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mllmrec.evaluation.reporting.ladder import with_interval
from mllmrec.evaluation.reporting.page import Section, Sheet
from mllmrec.evaluation.reporting.runs import Ladder, Rung
from mllmrec.evaluation.tables import chooser_of
from mllmrec.records import Table


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
        if math.isclose(rung.value(ladder.metric), max(each.value(ladder.metric) for each in ladder.rungs))
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
    """What a RUN is called whatever users it ranked."""
    return f"{rung.run.facts['name']}{' generate' if rung.run.facts['method'] == 'generate' else ''}"


def in_order(columns: Sequence[dict[str, Rung]]) -> list[str]:
    """All names: baselines before models, each where the first ladder that knows it has it."""
    firsts: dict[str, Rung] = {}
    for column in columns:
        firsts = {**firsts, **{name: rung for name, rung in column.items() if name not in firsts}}
    return sorted(firsts, key=lambda name: firsts[name].is_model)


def _cell(ladder: Ladder, column: dict[str, Rung], name: str) -> str:
    if name in column:
        return with_interval(column[name], ladder.metric)
    return "n/a" if name.removesuffix("-full") == chooser_of(ladder.facts["protocol"]) else ""


def _headings(ladders: Sequence[Ladder]) -> list[str]:
    """Metric and protocol of each column, with the slice of users, and the candidate file where that isn't enough."""
    plain = [
        ladder.shown(ladder.metric) + (f", {ladder.facts['num_users']:,} users" if "slice" in ladder.facts else "")
        for ladder in ladders
    ]
    return [
        told if plain.count(told) == 1 else f"{told}, {ladder.facts['candidates']}"
        for told, ladder in zip(plain, ladders, strict=True)
    ]
