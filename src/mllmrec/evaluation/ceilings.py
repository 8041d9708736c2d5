"""What could be reached at all on a candidate file, where that is known: in a made-up world, whose law is written down.

data/<dataset>/ceiling.json is written by whoever knows it (`demo/ceiling.py`). It counts for the candidate file whose
hash it names and for all of its users, and for nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from mllmrec.artifacts import Workspace, read_json
from mllmrec.evaluation.runs import Run
from mllmrec.evaluation.statistics import Interval

NOTE = "ceiling: what the best possible ranker would reach on these lists, from the law of the made-up world."


def ceilings(run: Run) -> dict[str, dict[str, Interval]]:
    """row -> metric -> figure; empty where nobody knows, or the file is about other lists."""
    path = Workspace(run.folder.parents[3]).ceiling(run.facts["dataset"])
    if not path.exists():
        return {}
    told = read_json(path)
    same = told["candidates_sha256"] == run.facts["candidates_sha256"] and told["num_users"] == run.facts["num_users"]
    return {
        row: {name: Interval(**bounds) for name, bounds in figures.items()}
        for row, figures in (told["rows"] if same else {}).items()
    }


def ceiling_rows(run: Run, names: Sequence[str]) -> list[tuple[str, ...]]:
    """A row for each ceiling: its name and a mean for each metric, without intervals, as chance is told."""
    return [
        (row, *(f"{figures[name].value:.3f}" if name in figures else "" for name in names))
        for row, figures in ceilings(run).items()
    ]
