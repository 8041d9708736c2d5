"""How sure a number is: intervals over users, paired tests and their correction, and what could be detected at all.

Users are the unit: a metric is a mean over users, so resampling users (the bootstrap) shows how it would vary with
other users of the same kind. Two runs over the same users are compared through their per-user differences, which
removes what makes a user easy or hard for both.

Arrays are (users, columns): each column is one metric of one run. All columns share their resamples, so an interval
doesn't depend on which other columns are asked for, and a hundred columns cost little more than one. Memory is one
block of `BLOCK` x users and one number for each draw and column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from mllmrec.data.draws import generator
from mllmrec.errors import DataError
from mllmrec.evaluation.metrics import FloatArray, means

DRAWS = 10_000
BLOCK = 64
FOUND = 0.05
"""The chance of even one false find among the differences that are told together."""
Verdict = Literal["better", "worse", "not found"]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over users with the bounds between which 95 % of its resampled means lie."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(values: FloatArray, *, seed: int = 42, draws: int = DRAWS, level: float = 0.95) -> list[Interval]:
    """The percentile interval of each column's mean when users are drawn again with replacement.

    Given differences of two runs it is the interval of the paired difference.

    >>> import numpy as np
    >>> [interval] = bootstrap(np.array([[0.0], [1.0]] * 200))
    >>> interval.value, round(interval.low, 2), round(interval.high, 2)
    (0.5, 0.45, 0.55)
    """
    values = _checked(values)
    num_users = len(values)
    rng = _random_stream(seed, "bootstrap")
    index_type = np.uint16 if num_users <= 1 << 16 else np.uint32

    def count(weights: FloatArray) -> None:
        """How often each user is drawn, for each resample (row)."""
        for row, drawn in zip(weights, rng.integers(0, num_users, weights.shape, dtype=index_type), strict=True):
            row[:] = np.bincount(drawn, minlength=num_users)

    # Rounded where digits mean nothing, so that the order in which a matrix library sums leaves no trace.
    resampled = np.round(_weighted_sums(values, count, draws) / num_users, 12)
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [
        Interval(value=value, low=float(bottom), high=float(top))
        for value, bottom, top in zip(means(values), low, high, strict=True)
    ]


def randomisation_p_values(differences: FloatArray, *, seed: int = 42, draws: int = DRAWS) -> list[float]:
    """The paired randomisation test of each column: how often chance alone makes a mean difference this large.

    Were both runs equally good, each user's difference could as well have had the other sign. The two-sided p-value
    is (1 + times a random choice of signs reaches the observed size) / (1 + draws), never zero.

    >>> import numpy as np
    >>> randomisation_p_values(np.array([[0.2], [-0.2]] * 20))
    [1.0]
    >>> randomisation_p_values(np.full((40, 1), 0.2)) == [1 / 10_001]
    True
    """
    differences = _checked(differences)
    observed = differences.sum(axis=0)
    moving = differences[differences.any(axis=1)]
    rng = _random_stream(seed, "signs")
    row_bytes = len(moving) // 8 + 1

    def toss(weights: FloatArray) -> None:
        """A fair coin for each user, for each choice of signs (row)."""
        bits = np.unpackbits(np.frombuffer(rng.bytes(len(weights) * row_bytes), dtype=np.uint8))
        weights[:] = bits.reshape(len(weights), -1)[:, : len(moving)]

    sums = 2.0 * _weighted_sums(moving, toss, draws) - observed
    slack = 1e-9 * np.abs(differences).sum(axis=0)
    reached = (np.abs(sums) >= np.abs(observed) - slack).sum(axis=0)
    return [(1 + int(count)) / (1 + draws) for count in reached]


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of a family of comparisons, adjusted by Holm so that at most 5 % of families hold a false find.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none falls below one before it, none exceeds 1.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def verdict(difference: float, p_holm: float) -> Verdict:
    """What a paired difference is called everywhere: found when its p-value, corrected by Holm, is below 5 %.

    The interval beside it isn't corrected: it says how large the difference may be and not whether there is one.

    >>> verdict(0.03, 0.04), verdict(-0.03, 0.04), verdict(0.03, 0.05)
    ('better', 'worse', 'not found')
    """
    if p_holm >= FOUND:
        return "not found"
    return "better" if difference > 0 else "worse"


def minimum_detectable(differences: FloatArray, *, level: float = 0.05, power: float = 0.8) -> list[float]:
    """The true mean difference that a two-sided test at 5 % would find in 80 % of repetitions, for each column.

    (z(1 - level / 2) + z(power)) * s / sqrt(users) = 2.80 standard errors of the mean paired difference, s being the
    sample standard deviation of the differences.

    >>> import numpy as np
    >>> [round(size, 4) for size in minimum_detectable(np.array([[1.0], [-1.0]] * 50))]
    [0.2816]
    """
    differences = _checked(differences)
    if len(differences) == 1:
        return [float("inf")] * differences.shape[1]
    normal = NormalDist()
    factor = normal.inv_cdf(1 - level / 2) + normal.inv_cdf(power)
    errors: list[float] = (factor * differences.std(axis=0, ddof=1) / np.sqrt(len(differences))).tolist()
    return errors


def minimum_detectable_alone(values: FloatArray, *, level: float = 0.05, power: float = 0.8) -> list[float]:
    """What the users of one run could show, for each column, before there is another run to compare it with.

    The other run is taken to be as spread and to err independently: runs that find the same users easy tell smaller
    differences apart.

    >>> import numpy as np
    >>> [round(size, 4) for size in minimum_detectable_alone(np.array([[1.0], [0.0]] * 500))]
    [0.0627]
    """
    return [2**0.5 * least for least in minimum_detectable(values, level=level, power=power)]


def _weighted_sums(values: FloatArray, fill: Callable[[FloatArray], None], draws: int) -> FloatArray:
    """The sums of `values` under the user weights that `fill` writes into each row, (draws, columns)."""
    weights = np.empty((min(BLOCK, draws), len(values)))
    sums = np.empty((draws, values.shape[1]))
    for start in range(0, draws, BLOCK):
        block = weights[: draws - start]
        fill(block)
        sums[start : start + BLOCK] = block @ values
    return sums


def _checked(values: FloatArray) -> FloatArray:
    """`values` when there are users in it and all are numbers."""
    if values.ndim != 2 or not len(values):
        raise DataError("There are no users to take a mean over. Expected at least one ranked user; run it again.")
    if not np.isfinite(values).all():
        raise DataError("A user's metric is not a number. Expected finite values; rank the candidates again.")
    return values


def _random_stream(seed: int, purpose: str) -> np.random.Generator:
    """The draws of one purpose, whatever else is drawn."""
    return np.random.default_rng(generator(seed, "statistics", purpose).getrandbits(128))
