"""A second implementation of every metric, in plain Python and by another road.

The first one (`metrics.py`) has closed formulas of how many candidates stand above the target and beside it. Here all
positions that a tied target may stand at are written down and the textbook's metric is averaged over them. Intervals
were resampled and are held against the normal approximation, widened by what skewness and whole users allow.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mllmrec.evaluation.verifying.checks import Checks
from mllmrec.evaluation.verifying.rankings import Placed

CLOSE = 1e-9
ROUNDED = 1.01e-6
"""Length-normalised metrics are written with six digits."""
ENOUGH_USERS = 50
UNTOLD = 1e-12
DETECTABLE = 1.959963984540054 + 0.8416212335729143
"""The normal quantiles of a two-sided test at 5 % and of a power of 80 %."""


def check_metrics(checks: Checks, facts: Mapping[str, Any], users: Sequence[Placed]) -> None:
    """Hold all figures of metrics.json that follow from the rankings against their second computation."""
    names = expected_names(facts["top_k"])
    longest = max((user.num_candidates for user in users), default=0)
    everywhere = all(user.listed for user in users)
    empty = [name for name in names if everywhere and name.startswith("HR@") and int(name[3:]) >= longest]
    told = [name for name in names if name not in empty]
    checks.equal("metrics", "the list of metrics", sorted(facts["metrics"]), sorted(told))
    checks.equal("chance and vacuous metrics", "the list of vacuous metrics", facts["vacuous"], empty)
    for name in told:
        values = [value_of(name, user.positions) for user in users]
        guesses = [value_of(name, range(1, user.num_candidates + 1) if user.listed else range(0)) for user in users]
        bounds = facts["metrics"].get(name)
        if bounds is not None:
            _near(checks, "metrics", name, bounds["value"], mean(values))
            _check_interval(checks, name, bounds, values)
        _check_detectable(checks, name, facts, values)
        _near(checks, "chance and vacuous metrics", f"chance of {name}", facts["chance"].get(name), mean(guesses))
    _check_counts(checks, facts, users, longest)
    _check_normalised(checks, facts)


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


def _near(checks: Checks, check: str, what: str, told: object, found: float, tolerance: float = CLOSE) -> None:
    alike = isinstance(told, (int, float)) and abs(told - found) <= tolerance
    checks.look(check, alike, f"{what} is told as {told!r} and comes out as {found!r}")


def _check_interval(checks: Checks, name: str, bounds: Mapping[str, Any], values: Sequence[float]) -> None:
    """The bounds enclose the value, about 1.96 standard errors away on each side."""
    low, high, centre = bounds["low"], bounds["high"], mean(values)
    where = f"the interval of {name} [{low!r}, {high!r}]"
    enclosed = low - CLOSE <= bounds["value"] <= high + CLOSE
    if not checks.look("intervals", enclosed, f"{where} leaves the value out") or len(values) < ENOUGH_USERS:
        return
    spread = math.sqrt(mean([(value - centre) ** 2 for value in values]))
    error = spread / math.sqrt(len(values))
    skewness = mean([(value - centre) ** 3 for value in values]) / spread**3 if spread else 0.0
    slack = (0.2 + abs(skewness) / math.sqrt(len(values))) * error + 1 / len(values)
    expected = centre - 1.96 * error, centre + 1.96 * error
    alike = abs(low - expected[0]) <= slack and abs(high - expected[1]) <= slack
    checks.look("intervals", alike, f"{where} is far from the normal one [{expected[0]:.6f}, {expected[1]:.6f}]")


def _check_detectable(checks: Checks, name: str, facts: Mapping[str, Any], values: Sequence[float]) -> None:
    """2.80 standard errors of the difference of two independent runs as spread as this one; none without a spread."""
    told = facts.get("minimum_detectable")
    if told is None:
        return
    check, what = "minimum detectable differences", f"the minimum detectable difference of {name}"
    centre = mean(values)
    variance = sum((value - centre) ** 2 for value in values) / max(len(values) - 1, 1)
    found = DETECTABLE * math.sqrt(2 * variance / max(len(values), 1))
    if found > UNTOLD:
        _near(checks, check, what, told.get(name), found)
    else:
        checks.equal(check, what, told.get(name), None)


def _check_counts(checks: Checks, facts: Mapping[str, Any], users: Sequence[Placed], longest: int) -> None:
    silent = mean([0.0 if user.answered else 1.0 for user in users])
    checks.equal("counts and shares", "num_users", facts["num_users"], len(users))
    checks.equal("counts and shares", "num_candidates", facts["num_candidates"], longest)
    _near(checks, "counts and shares", "invalid_share", facts["invalid_share"], silent)
    listed = sum(user.listed for user in users)
    told = facts.get("num_listed", len(users))
    checks.equal("counts and shares", "num_listed", told, listed)


def _check_normalised(checks: Checks, facts: Mapping[str, Any]) -> None:
    """Metrics by length-normalised scores, from the places that stand beside them."""
    places, name = facts.get("length_normalised_places"), "length-normalised metrics"
    if places is None:
        return
    checks.equal(name, "the users of length_normalised_places", sum(row[3] for row in places), facts["num_users"])
    for metric, told in facts["length_normalised"].items():
        values = [(value_of(metric, _positions(*row[:3])), row[3]) for row in places]
        found = sum(value * users for value, users in values) / max(sum(users for _, users in values), 1)
        _near(checks, name, metric, told, found, ROUNDED)


def _positions(higher: int, ties: int, num_candidates: int) -> range:
    return range(higher + 1, higher + ties + 2) if higher < num_candidates else range(0)
