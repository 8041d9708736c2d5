"""Statistics of the audit: the probability that something came about by chance; below LEVEL it is a finding.

The level is strict because an audit makes dozens of comparisons and an alarm stops a pipeline.

`marked_probability` and `ordered_probability` are permutation tests without permutations: do labels go with a value,
once popularity is allowed for? Labels are dealt out anew within each stratum. Of a mark that candidates have or lack,
the number of labelled ones is then a sum of independent hypergeometric numbers, whose law is computed exactly. Of a
value that orders candidates, mean and variance of the labelled sum are exact and its law is close to the normal one.
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
class TargetSlot:
    """The position of the target, from 0, in one list of `length` candidates."""

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


def evenness(slots: Sequence[TargetSlot]) -> float | None:
    """Chi-square probability that targets stand at every position equally often; None for too few lists.

    Neighbouring positions are counted together until ten targets are expected in each cell, lists of each length for
    themselves; the sums of squares and the degrees of freedom add up.

    >>> slots = [TargetSlot(example_id=str(n), target_id="a", position=n % 5, length=5) for n in range(100)]
    >>> evenness(slots)
    1.0
    """
    from scipy.special import chdtrc

    by_length = defaultdict[int, Counter[int]](Counter)
    for slot in slots:
        by_length[slot.length][slot.position] += 1
    statistic, freedom = 0.0, 0
    for length, counts in by_length.items():
        num_cells = min(length, counts.total() // EXPECTED_PER_CELL)
        if num_cells < 2:
            continue
        cells = [position * num_cells // length for position in range(length)]
        sizes, observed = Counter(cells), Counter[int]()
        for position, count in counts.items():
            observed[cells[position]] += count
        for cell in range(num_cells):
            expected = counts.total() * sizes[cell] / length
            statistic += (observed[cell] - expected) ** 2 / expected
        freedom += num_cells - 1
    return float(chdtrc(freedom, statistic)) if freedom else None


def lookup_attack(slots: Sequence[TargetSlot]) -> Attack | None:
    """Guess positions by a table from target to its most frequent position, made on one half and tried on the other.

    Chance is 1 / length, or the share of the most frequent position where that is larger: an uneven file is another
    finding. None when no target of the second half occurs in the first.
    """
    table = defaultdict[tuple[str, int], Counter[int]](Counter)
    tried, commonest = list[TargetSlot](), Counter((slot.length, slot.position) for slot in slots)
    for slot in slots:
        if uniform(0, "audit/lookup", slot.example_id) < 0.5:
            table[slot.target_id, slot.length][slot.position] += 1
        else:
            tried.append(slot)
    tried = [slot for slot in tried if (slot.target_id, slot.length) in table]
    if not tried:
        return None
    guesses = {key: min(counts, key=lambda position: (-counts[position], position)) for key, counts in table.items()}
    hits = sum(guesses[slot.target_id, slot.length] == slot.position for slot in tried)
    lengths = Counter(slot.length for slot in slots)
    best = {length: max(commonest[length, at] for at in range(length)) / count for length, count in lengths.items()}
    chance = sum(max(1 / slot.length, best[slot.length]) for slot in tried) / len(tried)
    return Attack(tried=len(tried), hits=hits, chance=chance, probability=at_least(hits, len(tried), chance))


def at_least(hits: int, tried: int, chance: float) -> float:
    """Probability of `hits` or more of `tried` at `chance` each.

    >>> at_least(1, 2, 0.5)
    0.75
    """
    from scipy.special import bdtrc

    return 1.0 if hits <= 0 or chance >= 1 else float(bdtrc(hits - 1, tried, chance))


def events(count: int, expected: float) -> float:
    """Poisson probability of `count` or more rare events where `expected` come by chance."""
    from scipy.special import pdtrc

    return 1.0 if count <= 0 else float(pdtrc(count - 1, expected))


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
