"""Whether a short series of readings rises: its least-squares slope, with an interval.

With n readings y at steps x and Sxx = sum (x - mean x)^2 the slope is b = sum (x - mean x) y / Sxx. How sure it is
depends on what the readings are, t being the quantile of Student's distribution:

* Means over fresh samples (training figures): they scatter about the line. With r the residuals,
  s^2 = sum r^2 / (n - 2), the interval is b +- t(.975, n - 2) s / sqrt(Sxx).
* Exact metrics of one fixed set of users (validation): there is no scatter, and the question is whether other users
  would have gained too. Each user has a slope b_u, and b is their mean. With s their standard deviation over U users
  the interval is b +- t(.975, U - 1) s / sqrt(U). A rise that levels off stays a rise, and a small drift of a few users
  is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from mllmrec.evaluation.metrics import FloatArray

LEVEL = 0.95
FEWEST = 4
DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Slope:
    """A change per step, the bounds of its 95 % interval, and the number of steps it was fitted over."""

    value: float
    low: float
    high: float
    span: int

    @property
    def rises(self) -> bool:
        """The whole interval lies above zero."""
        return self.low > 0

    def __str__(self) -> str:
        """The change along the fitted line from its first step to its last."""
        value, low, high = (bound * self.span for bound in (self.value, self.low, self.high))
        return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def fit(steps: Sequence[int], values: Sequence[float]) -> Slope:
    """The slope of at least four readings at distinct steps, by their scatter about the line.

    >>> fit([0, 10, 20, 30], [0.0, 0.1, 0.2, 0.3])
    Slope(value=0.01, low=0.01, high=0.01, span=30)
    >>> str(fit([0, 1, 2, 3], [0.0, 1.0, 0.0, 1.0]))
    '+0.600 [-3.051, +4.251]'
    """
    assert len(steps) == len(values) >= FEWEST, "a slope needs at least four readings"
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    slope = float(_slopes(x, y[:, None])[0])
    residuals = y - y.mean() - slope * (x - x.mean())
    error = np.sqrt(residuals @ residuals / (len(x) - 2)) / np.linalg.norm(x - x.mean())
    return _interval(x, slope, float(error), degrees=len(x) - 2)


def fit_users(steps: Sequence[int], values: Sequence[Sequence[float]]) -> Slope:
    """The slope of the mean of `values` (steps, users), each from 0 to 1, by how the users' own slopes differ.

    >>> str(fit_users([0, 10], [[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]]))
    '+0.250 [-0.209, +0.709]'
    """
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    slopes = _slopes(x, y)
    num_users = len(slopes)
    error = slopes.std(ddof=1) / np.sqrt(num_users) if num_users > 1 else 1.0  # one user tells nothing
    return _interval(x, float(slopes.mean()), float(error), degrees=max(1, num_users - 1))


def _slopes(x: FloatArray, y: FloatArray) -> FloatArray:
    """The least-squares slope of each column."""
    away = x - x.mean()
    slopes: FloatArray = away @ y / (away @ away)
    return slopes


def _interval(x: FloatArray, slope: float, error: float, degrees: int) -> Slope:
    """Bounds are rounded where digits mean nothing: a flat series has the slope zero, not 1e-18."""
    reach = float(stdtrit(degrees, (1 + LEVEL) / 2)) * error
    value, low, high = (round(bound, DIGITS) + 0.0 for bound in (slope, slope - reach, slope + reach))
    return Slope(value=value, low=low, high=high, span=int(x.max() - x.min()))
