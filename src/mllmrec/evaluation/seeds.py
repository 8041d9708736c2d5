"""Seeds as an outer level: what runs of one configuration say about the run that comes next.

A configuration trained with several seeds stands for all the seeds it might have had. Its value is the mean over its
runs, and two things make that mean uncertain: which users were asked and which seeds were drawn. Resampling three
seeds would understate the second, as it only ever finds those three, so here theory takes the place of resampling:
variances add up, and Student's t with Satterthwaite's degrees of freedom says how far to trust so few numbers.

    seeds    s^2 / runs, s being the standard deviation of the runs' means; it holds what one run has by chance with
             one user as well, because that moves the run's mean too
    users    the variance of the paired differences over users, less that share, which would otherwise count twice

Two seeds say little (intervals get wide), five say enough. A configuration given by one run adds no seeds' part: what
is said then is about that one model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mllmrec.errors import DataError
from mllmrec.evaluation.metrics import FloatArray
from mllmrec.evaluation.statistics import Interval


@dataclass(frozen=True, kw_only=True)
class SeedComparison:
    """For each column: the difference of two configurations' means, its two-sided p-value, the detectable size."""

    differences: list[Interval]
    p_values: list[float]
    detectable: list[float]


def compare_over_seeds(
    first: Sequence[FloatArray], other: Sequence[FloatArray], *, level: float = 0.95, power: float = 0.8
) -> SeedComparison:
    """Set the runs of one configuration against those of another, each run given as (users, columns).

    >>> import numpy as np
    >>> users = np.linspace(0, 1, 50)[:, None]
    >>> found = compare_over_seeds([users, users + 0.02], [users + 0.5, users + 0.54])
    >>> found.differences[0].value, round(found.differences[0].low, 2), round(found.differences[0].high, 2)
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
    return SeedComparison(
        differences=[
            Interval(value=float(value), low=float(value - reach), high=float(value + reach))
            for value, reach in zip(values, half, strict=True)
        ],
        p_values=(2 * t.sf(sizes, freedom)).tolist(),
        detectable=(half + t.ppf(power, freedom) * errors).tolist(),
    )


def _spread(runs: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """The variance of the mean over runs, and the share of it that runs have by chance with single users."""
    values = np.array(runs)
    num_runs, num_users, _ = values.shape
    means = values.mean(axis=1)
    residuals = values - values.mean(axis=0) - means[:, None] + means.mean(axis=0)
    chance = np.square(residuals).sum(axis=(0, 1)) / ((num_runs - 1) * (num_users - 1))
    return means.var(axis=0, ddof=1) / num_runs, chance / (num_runs * num_users)


def _freedom(variances: FloatArray, freedoms: Sequence[int]) -> FloatArray:
    """Satterthwaite's degrees of freedom of a sum of variances, for each column; the users' where nothing varies."""
    parts = (np.square(variances) / np.array(freedoms)[:, None]).sum(axis=0)
    whole = np.square(variances.sum(axis=0))
    freedom: FloatArray = np.divide(whole, parts, out=np.full_like(whole, freedoms[0]), where=parts > 0)
    return freedom
