"""The probed users with their scores under every condition, and the statistics that all probes share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from mllmrec.data.draws import generator
from mllmrec.evaluation.comparison.statistics import Interval, bootstrap
from mllmrec.evaluation.metrics import FloatArray, Position, chance, metric_names, per_user, vacuous
from mllmrec.evaluation.ranking.rankings import position_of, ranking_of
from mllmrec.records import RankingExample

Scores = Sequence[FloatArray]
"""One array for each user: the scores of the candidates, in the order of the example."""

DRAWS = 2_000
TURNS = 1_000
BLOCK = 64


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Users, their scores by the name of the condition, and the cut-offs of their metrics."""

    examples: Sequence[RankingExample]
    scores: Mapping[str, Scores]
    top_k: Sequence[int]
    seed: int

    @cached_property
    def names(self) -> list[str]:
        """The metrics that aren't vacuous on these lists."""
        empty = vacuous(self.positions("plain"), metric_names(self.top_k))
        return [name for name in metric_names(self.top_k) if name not in empty]

    def positions(self, condition: str) -> list[Position]:
        pairs = zip(self.examples, self.scores[condition], strict=True)
        return [position_of(ranking_of(example, scores.tolist())) for example, scores in pairs]

    def values(self, condition: str, names: Sequence[str] | None = None) -> FloatArray:
        """(users, metrics) under one condition."""
        return per_user(self.positions(condition), self.names if names is None else names)

    def first_choices(self, condition: str) -> list[FloatArray]:
        """For each user, the chance of each candidate to be the first choice: tied ones share it."""
        return [first_choice(scores) for scores in self.scores[condition]]

    def chance(self) -> dict[str, float]:
        """What guessing would give."""
        return chance(self.positions("plain"), self.names)


def first_choice(scores_C: FloatArray) -> FloatArray:
    """The chance of each candidate to come first.

    >>> first_choice(np.array([1.0, 3.0, 3.0])).tolist()
    [0.0, 0.5, 0.5]
    """
    best_C = (scores_C == scores_C.max()).astype(np.float64)
    share_C: FloatArray = best_C / best_C.sum()
    return share_C


def kept(before: Sequence[FloatArray], after: Sequence[FloatArray]) -> FloatArray:
    """For each user, the overlap of two first choices: 1 for the same candidate, 0 for another one.

    Tied candidates share their choice: the same tie is 1 as well.

    >>> kept([np.array([0.0, 1.0])], [np.array([0.5, 0.5])]).tolist()
    [0.5]
    """
    return np.array([np.minimum(one, other).sum() for one, other in zip(before, after, strict=True)])


def intervals(columns: Mapping[str, FloatArray], seed: int) -> dict[str, dict[str, float]]:
    """The mean of each column of users with its 95 % interval; all columns share their resamples."""
    means = bootstrap(np.column_stack(list(columns.values())), seed=seed)
    return {name: asdict(interval) for name, interval in zip(columns, means, strict=True)}


class Ratios:
    """Ratios of sums over users, one for each column, with intervals; and the range across columns.

    Users have different denominators (how often their target stood in a slot), so a ratio is no mean over users and
    both sums are resampled together. `numerators` and `denominators` have the shape (users, columns); a column whose
    denominator is 0 has no ratio.
    """

    def __init__(self, numerators: FloatArray, denominators: FloatArray, seed: int) -> None:
        num_users = len(numerators)
        self._numerators, self._denominators, self._seed = numerators, denominators, seed
        self.defined = denominators.any(axis=0)
        numerators, denominators = numerators[:, self.defined], denominators[:, self.defined]
        self.values = numerators.sum(axis=0) / denominators.sum(axis=0)
        rng = np.random.default_rng(generator(seed, "probe", "ratios").getrandbits(128))
        drawn = []
        for start in range(0, DRAWS, BLOCK):
            rows = min(BLOCK, DRAWS - start)
            weights = np.array(
                [np.bincount(rng.integers(0, num_users, num_users), minlength=num_users) for _ in range(rows)],
                dtype=np.float64,
            )
            below = weights @ denominators
            drawn.append(np.divide(weights @ numerators, below, out=np.full(below.shape, np.nan), where=below > 0))
        # Rounded where digits mean nothing, so that equal columns have a range of zero.
        self._draws = np.round(np.vstack(drawn), 12)

    def columns(self) -> list[Interval | None]:
        """Each column's ratio with its 95 % interval; None where there is none."""
        if not self.defined.any():
            return [None] * len(self.defined)
        low, high = np.nanquantile(self._draws, [0.025, 0.975], axis=0)
        bounds = zip(self.values.tolist(), low.tolist(), high.tolist(), strict=True)
        intervals = (Interval(value=value, low=bottom, high=top) for value, bottom, top in bounds)
        return [next(intervals) if defined else None for defined in self.defined]

    def range(self) -> Interval | None:
        """The highest column minus the lowest, between the bounds of the resampled ranges; None without columns."""
        if not self.defined.any():
            return None
        draws = self._draws[~np.isnan(self._draws).all(axis=1)]
        low, high = np.quantile(np.nanmax(draws, axis=1) - np.nanmin(draws, axis=1), [0.025, 0.975]).tolist()
        return Interval(value=round(float(self.values.max() - self.values.min()), 12), low=low, high=high)

    def p_value(self) -> float | None:
        """How often a range as large comes about when columns mean nothing: each user's own are rotated at random.

        (1 + times in `TURNS` that it does) / (1 + `TURNS`); None without columns.
        """
        if not self.defined.any():
            return None
        rng = np.random.default_rng(generator(self._seed, "probe", "turns").getrandbits(128))
        num_users, count = self._numerators.shape
        observed, reached = round(float(self.values.max() - self.values.min()), 12), 0
        for _ in range(TURNS):
            turned = (np.arange(count) + rng.integers(0, count, (num_users, 1))) % count
            above, below = (
                np.take_along_axis(part, turned, axis=1).sum(axis=0) for part in (self._numerators, self._denominators)
            )
            ratios = above[below > 0] / below[below > 0]
            reached += round(float(ratios.max() - ratios.min()), 12) >= observed
        return (1 + reached) / (1 + TURNS)
