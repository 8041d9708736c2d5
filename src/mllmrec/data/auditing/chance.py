"""Statistics of the audit: could this have come about by chance? Each returns a probability; below LEVEL it is told.

The level is strict because an audit makes dozens of comparisons and an alarm stops a pipeline.

A permutation test without permutations: do labels go with a value, once popularity is allowed for?

Labels are thought to be dealt out anew within each stratum. Of a mark that candidates have or haven't, the number of
labelled ones is then a sum of independent hypergeometric numbers, whose law is worked out exactly. Of a value that
orders candidates, mean and variance of the labelled sum are exact and its law is close to the normal one; a test holds
both against permutations.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mllmrec.data.draws import uniform

LEVEL = 1e-4
EXPECTED_PER_CELL = 10

Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the target stands in one list: `position` counts from 0 in a list of `length`."""

    example_id: str
    target_id: str
    position: int
    length: int


@dataclass(frozen=True, kw_only=True)
class Attack:
    """A guess of positions from a table: `hits` of `tried`, where a guess without the table has chance `chance`."""

    tried: int
    hits: int
    chance: float
    probability: float


def evenness(places: Sequence[Place]) -> float | None:
    """Chi-square probability that targets stand at every position equally often; None for too few lists.

    Neighbouring positions are counted together until ten targets are expected in each cell, lists of each length for
    themselves; the sums of squares and the degrees of freedom add up.

    >>> places = [Place(example_id=str(n), target_id="a", position=n % 5, length=5) for n in range(100)]
    >>> evenness(places)
    1.0
    """
    from scipy.special import chdtrc

    by_length = defaultdict[int, Counter[int]](Counter)
    for place in places:
        by_length[place.length][place.position] += 1
    statistic, freedom = 0.0, 0
    for length, counts in by_length.items():
        num_cells = min(length, counts.total() // EXPECTED_PER_CELL)
        if num_cells < 2:
            continue
        cells = [position * num_cells // length for position in range(length)]
        sizes, found = Counter(cells), Counter[int]()
        for position, count in counts.items():
            found[cells[position]] += count
        for cell in range(num_cells):
            expected = counts.total() * sizes[cell] / length
            statistic += (found[cell] - expected) ** 2 / expected
        freedom += num_cells - 1
    return float(chdtrc(freedom, statistic)) if freedom else None


def lookup_attack(places: Sequence[Place]) -> Attack | None:
    """Guess positions by a table from target to its commonest position, made on one half and tried on the other.

    Chance is 1 / length, or the share of the commonest position where that is larger: an uneven file is another
    finding. None when no target of the second half occurs in the first.
    """
    table = defaultdict[tuple[str, int], Counter[int]](Counter)
    tried, commonest = list[Place](), Counter((place.length, place.position) for place in places)
    for place in places:
        if uniform(0, "audit/lookup", place.example_id) < 0.5:
            table[place.target_id, place.length][place.position] += 1
        else:
            tried.append(place)
    tried = [place for place in tried if (place.target_id, place.length) in table]
    if not tried:
        return None
    guesses = {key: min(counts, key=lambda position: (-counts[position], position)) for key, counts in table.items()}
    hits = sum(guesses[place.target_id, place.length] == place.position for place in tried)
    lengths = Counter(place.length for place in places)
    best = {length: max(commonest[length, at] for at in range(length)) / count for length, count in lengths.items()}
    chance = sum(max(1 / place.length, best[place.length]) for place in tried) / len(tried)
    return Attack(tried=len(tried), hits=hits, chance=chance, probability=at_least(hits, len(tried), chance))


def at_least(hits: int, tried: int, chance: float) -> float:
    """Probability of `hits` or more of `tried` at `chance` each.

    >>> at_least(1, 2, 0.5)
    0.75
    """
    from scipy.special import bdtrc

    return 1.0 if hits <= 0 or chance >= 1 else float(bdtrc(hits - 1, tried, chance))


def events(found: int, expected: float) -> float:
    """Poisson probability of `found` or more rare events where `expected` come by chance."""
    from scipy.special import pdtrc

    return 1.0 if found <= 0 else float(pdtrc(found - 1, expected))


def marked_probability(marked: Bools, labels: Bools, strata: Integers) -> float:
    """Two-sided probability that so many, or so few, labelled candidates are marked; exact.

    >>> labels, strata = np.array([True, False, False, False] * 2), np.repeat([0, 1], 4)
    >>> round(marked_probability(labels, labels, strata), 9)
    0.125
    """
    law, offset = np.ones(1), 0
    for size, num_labelled, num_marked in _counts(marked, labels, strata):
        least, chances = _hypergeometric(size, num_labelled, num_marked)
        law, offset = np.convolve(law, chances), offset + least
    at = int((marked & labels).sum()) - offset
    return min(1.0, 2 * float(min(law[at:].sum(), law[: at + 1].sum())))


def ordered_probability(values: Floats, labels: Bools, strata: Integers) -> float:
    """Two-sided probability that the labelled candidates' values sum to so much, or so little; by the normal law.

    >>> labels = np.array([True, False, True, False])
    >>> ordered_probability(np.array([1.0, 2.0, 2.0, 1.0]), labels, np.zeros(4, dtype=np.int64))
    1.0
    """
    sizes = np.bincount(strata)
    labelled = np.bincount(strata, weights=labels)
    means = np.bincount(strata, weights=values) / np.maximum(1, sizes)
    squares = np.bincount(strata, weights=(values - means[strata]) ** 2) / np.maximum(1, sizes)
    variance = float((labelled * (sizes - labelled) / np.maximum(1, sizes - 1) * squares).sum())
    if variance <= 0:
        return 1.0
    distance = abs(float(values[labels].sum() - (labelled * means).sum())) / math.sqrt(variance)
    return math.erfc(distance / math.sqrt(2))


def _counts(marked: Bools, labels: Bools, strata: Integers) -> Iterator[tuple[int, int, int]]:
    """Size, labelled and marked of each stratum."""
    columns = (np.bincount(strata), np.bincount(strata, weights=labels), np.bincount(strata, weights=marked))
    return ((int(size), int(labelled), int(has)) for size, labelled, has in zip(*columns, strict=True))


def _hypergeometric(size: int, num_labelled: int, num_marked: int) -> tuple[int, Floats]:
    """The least number of labelled ones among the marked, and the chances of it and of each greater number."""
    from scipy.special import gammaln

    def ways(among: int, chosen: Integers) -> Floats:
        return np.asarray(gammaln(among + 1.0) - gammaln(chosen + 1.0) - gammaln(among - chosen + 1.0))

    least = max(0, num_labelled + num_marked - size)
    hits = np.arange(least, min(num_labelled, num_marked) + 1)
    logs = ways(num_marked, hits) + ways(size - num_marked, num_labelled - hits) - ways(size, np.array(num_labelled))
    return least, np.exp(logs)
