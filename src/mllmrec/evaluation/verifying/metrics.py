"""A second implementation of every metric, in plain Python and by another road.

The first one (`metrics.py`) has closed formulas of how many candidates stand above the target and beside it. Here all
positions that a tied target may stand at are written down and the textbook's metric is averaged over them. Intervals
are in `intervals.py`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mllmrec.evaluation.verifying.checks import Checks
from mllmrec.evaluation.verifying.intervals import check_intervals
from mllmrec.evaluation.verifying.rankings import Placed

ROUNDED = 1.01e-6
"""Length-normalised metrics are written with six digits."""


def check_metrics(checks: Checks, facts: Mapping[str, Any], users: Sequence[Placed], seed: int) -> None:
    """Hold all figures of metrics.json that follow from the rankings against their second computation.

    `seed` is the one of the resamples, as the manifest tells it.
    """
    names = expected_names(facts["top_k"])
    longest = max((user.num_candidates for user in users), default=0)
    everywhere = all(user.listed for user in users)
    empty = [name for name in names if everywhere and name.startswith("HR@") and int(name[3:]) >= longest]
    told = [name for name in names if name not in empty]
    checks.equal("metrics", "the list of metrics", sorted(facts["metrics"]), sorted(told))
    checks.equal("chance and vacuous metrics", "the list of vacuous metrics", facts["vacuous"], empty)
    values = {name: [value_of(name, user.positions) for user in users] for name in told}
    for name in told:
        guesses = [value_of(name, range(1, user.num_candidates + 1) if user.listed else range(0)) for user in users]
        if name in facts["metrics"]:
            checks.near("metrics", name, facts["metrics"][name]["value"], mean(values[name]))
        checks.near("chance and vacuous metrics", f"chance of {name}", facts["chance"].get(name), mean(guesses))
    for key in ("chance", "minimum_detectable"):
        checks.equal("metrics", f"the list of metrics of {key}", sorted(facts[key]), sorted(told))
    check_intervals(checks, facts, values, seed)
    _check_counts(checks, facts, users, longest)
    _check_normalised(checks, facts, told)


def expected_names(top_k: Sequence[int]) -> list[str]:
    """The metrics that cut-offs call for: hit rates with K = 1, gains without, and MRR."""
    hits = [f"HR@{k}" for k in sorted({1, *top_k})]
    return [*hits, *(f"NDCG@{k}" for k in sorted(set(top_k)) if k != 1), "MRR"]


@functools.lru_cache(maxsize=1 << 16)
def value_of(name: str, positions: range) -> float:
    """One user's metric when the target is equally likely at each of `positions`.

    >>> value_of("HR@3", range(3, 5)), value_of("NDCG@3", range(3, 5)), value_of("MRR", range(1, 3))
    (0.5, 0.25, 0.75)
    >>> value_of("HR@3", range(0))
    0.0
    """
    kind, _, cut = name.partition("@")
    total = 0.0
    for position in positions:
        if kind == "MRR":
            total += 1 / position
        elif position <= int(cut):
            total += 1 if kind == "HR" else math.log(2) / math.log(position + 1)
    return total / len(positions) if positions else 0.0


def mean(values: Sequence[float]) -> float:
    """The mean, and 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def _check_counts(checks: Checks, facts: Mapping[str, Any], users: Sequence[Placed], longest: int) -> None:
    silent = mean([0.0 if user.answered else 1.0 for user in users])
    checks.equal("counts and shares", "num_users", facts["num_users"], len(users))
    checks.equal("counts and shares", "num_candidates", facts["num_candidates"], longest)
    checks.near("counts and shares", "invalid_share", facts["invalid_share"], silent)
    listed = sum(user.listed for user in users)
    checks.equal("counts and shares", "num_listed", facts.get("num_listed", len(users)), listed)


def _check_normalised(checks: Checks, facts: Mapping[str, Any], names: Sequence[str]) -> None:
    """Metrics by length-normalised scores, from the places that stand beside them.

    Lengths aren't kept, so places are held against the number of users and the length of the lists alone.
    """
    places, reported, check = (
        facts.get("length_normalised_places"),
        facts.get("length_normalised"),
        "length-normalised metrics",
    )
    if places is None or reported is None:
        checks.equal(check, "the pair of length_normalised and its places", places is None, reported is None)
        return
    checks.equal(check, "the users of length_normalised_places", sum(row[3] for row in places), facts["num_users"])
    lacking = [name for name in names if name not in reported]
    checks.look(check, not lacking, f"{', '.join(lacking)} is missing from length_normalised")
    for higher, ties, count, _ in places:
        possible = count <= facts["num_candidates"] and (higher + ties < count or (higher == count and not ties))
        checks.look(check, possible, f"the place ({higher}, {ties}) of {count} candidates can't be")
    for metric, value in reported.items():
        values = [(value_of(metric, _positions(*row[:3])), row[3]) for row in places]
        expected = sum(value * users for value, users in values) / max(sum(users for _, users in values), 1)
        checks.near(check, metric, value, expected, ROUNDED)


def _positions(higher: int, ties: int, num_candidates: int) -> range:
    return range(higher + 1, higher + ties + 2) if higher < num_candidates else range(0)
