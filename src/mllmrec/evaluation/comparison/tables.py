"""Tables of results: one protocol a table, an interval with every number, chance and ceilings beneath.

A ceiling is what the best possible ranker reaches on a candidate file. It is known in a made-up world alone, whose law
is written down: `demo/oracle.py` writes data/<dataset>/ceiling.json, which holds for the candidate file whose hash it
names and for all of its users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mllmrec.data.candidates.protocols import Protocol
from mllmrec.errors import DataError
from mllmrec.evaluation.comparison.statistics import Interval
from mllmrec.evaluation.ranking.runs import Run
from mllmrec.records import Table
from mllmrec.storage.workspace import DatasetFiles, read_json

NOTE = "ceiling: what the best possible ranker would reach on these lists, from the law of the made-up world."


def results_table(runs: Sequence[Run]) -> Table:
    """The metrics of several RUNs of the same users and candidates with 95 % intervals, and a row for chance.

    The retriever that chose the negatives has a row without figures, which says so. For a slice of users one more row
    has the differences that so few users can show.
    """
    check_same_question(runs)
    first = runs[0].facts
    names = [name for name in first["metrics"] if all(name in run.facts["metrics"] for run in runs)]
    rows = [(run.label, *(_cell(run.intervals[name]) for name in names)) for run in runs]
    if own := Protocol.parse(first["protocol"]).chooser:
        rows.append((own, *("n/a" for _ in names)))
    rows.append(("chance", *(f"{first['chance'][name]:.3f}" for name in names)))
    rows += (best := ceiling_rows(runs[0], names))
    if "slice" in first:
        rows.append(("detectable", *(_detectable(runs, name) for name in names)))
    return Table(
        title=f"{first['dataset']}, {users_of(first)}, {first['candidates']}",
        columns=("run", *shown(names, runs[0])),
        rows=tuple(rows),
        note=" ".join(filter(None, ("Means with 95 % intervals over users.", *_notes(runs[0]), NOTE if best else ""))),
    )


def own_note(protocol: str) -> str:
    """Why the chooser of negatives has no figures; empty where there is none."""
    own = Protocol.parse(protocol).chooser
    return f"n/a: {own} chose the negatives, so that its own figures on them would say nothing." if own else ""


def users_of(facts: Mapping[str, Any]) -> str:
    """The users over whom a RUN's means are taken, in words.

    >>> users_of({"num_users": 1000, "slice": {"of": 6040}}), users_of({"num_users": 6040})
    ('1,000 of 6,040 users, drawn by hash', '6,040 users')
    """
    sliced = facts.get("slice")
    users = f"{facts['num_users']:,}"
    return f"{users} of {sliced['of']:,} users, drawn by hash" if sliced else f"{users} users"


def ceiling_of(facts: Mapping[str, Any]) -> str:
    """How many targets a retriever's lists hold, in words: no metric exceeds that share. Empty where they hold all."""
    listed = facts.get("num_listed")
    if listed is None:
        return ""
    return (
        f"The target is in the lists of {listed:,} of {facts['num_users']:,} users: no metric can exceed "
        f"{listed / facts['num_users']:.3f}."
    )


def shown(names: Sequence[str], run: Run) -> list[str]:
    """Metrics as they are shown, the protocol with the name: HR@3/uni9."""
    return [f"{name}/{run.facts['protocol']}" for name in names]


def check_same_question(runs: Sequence[Run], *, same_file: bool = True) -> None:
    """Raise a DataError that names what differs where RUNs can't stand in one table.

    `same_file` is False for a caller that compares the lists themselves, wherever they are stored.
    """
    if not runs:
        raise DataError("There are no RUNs to show. Expected at least one; make it with `mllmrec baselines`.")
    first = runs[0]
    for run in runs[1:]:
        if same_file and run.facts["candidates_sha256"] != first.facts["candidates_sha256"]:
            ours, theirs = (
                f"{a['candidates']} (sha256 {a['candidates_sha256'][:8]})" for a in (first.facts, run.facts)
            )
            raise DataError(
                f"{first.folder} and {run.folder} ranked different candidate files: {ours} and {theirs}. Expected "
                "the same file; rank it with both through --candidates."
            )
        if run.facts["num_users"] != first.facts["num_users"]:
            ours, theirs = (f"{a['num_users']:,}" for a in (first.facts, run.facts))
            raise DataError(
                f"{first.folder} ranked {ours} users and {run.folder} {theirs}. "
                "Expected the same users; give both the same --limit."
            )


def ceilings(run: Run) -> dict[str, dict[str, Interval]]:
    """row -> metric -> interval; empty where there is no ceiling.json or it is about other lists or users."""
    files = DatasetFiles.of(run.folder)
    if files is None or not files.ceiling.exists():
        return {}
    content = read_json(files.ceiling)
    same = (
        content["candidates_sha256"] == run.facts["candidates_sha256"]
        and content["num_users"] == run.facts["num_users"]
    )
    return {
        row: {name: Interval(**bounds) for name, bounds in figures.items()}
        for row, figures in (content["rows"] if same else {}).items()
    }


def ceiling_rows(run: Run, names: Sequence[str]) -> list[tuple[str, ...]]:
    """A row for each ceiling: its name and a mean for each metric, without intervals, like the row of chance."""
    return [
        (row, *(f"{figures[name].value:.3f}" if name in figures else "" for name in names))
        for row, figures in ceilings(run).items()
    ]


def _cell(interval: Interval) -> str:
    """The mean, and beneath it the bounds, so that a table of seven metrics fits a terminal."""
    return f"{interval.value:.3f}\n{interval.low:.3f}-{interval.high:.3f}"


def _detectable(runs: Sequence[Run], name: str) -> str:
    """The largest of the RUNs' minimum detectable differences, which suffices for all of them."""
    least = [size for run in runs if (size := run.facts["minimum_detectable"][name]) is not None]
    return f"{max(least):.3f}" if least else ""


def _notes(run: Run) -> tuple[str, ...]:
    return _vacuous_note(run), ceiling_of(run.facts), own_note(run.facts["protocol"]), _slice_note(run.facts)


def _slice_note(facts: Mapping[str, Any]) -> str:
    if "slice" not in facts:
        return ""
    return (
        "detectable: the true difference between two independent runs on these users that a 5 % test finds in 80 % of "
        "repetitions; runs that err alike show smaller ones (`mllmrec compare`)."
    )


def _vacuous_note(run: Run) -> str:
    names = shown(run.facts["vacuous"], run)
    if not names:
        return ""
    verb = "is" if len(names) == 1 else "are"
    return f"{', '.join(names)} {verb} vacuous: no list has more than {run.facts['num_candidates']} candidates."
