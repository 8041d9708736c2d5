"""A second implementation of every metric, interval and minimum detectable difference, in plain Python.

The first one (`metrics.py`) has closed formulas of how many candidates score above the target and the same. Here all
positions that a tied target may have are listed and the textbook's metric is averaged over them.

An interval is checked twice. Its seed makes the resamples anew: the same users are drawn, their metrics are gathered
and averaged one resample at a time, and the two quantiles are read off the sorted means, where the first implementation
multiplies a matrix of counts. And, whatever the seed, it has to lie about where the normal approximation puts it,
widened by what skewness and whole users allow.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mllmrec.data.draws import generator
from mllmrec.evaluation.verifying.checks import Checks
from mllmrec.evaluation.verifying.rankings import RankedTarget

ROUNDED = 1.01e-6
"""Length-normalised metrics are written with six digits."""

CHECK = "intervals"
LEVEL, DRAWS, DRAWN_AT_ONCE = 0.95, 10_000, 64
CLOSE, NO_SPREAD = 1e-9, 1e-12
ENOUGH_USERS = 50
DETECTABLE = 1.959963984540054 + 0.8416212335729143
"""The normal quantiles of a two-sided test at 5 % and of a power of 80 %."""


def check_metrics(checks: Checks, facts: Mapping[str, Any], users: Sequence[RankedTarget], seed: int) -> None:
    """Compare all figures of metrics.json that follow from the rankings with their second computation.

    `facts` is the content of metrics.json and `seed` the one of the resamples in the manifest.
    """
    names = expected_names(facts["top_k"])
    longest = max((user.num_candidates for user in users), default=0)
    everywhere = all(user.listed for user in users)
    empty = [name for name in names if everywhere and name.startswith("HR@") and int(name[3:]) >= longest]
    reported = [name for name in names if name not in empty]
    checks.equal("metrics", "the list of metrics", sorted(facts["metrics"]), sorted(reported))
    checks.equal("chance and vacuous metrics", "the list of vacuous metrics", facts["vacuous"], empty)
    values = {name: [value_of(name, user.positions) for user in users] for name in reported}
    for name in reported:
        guesses = [value_of(name, range(1, user.num_candidates + 1) if user.listed else range(0)) for user in users]
        if name in facts["metrics"]:
            checks.near("metrics", name, facts["metrics"][name]["value"], mean(values[name]))
        checks.near("chance and vacuous metrics", f"chance of {name}", facts["chance"].get(name), mean(guesses))
    for key in ("chance", "minimum_detectable"):
        checks.equal("metrics", f"the list of metrics of {key}", sorted(facts[key]), sorted(reported))
    check_intervals(checks, facts, values, seed)
    _check_counts(checks, facts, users, longest)
    _check_normalised(checks, facts, reported)


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


def check_intervals(checks: Checks, facts: Mapping[str, Any], values: Mapping[str, Sequence[float]], seed: int) -> None:
    """Compare the bounds of each metric with those that follow from its users' `values` and the manifest's `seed`."""
    expected = {"level": LEVEL, "draws": DRAWS, "seed": seed}
    for name, value in expected.items():
        checks.equal(CHECK, f"{name} of interval", facts["interval"].get(name), value)
    names = [name for name in values if name in facts["metrics"] and len(values[name])]
    again = resampled([values[name] for name in names], seed) if names else []
    for name, (low, high) in zip(names, again, strict=True):
        bounds = facts["metrics"][name]
        where = f"the interval of {name} [{bounds['low']!r}, {bounds['high']!r}]"
        alike = abs(bounds["low"] - low) <= CLOSE and abs(bounds["high"] - high) <= CLOSE
        checks.look(CHECK, alike, f"{where} comes out as [{low!r}, {high!r}] from the same resamples")
        _check_bounds(checks, where, bounds, values[name])
    for name in values:
        _check_detectable(checks, name, facts["minimum_detectable"], values[name])


def resampled(columns: Sequence[Sequence[float]], seed: int) -> list[tuple[float, float]]:
    """(low, high) of each column's mean over users drawn again with replacement, the 2.5 % and 97.5 % quantiles.

    >>> [(low, high)] = resampled([[0.0, 1.0] * 200], seed=42)
    >>> round(low, 2), round(high, 2)
    (0.45, 0.55)
    """
    num_users = len(columns[0])
    rng = np.random.default_rng(generator(seed, "statistics", "bootstrap").getrandbits(128))
    index_type = np.uint16 if num_users <= 1 << 16 else np.uint32
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    means: list[list[float]] = [[] for _ in columns]
    for start in range(0, DRAWS, DRAWN_AT_ONCE):
        shape = (min(DRAWN_AT_ONCE, DRAWS - start), num_users)
        users = rng.integers(0, num_users, shape, dtype=index_type)
        for own, array in zip(means, arrays, strict=True):
            own.extend(array[users].mean(axis=1).tolist())
    tail = (1 - LEVEL) / 2
    return [(_quantile(ordered, tail), _quantile(ordered, 1 - tail)) for ordered in map(sorted, means)]


def _check_counts(checks: Checks, facts: Mapping[str, Any], users: Sequence[RankedTarget], longest: int) -> None:
    silent = mean([0.0 if user.answered else 1.0 for user in users])
    checks.equal("counts and shares", "num_users", facts["num_users"], len(users))
    checks.equal("counts and shares", "num_candidates", facts["num_candidates"], longest)
    checks.near("counts and shares", "invalid_share", facts["invalid_share"], silent)
    listed = sum(user.listed for user in users)
    checks.equal("counts and shares", "num_listed", facts.get("num_listed", len(users)), listed)


def _check_normalised(checks: Checks, facts: Mapping[str, Any], names: Sequence[str]) -> None:
    """Metrics by length-normalised scores, from the positions that metrics.json holds beside them.

    Lengths aren't kept, so the positions are compared with the number of users and the length of the lists alone.
    """
    positions, reported, check = (
        facts.get("length_normalised_places"),
        facts.get("length_normalised"),
        "length-normalised metrics",
    )
    if positions is None or reported is None:
        checks.equal(check, "the pair of length_normalised and its places", positions is None, reported is None)
        return
    checks.equal(check, "the users of length_normalised_places", sum(row[3] for row in positions), facts["num_users"])
    lacking = [name for name in names if name not in reported]
    checks.look(check, not lacking, f"{', '.join(lacking)} is missing from length_normalised")
    for higher, ties, count, _ in positions:
        possible = count <= facts["num_candidates"] and (higher + ties < count or (higher == count and not ties))
        checks.look(check, possible, f"the place ({higher}, {ties}) of {count} candidates can't be")
    for metric, value in reported.items():
        values = [(value_of(metric, _positions(*row[:3])), row[3]) for row in positions]
        expected = sum(value * users for value, users in values) / max(sum(users for _, users in values), 1)
        checks.near(check, metric, value, expected, ROUNDED)


def _positions(higher: int, ties: int, num_candidates: int) -> range:
    return range(higher + 1, higher + ties + 2) if higher < num_candidates else range(0)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The value at `share` of the way through sorted values, between its two neighbours in proportion.

    >>> _quantile([0.0, 1.0, 4.0], 0.75)
    2.5
    """
    at = share * (len(ordered) - 1)
    below = min(int(at), len(ordered) - 2)
    return ordered[below] + (at - below) * (ordered[below + 1] - ordered[below])


