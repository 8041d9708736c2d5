"""Steps of a ladder: the paired differences of many pairs of RUNs at once, and the table of what each stage brings.

All pairs share one set of resamples. The differences of one metric, one for each step of a table, are a family of their
own, and the verdict on a stage is the verdict on that metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mllmrec.evaluation.comparison.pairing import paired_positions
from mllmrec.evaluation.comparison.statistics import (
    Interval,
    PairedDifference,
    Verdict,
    corrected,
    paired_differences,
)
from mllmrec.evaluation.comparison.tables import shown, users_of
from mllmrec.evaluation.metrics import FloatArray, per_user
from mllmrec.evaluation.ranking.runs import Run
from mllmrec.records import Table

MAIN = ("HR@1", "HR@3", "NDCG@3", "MRR")
VERDICT = "NDCG@3"
WORTH: dict[Verdict, str] = {"better": "yes", "worse": "no: worse", "not found": "not found"}


def steps_table(runs: Sequence[Run], below: Mapping[str, str] | None = None) -> Table | None:
    """What each RUN brings over the one before it; None when there is but one.

    `below` maps names of RUNs to that of the RUN they were made from, with which each is compared too.
    """
    names = [name for name in MAIN if all(name in run.facts["metrics"] for run in runs)]
    pairs = pairs_of([run.facts["name"] for run in runs], below or {})
    if not pairs or not names:
        return None
    metric = VERDICT if VERDICT in names else names[-1]
    values = [per_user(positions, names) for positions in paired_positions(runs)]
    steps = differences_of_pairs(values, names, pairs, seed=runs[0].facts["interval"]["seed"])
    rows = tuple(
        (
            f"{runs[upper].label}\n- {runs[lower].label}",
            *(_cell(step[name].interval) for name in names),
            f"{step[metric].p_holm:.4f}",
            f"{step[metric].detectable:.3f}",
            WORTH[step[metric].verdict],
        )
        for (lower, upper), step in zip(pairs, corrected_on(metric, steps), strict=True)
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


def differences_of_pairs(
    values: Sequence[FloatArray], names: Sequence[str], pairs: Sequence[tuple[int, int]], *, seed: int
) -> list[dict[str, PairedDifference]]:
    """For each pair (lower, upper) of RUNs the difference upper - lower by metric, corrected for no family yet.

    `values` holds an array (users, metrics) for each RUN, users in one order and metrics in the order of `names`.
    """
    if not pairs or not names:
        return []
    columns = np.hstack([values[upper] - values[lower] for lower, upper in pairs])
    differences = paired_differences(columns, seed=seed)
    rows = [differences[start : start + len(names)] for start in range(0, len(differences), len(names))]
    return [dict(zip(names, row, strict=True)) for row in rows]


def corrected_on(metric: str, steps: Sequence[dict[str, PairedDifference]]) -> list[dict[str, PairedDifference]]:
    """The steps of one table, whose differences of `metric` are a family; those of other metrics have no verdict."""
    family = corrected([step[metric] for step in steps])
    return [{**step, metric: difference} for step, difference in zip(steps, family, strict=True)]


def _cell(interval: Interval) -> str:
    return f"{interval.value:+.3f}\n{interval.low:+.3f} to {interval.high:+.3f}"
