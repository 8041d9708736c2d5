"""A permutation test without permutations: do labels go with a value, once popularity is allowed for?

Labels are thought to be dealt out anew within each stratum. Of a mark that candidates have or haven't, the number of
labelled ones is then a sum of independent hypergeometric numbers, whose law is worked out exactly. Of a value that
orders candidates, mean and variance of the labelled sum are exact and its law is close to the normal one; a test holds
both against permutations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


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