def _check_bounds(checks: Checks, where: str, bounds: Mapping[str, Any], values: Sequence[float]) -> None:
    """The bounds enclose the value, about 1.96 standard errors away on each side."""
    enclosed = bounds["low"] - CLOSE <= bounds["value"] <= bounds["high"] + CLOSE
    if not checks.look(CHECK, enclosed, f"{where} leaves the value out") or len(values) < ENOUGH_USERS:
        return
    centre = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((value - centre) ** 2 for value in values) / len(values))
    error = spread / math.sqrt(len(values))
    third = math.fsum((value - centre) ** 3 for value in values) / len(values)
    skewness = third / spread**3 if spread else 0.0
    slack = (0.2 + abs(skewness) / math.sqrt(len(values))) * error + 1 / len(values)
    expected = centre - 1.96 * error, centre + 1.96 * error
    alike = abs(bounds["low"] - expected[0]) <= slack and abs(bounds["high"] - expected[1]) <= slack
    checks.look(CHECK, alike, f"{where} is far from the normal one [{expected[0]:.6f}, {expected[1]:.6f}]")


def _check_detectable(checks: Checks, name: str, reported: Mapping[str, Any], values: Sequence[float]) -> None:
    """2.80 standard errors of the difference of two independent runs as spread as this one; none without a spread."""
    check, what = "minimum detectable differences", f"the minimum detectable difference of {name}"
    centre = math.fsum(values) / max(len(values), 1)
    variance = math.fsum((value - centre) ** 2 for value in values) / max(len(values) - 1, 1)
    expected = DETECTABLE * math.sqrt(2 * variance / max(len(values), 1))
    if expected > NO_SPREAD:
        checks.near(check, what, reported.get(name), expected)
    else:
        checks.equal(check, what, reported.get(name), None)
