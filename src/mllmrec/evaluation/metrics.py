"""Ranking metrics as expectations under random tie-breaking.

A metric of one user depends on how many candidates scored strictly higher than the target (`higher`), how many others
scored the same (`ties`) and how many candidates there were. The target is then equally likely at each of the positions
higher + 1 ... higher + ties + 1, and the metric is its mean over them; ties are never broken by chance or by row
number. A target that was ranked nowhere (a retriever missed it, no valid answer named it) has
`higher = num_candidates`, and every metric of it is zero.

A ranker that knows nothing ties everything, so the exact expectation of guessing is the same formula at
`higher = 0`, `ties = num_candidates - 1`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mllmrec.errors import DataError

FloatArray = npt.NDArray[np.float64]


class Position(NamedTuple):
    """The position of one user's target in its list; `listed` says whether the target was a candidate at all."""

    higher: int
    ties: int
    num_candidates: int
    listed: bool = True


def per_user(positions: Sequence[Position], names: Sequence[str]) -> FloatArray:
    """The value of each metric for each user, (users, metrics); a metric of a run is the mean of its column.

    Many users share a position, so the metrics of each distinct one are computed once.

    >>> per_user([Position(0, 0, 10), Position(2, 1, 10)], ["HR@1", "HR@3", "MRR"]).round(3).tolist()
    [[1.0, 1.0, 1.0], [0.0, 0.5, 0.292]]
    """
    distinct: dict[tuple[int, int, int], int] = {}
    row_of_user = [distinct.setdefault(position[:3], len(distinct)) for position in positions]
    functions = [metric(name) for name in names]
    values = np.array([[function(*position) for function in functions] for position in distinct], dtype=np.float64)
    return values.reshape(len(distinct), len(names))[row_of_user]


def chance(positions: Sequence[Position], names: Sequence[str]) -> dict[str, float]:
    """The exact expectation of each metric when the candidates of these users are ordered at random.

    >>> chance([Position(4, 0, 10), Position(9, 0, 10)], ["HR@1", "HR@3"])
    {'HR@1': 0.1, 'HR@3': 0.3}
    """
    guesses = [
        Position(0, count - 1, count) if listed else Position(count, 0, count) for _, _, count, listed in positions
    ]
    return dict(zip(names, means(per_user(guesses, names)), strict=True))


def means(values: FloatArray) -> list[float]:
    """The mean of each column, summed without rounding on the way, so that no order of users changes a digit."""
    return [math.fsum(column) / len(column) for column in values.T]


def vacuous(positions: Sequence[Position], names: Sequence[str]) -> list[str]:
    """The hit rates that can't be anything but 1: K covers every list, and every list holds its target.

    >>> vacuous([Position(4, 0, 10)], ["HR@3", "HR@10", "NDCG@10", "MRR"])
    ['HR@10']
    """
    longest = max(position.num_candidates for position in positions)
    if not all(position.listed for position in positions):
        return []
    return [name for name in names if name.startswith("HR@") and int(name[3:]) >= longest]


def metric_names(top_k: Iterable[int]) -> list[str]:
    """The metrics of these cut-offs, in the order of tables. HR@1 (= NDCG@1) and MRR are always among them.

    >>> metric_names([3, 10])
    ['HR@1', 'HR@3', 'HR@10', 'NDCG@3', 'NDCG@10', 'MRR']
    """
    cuts = sorted(set(top_k))
    return [*(f"HR@{k}" for k in sorted({1, *cuts})), *(f"NDCG@{k}" for k in cuts if k > 1), "MRR"]


def metric(name: str) -> Callable[[int, int, int], float]:
    """The function of (higher, ties, num_candidates) behind a metric's name.

    >>> metric("HR@3")(2, 1, 10)
    0.5
    """
    kind, _, k = name.partition("@")
    if name == "MRR":
        return reciprocal_rank
    if kind in ("HR", "NDCG") and k.isdecimal() and int(k) > 0:
        return functools.partial(hit_rate if kind == "HR" else ndcg, k=int(k))
    raise DataError(f"There is no metric {name!r}. Expected HR@K, NDCG@K with a whole K of at least 1, or MRR.")


def hit_rate(higher: int, ties: int, num_candidates: int, k: int) -> float:
    """The chance that the target is among the first `k`: clip((k - higher) / (ties + 1), 0, 1).

    >>> hit_rate(2, 0, 10, k=3), hit_rate(2, 1, 10, k=3), hit_rate(3, 0, 10, k=3)
    (1.0, 0.5, 0.0)
    """
    if _nowhere(higher, ties, num_candidates):
        return 0.0
    return min(max((k - higher) / (ties + 1), 0.0), 1.0)


def ndcg(higher: int, ties: int, num_candidates: int, k: int) -> float:
    """The mean of 1 / log2(position + 1), cut off after position `k`; with one target the ideal gain is 1.

    >>> ndcg(0, 0, 10, k=3), ndcg(2, 0, 10, k=3), ndcg(2, 1, 10, k=3)
    (1.0, 0.5, 0.25)
    """
    if _nowhere(higher, ties, num_candidates):
        return 0.0
    positions = range(higher + 1, min(higher + ties + 1, k) + 1)
    return math.fsum(1.0 / math.log2(position + 1) for position in positions) / (ties + 1)


def reciprocal_rank(higher: int, ties: int, num_candidates: int) -> float:
    """The mean of 1 / position; its mean over users is MRR.

    >>> reciprocal_rank(1, 0, 10), reciprocal_rank(0, 1, 10)
    (0.5, 0.75)
    """
    if _nowhere(higher, ties, num_candidates):
        return 0.0
    return math.fsum(1.0 / position for position in range(higher + 1, higher + ties + 2)) / (ties + 1)


def rank_of(scores: Sequence[float], target_index: int | None) -> tuple[int, int]:
    """How many scores are above the target's and how many others equal it; (number of scores, 0) without a target.

    >>> rank_of([0.5, 2.0, 0.5, 0.1], 2)
    (1, 1)
    >>> rank_of([0.5, 2.0], None)
    (2, 0)

    Raises DataError for a NaN, which compares as neither higher nor equal and would pass for a good rank.
    """
    for index, score in enumerate(scores):
        if math.isnan(score):
            raise DataError(
                f"The score of candidate {index + 1} of {len(scores)} is NaN. Expected a number; the model or its "
                "checkpoint is broken, train or load it again."
            )
    if target_index is None:
        return len(scores), 0
    target = scores[target_index]
    return sum(bool(score > target) for score in scores), sum(bool(score == target) for score in scores) - 1


def _nowhere(higher: int, ties: int, num_candidates: int) -> bool:
    """Whether the target was ranked nowhere; a DataError when the three numbers contradict one another."""
    nowhere = higher == num_candidates and ties == 0
    if higher < 0 or ties < 0 or (higher + ties >= num_candidates and not nowhere):
        raise DataError(
            f"{higher} candidates above the target and {ties} tied with it can't be among {num_candidates}. Expected "
            "higher + ties below the number of candidates; rank the candidates again."
        )
    return nowhere
