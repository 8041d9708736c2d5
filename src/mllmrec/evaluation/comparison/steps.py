"""Steps of a ladder: what one RUN brings over another, user by user, for many pairs of RUNs at once.

All pairs share one set of resamples. A ladder asks of each stage whether it is worth it; its p-values, one for each
step on one metric, are a family of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mllmrec.evaluation.comparison.pairing import paired_positions
from mllmrec.evaluation.comparison.statistics import (
    Interval,
    Verdict,
    bootstrap,
    holm,
    minimum_detectable,
    randomisation_p_values,
    verdict,
)
from mllmrec.evaluation.comparison.tables import shown, users_of
from mllmrec.evaluation.metrics import FloatArray, per_user
from mllmrec.evaluation.ranking.runs import Run
from mllmrec.records import Table

MAIN = ("HR@1", "HR@3", "NDCG@3", "MRR")
VERDICT = "NDCG@3"
WORTH: dict[Verdict, str] = {"better": "yes", "worse": "no: worse", "not found": "not found"}


class Gap(NamedTuple):
    """One metric of a RUN minus that of another, paired by user."""

    interval: Interval
    p_value: float
    detectable: float


def steps_table(runs: Sequence[Run], below: Mapping[str, str] | None = None) -> Table | None:
    """What each RUN brings over the one before it; None when there is but one.

    `below` maps names of RUNs to that of the RUN they were made from, which each is held against too.
    """
    names = [name for name in MAIN if all(name in run.facts["metrics"] for run in runs)]
    pairs = pairs_of([run.facts["name"] for run in runs], below or {})
    if not pairs or not names:
        return None
    values = [per_user(positions, names) for positions in paired_positions(runs)]
    gaps = paired_gaps(values, names, pairs, seed=runs[0].facts["interval"]["seed"])
    metric = VERDICT if VERDICT in names else names[-1]
    adjusted = holm([step[metric].p_value for step in gaps])
    rows = tuple(
        (
            f"{runs[upper].label}\n- {runs[lower].label}",
            *(_cell(step[name].interval) for name in names),
            f"{p_value:.4f}",
            f"{step[metric].detectable:.3f}",
            WORTH[verdict(step[metric].interval.value, p_value)],
        )
        for (lower, upper), step, p_value in zip(pairs, gaps, adjusted, strict=True)
    )
    facts = runs[0].facts
    columns = ("step", *shown(names, runs[0]), f"p Holm, {metric}", "detectable", "worth it?")
    return Table(
        title=f"What each stage brings, {facts['dataset']}, {users_of(facts)}, {facts['candidates']}",
        columns=columns,
        rows=rows,
        note=(
            "Paired differences with 95 % intervals over users. p Holm: paired randomisation test, corrected for all "
            f"rows. detectable: the true difference in {metric} that a 5 % test on these users finds in 80 % of "
            "repetitions."
        ),
    )


def pairs_of(names: Sequence[str], below: Mapping[str, str]) -> list[tuple[int, int]]:
    """(lower, upper) of every step: the RUN before each, and the one it was made from where that is another.

    >>> pairs_of(["a", "b", "c"], {"b": "a", "c": "a"})
    [(0, 1), (1, 2), (0, 2)]
    """
    pairs = []
    for upper, name in enumerate(names[1:], 1):
        made_from = below.get(name)
        others = [names.index(made_from)] if made_from in names else []
        pairs += [(lower, upper) for lower in dict.fromkeys([upper - 1, *others])]
    return pairs


def paired_gaps(
    values: Sequence[FloatArray], names: Sequence[str], pairs: Sequence[tuple[int, int]], *, seed: int
) -> list[dict[str, Gap]]:
    """The differences of each pair (lower, upper) of RUNs; `values` holds (users, metrics) of each RUN."""
    if not pairs or not names:
        return []
    differences = np.hstack([values[upper] - values[lower] for lower, upper in pairs])
    gaps = [
        Gap(interval, p_value, detectable)
        for interval, p_value, detectable in zip(
            bootstrap(differences, seed=seed),
            randomisation_p_values(differences, seed=seed),
            minimum_detectable(differences),
            strict=True,
        )
    ]
    rows = [gaps[start : start + len(names)] for start in range(0, len(gaps), len(names))]
    return [dict(zip(names, row, strict=True)) for row in rows]


def _cell(interval: Interval) -> str:
    return f"{interval.value:+.3f}\n{interval.low:+.3f} to {interval.high:+.3f}"
