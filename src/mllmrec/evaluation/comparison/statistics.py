"""Uncertainty of metrics: intervals over users, paired tests with Holm's correction, minimum detectable differences.

Users are the unit: a metric is a mean over users, so resampling users (the bootstrap) shows how it would vary with
other users of the same kind. Two runs over the same users are compared through their per-user differences, which
removes what makes a user easy or hard for both.

Arrays are (users, columns): each column is one metric of one run. All columns share their resamples, so the interval
and the p-value of a column don't depend on which other columns are asked for, and a hundred columns cost little more
than one. Memory is one block of `BLOCK` x users and one number for each draw and column.

A configuration trained with several seeds stands for all the seeds it might have had. Its value is the mean over its
runs, and two things make that mean uncertain: which users were asked and which seeds were drawn. Resampling three
seeds would understate the second, as it only ever meets those three, so `compare_over_seeds` adds variances instead and
uses Student's t with Satterthwaite's degrees of freedom:

    seeds    s^2 / runs, s being the standard deviation of the runs' means; it holds what one run has by chance with
             one user as well, because that moves the run's mean too
    users    the variance of the paired differences over users, less that share, which would otherwise count twice

Two seeds make wide intervals, five are enough. A configuration given by one run adds no seeds' part: the comparison is
then about that one model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np

from mllmrec.data.draws import generator
from mllmrec.errors import DataError
from mllmrec.evaluation.metrics import FloatArray, means

DRAWS = 10_000
BLOCK = 64
ALPHA = 0.05
"""The chance of even one false find among the differences of one family."""
Verdict = Literal["better", "worse", "not found"]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over users with the bounds between which 95 % of its resampled means lie."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """One metric of one run or configuration minus that of another, paired by user.

    `p` is the two-sided p-value of this difference alone and `p_holm` the one corrected for its family, the differences
    that are reported together; None outside any family. `detectable` is the true difference that a 5 % test on these
    users finds in 80 % of repetitions.
    """

    interval: Interval
    p: float
    detectable: float
    p_holm: float | None = None

    @property
    def verdict(self) -> Verdict:
        """Better or worse when the p-value corrected by Holm is below 5 %, by one rule wherever a difference is shown.

        The interval isn't corrected: it shows how large the difference may be and doesn't decide whether there is one.

        >>> gain = Interval(value=0.03, low=0.001, high=0.059)
        >>> PairedDifference(interval=gain, p=0.04, p_holm=0.04, detectable=0.02).verdict
        'better'
        >>> PairedDifference(interval=gain, p=0.04, p_holm=0.08, detectable=0.02).verdict
        'not found'
        """
        assert self.p_holm is not None, "a difference that was corrected for no family has no verdict"
        if self.p_holm >= ALPHA:
            return "not found"
        return "better" if self.interval.value > 0 else "worse"

    @property
    def holds(self) -> bool:
        """Whether the verdict is better or worse."""
        return self.verdict in ("better", "worse")


def paired_differences(differences: FloatArray, *, seed: int = 42) -> list[PairedDifference]:
    """The paired difference of each column of per-user differences (users, columns), corrected for no family yet.

    >>> import numpy as np
    >>> [gain] = paired_differences(np.array([[1.0], [0.0]] * 50))
    >>> gain.interval.value, gain.p == 1 / 10_001, gain.p_holm
    (0.5, True, None)
    """
    columns = zip(
        bootstrap(differences, seed=seed),
        randomisation_p_values(differences, seed=seed),
        minimum_detectable(differences),
        strict=True,
    )
    return [PairedDifference(interval=interval, p=p, detectable=least) for interval, p, least in columns]


def corrected(family: Sequence[PairedDifference]) -> list[PairedDifference]:
    """The differences of one family with their `p_holm`."""
    adjusted = holm([difference.p for difference in family])
    return [replace(difference, p_holm=p) for difference, p in zip(family, adjusted, strict=True)]


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
    num_users = len(differences)
    rng = _random_stream(seed, "signs")
    row_bytes = num_users // 8 + 1

    def toss(weights: FloatArray) -> None:
        """A fair coin for each user, for each choice of signs (row)."""
        bits = np.unpackbits(np.frombuffer(rng.bytes(len(weights) * row_bytes), dtype=np.uint8))
        weights[:] = bits.reshape(len(weights), -1)[:, :num_users]

    sums = 2.0 * _weighted_sums(differences, toss, draws) - observed
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
    for smaller, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - smaller) * p_values[index]))
        adjusted[index] = highest
    return adjusted


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

    The other run is taken to be as spread and to err independently: runs that find the same users easy show smaller
    differences.

    >>> import numpy as np
    >>> [round(size, 4) for size in minimum_detectable_alone(np.array([[1.0], [0.0]] * 500))]
    [0.0627]
    """
    return [2**0.5 * least for least in minimum_detectable(values, level=level, power=power)]


