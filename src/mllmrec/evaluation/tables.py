"""Results as a reader sees them: one protocol a table, an interval with every number, chance beneath."""

from __future__ import annotations

from collections.abc import Sequence

from mllmrec.errors import DataError
from mllmrec.evaluation.runs import Run
from mllmrec.evaluation.statistics import Interval
from mllmrec.records import Table


def results_table(runs: Sequence[Run]) -> Table:
    """Several RUNs of the same users and candidates, each metric with its 95 % interval, beside the chance row."""
    check_same_question(runs)
    first = runs[0].facts
    names = [name for name in first["metrics"] if all(name in run.facts["metrics"] for run in runs)]
    rows = [(run.label, *(_cell(run.intervals[name]) for name in names)) for run in runs]
    rows.append(("chance", *(f"{first['chance'][name]:.3f}" for name in names)))
    return Table(
        title=f"{first['dataset']}, {first['num_users']} users, {first['candidates']}",
        columns=("run", *shown(names, runs[0])),
        rows=tuple(rows),
        note=f"Means with 95 % intervals over users.{_vacuous_note(runs[0])}",
    )


def _cell(interval: Interval) -> str:
    """The mean, and beneath it the bounds, so that a table of seven metrics fits a terminal."""
    return f"{interval.value:.3f}\n{interval.low:.3f}-{interval.high:.3f}"


def shown(names: Sequence[str], run: Run) -> list[str]:
    """Metrics as they are shown, the protocol with the name: HR@3/uni9."""
    return [f"{name}/{run.facts['protocol']}" for name in names]


def check_same_question(runs: Sequence[Run]) -> None:
    """Refuse RUNs that can't stand in one table, and name what differs."""
    if not runs:
        raise DataError("There are no RUNs to show. Expected at least one; make it with `mllmrec baselines`.")
    first = runs[0]
    for run in runs[1:]:
        if run.facts["candidates_sha256"] != first.facts["candidates_sha256"]:
            ours, theirs = (
                f"{a['candidates']} (sha256 {a['candidates_sha256'][:8]})" for a in (first.facts, run.facts)
            )
            raise DataError(
                f"{first.folder} and {run.folder} ranked different candidate files: {ours} and {theirs}. Expected "
                "the same file; rank it with both through --candidates."
            )
        if run.facts["num_users"] != first.facts["num_users"]:
            raise DataError(
                f"{first.folder} ranked {first.facts['num_users']} users and {run.folder} {run.facts['num_users']}. "
                "Expected the same users; give both the same --limit."
            )


def _vacuous_note(run: Run) -> str:
    names = shown(run.facts["vacuous"], run)
    if not names:
        return ""
    verb = "is" if len(names) == 1 else "are"
    return f" {', '.join(names)} {verb} vacuous: no list has more than {run.facts['num_candidates']} candidates."
