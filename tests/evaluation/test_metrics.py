"""Metrics against figures worked out by hand and against the average over every order that breaks the ties."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllmrec.errors import DataError
from mllmrec.evaluation import metrics
from mllmrec.evaluation.metrics import Position, chance, hit_rate, metric, metric_names, ndcg, rank_of, reciprocal_rank

LOG3 = math.log2(3)
lists = st.lists(st.integers(0, 3).map(float), min_size=1, max_size=6)


@st.composite
def scored_targets(draw: st.DrawFn) -> tuple[list[float], int]:
    scores = draw(lists)
    return scores, draw(st.integers(0, len(scores) - 1))


@pytest.mark.parametrize(
    ("higher", "ties", "k", "hit", "gain"),
    [
        (0, 0, 1, 1.0, 1.0),
        (1, 0, 1, 0.0, 0.0),
        (1, 0, 3, 1.0, 1 / LOG3),
        (2, 0, 3, 1.0, 0.5),
        (3, 0, 3, 0.0, 0.0),
        (0, 9, 3, 0.3, (1 + 1 / LOG3 + 0.5) / 10),
        (0, 9, 10, 1.0, sum(1 / math.log2(p + 1) for p in range(1, 11)) / 10),
        (1, 2, 2, 1 / 3, (1 / LOG3) / 3),
        (2, 3, 4, 0.5, (0.5 + 1 / math.log2(5)) / 4),
    ],
)
def test_known_answers_for_ten_candidates(higher: int, ties: int, k: int, hit: float, gain: float) -> None:
    assert hit_rate(higher, ties, 10, k) == pytest.approx(hit, abs=1e-15)
    assert ndcg(higher, ties, 10, k) == pytest.approx(gain, abs=1e-15)


def test_known_answers_of_the_reciprocal_rank() -> None:
    assert reciprocal_rank(0, 0, 4) == 1.0
    assert reciprocal_rank(3, 0, 4) == 0.25
    assert reciprocal_rank(0, 3, 4) == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert reciprocal_rank(1, 1, 4) == pytest.approx((1 / 2 + 1 / 3) / 2)


@given(scored_targets(), st.integers(1, 7))
def test_metrics_are_the_average_over_every_order_of_tied_candidates(case: tuple[list[float], int], k: int) -> None:
    scores, target = case
    size = len(scores)
    orders = [
        order
        for order in itertools.permutations(range(size))
        if not any(scores[first] < scores[second] for first, second in itertools.pairwise(order))
    ]
    positions = [order.index(target) + 1 for order in orders]
    higher, ties = rank_of(scores, target)

    assert hit_rate(higher, ties, size, k) == pytest.approx(np.mean([position <= k for position in positions]))
    assert ndcg(higher, ties, size, k) == pytest.approx(
        np.mean([1 / math.log2(position + 1) if position <= k else 0 for position in positions])
    )
    assert reciprocal_rank(higher, ties, size) == pytest.approx(np.mean([1 / position for position in positions]))
    assert higher + 1 + ties / 2 == pytest.approx(np.mean(positions))


@given(scored_targets(), st.randoms(use_true_random=False))
def test_the_order_of_candidates_changes_nothing(case: tuple[list[float], int], rng: random.Random) -> None:
    scores, target = case
    order = list(range(len(scores)))
    rng.shuffle(order)
    assert rank_of([scores[index] for index in order], order.index(target)) == rank_of(scores, target)


@given(st.integers(1, 30), st.integers(1, 40))
def test_chance_is_the_mean_over_all_positions(size: int, k: int) -> None:
    names = [f"HR@{k}", f"NDCG@{k}", "MRR"]
    expected = [np.mean([metric(name)(position, 0, size) for position in range(size)]) for name in names]
    assert list(chance([Position(0, 0, size)], names).values()) == pytest.approx(expected)


def test_chance_of_ten_candidates_is_the_published_row() -> None:
    row = chance([Position(0, 0, 10)] * 7, metric_names([3, 5]))
    assert {name: round(value, 3) for name, value in row.items()} == {
        "HR@1": 0.1,
        "HR@3": 0.3,
        "HR@5": 0.5,
        "NDCG@3": 0.213,
        "NDCG@5": 0.295,
        "MRR": 0.293,
    }


def test_chance_averages_lists_of_unlike_length_and_counts_a_missing_target_as_zero() -> None:
    positions = [Position(0, 0, 10), Position(1, 0, 5), Position(4, 0, 4, listed=False)]
    assert chance(positions, ["HR@2"]) == {"HR@2": pytest.approx((2 / 10 + 2 / 5 + 0) / 3)}


@pytest.mark.parametrize("name", ["HR@1", "HR@100", "NDCG@100", "MRR"])
def test_a_target_ranked_nowhere_counts_zero(name: str) -> None:
    assert rank_of([0.4, 0.1, 0.7], None) == (3, 0)
    assert metric(name)(3, 0, 3) == 0.0


def test_vacuous_needs_lists_no_longer_than_k_that_hold_their_targets() -> None:
    names = ["HR@3", "HR@5", "HR@10", "NDCG@10"]
    assert metrics.vacuous([Position(9, 0, 10), Position(0, 0, 5)], names) == ["HR@10"]
    assert metrics.vacuous([Position(0, 0, 5)], names) == ["HR@5", "HR@10"]
    assert metrics.vacuous([Position(0, 0, 5), Position(5, 0, 5, listed=False)], names) == []


def test_metric_names_always_hold_hr_1_and_mrr_once() -> None:
    assert metric_names([10, 3, 3]) == ["HR@1", "HR@3", "HR@10", "NDCG@3", "NDCG@10", "MRR"]
    assert metric_names([1]) == ["HR@1", "MRR"]


def test_a_nan_score_is_refused_whoever_has_it() -> None:
    for scores in ([math.nan, 1.0], [1.0, math.nan]):
        with pytest.raises(DataError, match=r"score of candidate \d of 2 is NaN"):
            rank_of(scores, 0)


def test_rank_of_takes_the_numbers_of_other_libraries() -> None:
    higher, ties = rank_of(np.array([0.5, 2.0, 0.5], dtype=np.float32), 2)
    assert (higher, ties) == (1, 1)
    assert (type(higher), type(ties)) == (int, int)


def test_contradictory_counts_are_refused() -> None:
    for higher, ties in ((-1, 0), (0, 10), (10, 1), (11, 0)):
        with pytest.raises(DataError, match="can't be among 10"):
            hit_rate(higher, ties, 10, k=3)


@pytest.mark.parametrize("name", ["HR", "HR@0", "HR@x", "recall@3", "MRR@3"])
def test_an_unknown_metric_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="no metric"):
        metric(name)