def compare_over_seeds(
    first: Sequence[FloatArray], other: Sequence[FloatArray], *, level: float = 0.95, power: float = 0.8
) -> list[PairedDifference]:
    """The difference of two configurations' means for each column; each run is given as (users, columns).

    >>> import numpy as np
    >>> users = np.linspace(0, 1, 50)[:, None]
    >>> [gain] = compare_over_seeds([users, users + 0.02], [users + 0.5, users + 0.54])
    >>> gain.interval.value, round(gain.interval.low, 2), round(gain.interval.high, 2)
    (0.51, 0.37, 0.65)
    """
    from scipy.stats import t

    difference = np.mean(other, axis=0) - np.mean(first, axis=0)
    if len(difference) < 2:
        raise DataError("One user is too few to compare seeds over. Expected at least two; rank more users.")
    spreads = [_spread(runs) for runs in (first, other) if len(runs) > 1]
    users = difference.var(axis=0, ddof=1) / len(difference) - sum(chance for _, chance in spreads)
    variances = np.array([np.maximum(users, 0.0), *(variance for variance, _ in spreads)])
    freedom = _freedom(variances, [len(difference) - 1, *(len(runs) - 1 for runs in (first, other) if len(runs) > 1)])
    errors, values = np.sqrt(variances.sum(axis=0)), difference.mean(axis=0)
    half = t.ppf((1 + level) / 2, freedom) * errors
    sizes = np.divide(np.abs(values), errors, out=np.where(values == 0, 0.0, np.inf), where=errors > 0)
    p_values = 2 * t.sf(sizes, freedom)
    detectable = half + t.ppf(power, freedom) * errors
    return [
        PairedDifference(
            interval=Interval(value=float(value), low=float(value - reach), high=float(value + reach)),
            p=float(p),
            detectable=float(least),
        )
        for value, reach, p, least in zip(values, half, p_values, detectable, strict=True)
    ]


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


def _spread(runs: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """The variance of the mean over runs, and the share of it that runs have by chance with single users."""
    values = np.array(runs)
    num_runs, num_users, _ = values.shape
    run_means = values.mean(axis=1)
    residuals = values - values.mean(axis=0) - run_means[:, None] + run_means.mean(axis=0)
    chance = np.square(residuals).sum(axis=(0, 1)) / ((num_runs - 1) * (num_users - 1))
    return run_means.var(axis=0, ddof=1) / num_runs, chance / (num_runs * num_users)


def _freedom(variances: FloatArray, freedoms: Sequence[int]) -> FloatArray:
    """Satterthwaite's degrees of freedom of a sum of variances, for each column; the users' where nothing varies."""
    parts = (np.square(variances) / np.array(freedoms)[:, None]).sum(axis=0)
    whole = np.square(variances.sum(axis=0))
    freedom: FloatArray = np.divide(whole, parts, out=np.full_like(whole, freedoms[0]), where=parts > 0)
    return freedom
