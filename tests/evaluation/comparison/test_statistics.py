"""Intervals and tests against closed forms, full enumeration, and simulations of their promises."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from mllmrec.errors import DataError
from mllmrec.evaluation.comparison.statistics import (
    bootstrap,
    holm,
    minimum_detectable,
    minimum_detectable_alone,
    randomisation_p_values,
)


def test_the_interval_of_a_proportion_is_the_normal_one() -> None:
    values = np.repeat([[1.0], [0.0]], [600, 1400], axis=0)
    [interval] = bootstrap(values)
    half = 1.96 * (0.3 * 0.7 / 2000) ** 0.5
    assert interval.value == 0.3
    assert interval.low == pytest.approx(0.3 - half, abs=0.0015)
    assert interval.high == pytest.approx(0.3 + half, abs=0.0015)


def test_the_interval_agrees_with_all_resamples_enumerated() -> None:
    values = np.array([0.0, 1.0, 2.0, 5.0, 7.0])
    means = [np.mean(sample) for sample in itertools.product(values, repeat=5)]
    [interval] = bootstrap(values[:, None])
    assert (interval.low, interval.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.21)


def test_columns_share_resamples_and_do_not_depend_on_one_another() -> None:
    values = np.random.default_rng(1).random((300, 3))
    together = bootstrap(values, draws=500)
    assert together[1] == bootstrap(values[:, 1:2], draws=500)[0]
    [twice] = bootstrap(2 * values[:, :1], draws=500)
    assert (twice.low, twice.high) == pytest.approx((2 * together[0].low, 2 * together[0].high))


def test_the_seed_decides_the_draw() -> None:
    values = np.random.default_rng(2).random((100, 1))
    assert bootstrap(values, seed=1, draws=300) == bootstrap(values, seed=1, draws=300)
    assert bootstrap(values, seed=1, draws=300) != bootstrap(values, seed=2, draws=300)


def within_chance(share: float, nominal: float, repetitions: int) -> bool:
    """Whether a share over so many repetitions may well have come from `nominal` (99.9 % of a binomial's mass)."""
    low, high = binom.interval(0.999, repetitions, nominal)
    return bool(low <= share * repetitions <= high)


def hits_and_gains(rng: np.random.Generator, num_users: int, repetitions: int) -> tuple[np.ndarray, np.ndarray]:
    """Per-user HR@1 and 1 / rank of made-up rankings: ranks 1 to 10, the better the more likely."""
    ranks = 1 + rng.binomial(9, 0.15, size=(num_users, repetitions))
    return (ranks == 1).astype(float), 1 / ranks


def test_the_interval_covers_the_truth_in_95_of_100_repetitions() -> None:
    chances = binom.pmf(np.arange(10), 9, 0.15)
    truths = chances[0], float(chances @ (1 / np.arange(1, 11)))
    for values, truth in zip(hits_and_gains(np.random.default_rng(3), 400, 1500), truths, strict=True):
        intervals = bootstrap(values, draws=1000)
        covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
        assert within_chance(covered, 0.95, 1500)


def test_the_interval_of_a_paired_difference_covers_it_in_95_of_100_repetitions() -> None:
    rng = np.random.default_rng(7)
    easy = rng.random((400, 1500))
    first, other = (easy + rng.normal(0, 0.2, easy.shape) < limit for limit in (0.3, 0.4))
    many = rng.random(1_000_000)
    truth = np.mean(many + rng.normal(0, 0.2, many.shape) < 0.4) - np.mean(many + rng.normal(0, 0.2, many.shape) < 0.3)
    intervals = bootstrap(other.astype(float) - first, draws=1000)
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert within_chance(covered, 0.95, 1500)


def test_the_randomisation_test_agrees_with_all_signs_enumerated() -> None:
    differences = np.array([0.5, -0.25, 1.0, 0.75, 0.0, -0.5, 1.0, 0.25])
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product((-1, 1), repeat=len(differences))]
    exact = np.mean(np.array(sums) >= differences.sum() - 1e-12)
    assert randomisation_p_values(differences[:, None])[0] == pytest.approx(exact, abs=0.015)


def test_the_randomisation_test_errs_in_five_of_100_repetitions_without_a_difference() -> None:
    rng = np.random.default_rng(4)
    (hits, gains), (other_hits, other_gains) = hits_and_gains(rng, 200, 2000), hits_and_gains(rng, 200, 2000)
    errors = np.mean(np.array(randomisation_p_values(other_gains - gains, draws=1000)) <= 0.05)
    assert within_chance(errors, 0.05, 2000)
    # Sums of whole hits take few values, so that the test can't come up to 5 % and stays below.
    errors = np.mean(np.array(randomisation_p_values(other_hits - hits, draws=1000)) <= 0.05)
    assert binom.ppf(0.0005, 2000, 0.03) <= errors * 2000 <= binom.ppf(0.9995, 2000, 0.05)


def test_the_randomisation_test_finds_the_detectable_difference_in_80_of_100_repetitions() -> None:
    repetitions = np.random.default_rng(8).normal(size=(400, 1500)) + 2.8016 / 400**0.5
    found = np.mean(np.array(randomisation_p_values(repetitions, draws=1000)) <= 0.05)
    assert within_chance(found, 0.8, 1500)


def test_holm_agrees_with_the_definition_worked_out_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_steps_down_as_its_rejections_do(p_values: list[float]) -> None:
    """By the stepwise rule: go up the sorted p-values and stop at the first above 0.05 / (those left)."""
    order, rejected = sorted(range(len(p_values)), key=p_values.__getitem__), set()
    for place, index in enumerate(order):
        if p_values[index] * (len(p_values) - place) > 0.05:
            break
        rejected.add(index)
    assert {index for index, adjusted in enumerate(holm(p_values)) if adjusted <= 0.05} == rejected


def test_a_family_without_differences_holds_a_find_in_at_most_five_of_100_repetitions() -> None:
    p_values = np.random.default_rng(10).random((2000, 6))
    false_finds = np.mean([min(holm(family)) <= 0.05 for family in p_values.tolist()])
    assert within_chance(false_finds, 1 - (1 - 0.05 / 6) ** 6, 2000)


def test_what_one_run_could_show_is_the_difference_of_two_independent_ones() -> None:
    rng = np.random.default_rng(10)
    first, other = rng.normal(size=(2, 5000, 1))
    assert minimum_detectable_alone(first)[0] == pytest.approx(minimum_detectable(other - first)[0], rel=0.04)


def test_identical_runs_have_p_value_one_and_a_zero_interval() -> None:
    zeros = np.zeros((50, 2))
    assert randomisation_p_values(zeros) == [1.0, 1.0]
    assert minimum_detectable(zeros) == [0.0, 0.0]
    assert str(bootstrap(zeros, draws=100)[0]) == "0.000 [0.000, 0.000]"


def test_the_minimum_detectable_difference_is_found_in_80_of_100_repetitions() -> None:
    rng = np.random.default_rng(5)
    [least] = minimum_detectable(rng.normal(size=(4000, 1)))
    assert least == pytest.approx(2.8016 / 4000**0.5, rel=0.03)
    repetitions = rng.normal(size=(400, 2000)) + 2.8016 / 400**0.5
    found = np.mean([interval.low > 0 for interval in bootstrap(repetitions, draws=1000)])
    assert 0.76 <= found <= 0.84


def test_one_user_can_detect_nothing() -> None:
    assert minimum_detectable(np.array([[0.5]])) == [float("inf")]


def test_memory_does_not_grow_with_the_draws() -> None:
    values = np.random.default_rng(6).random((6040, 8))
    tracemalloc.start()
    bootstrap(values, draws=1000)
    randomisation_p_values(values, draws=1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


@pytest.mark.parametrize("function", [bootstrap, randomisation_p_values, minimum_detectable])
def test_no_users_and_no_numbers_are_refused(function: object) -> None:
    assert callable(function)
    with pytest.raises(DataError, match="no users"):
        function(np.empty((0, 2)))
    with pytest.raises(DataError, match="not a number"):
        function(np.array([[0.5], [np.nan]]))


def test_the_p_value_of_a_column_does_not_depend_on_the_columns_beside_it() -> None:
    """13 users gain and 4 lose, for which p is 0.049; users that only move in another metric mustn't make it 0.051."""
    gains = np.zeros((200, 1))
    gains[:13], gains[13:17] = 1.0, -1.0
    for others in range(1, 40):
        beside = np.zeros((200, 1))
        beside[17 : 17 + others] = 0.05
        assert randomisation_p_values(np.hstack([gains, beside]))[0] == randomisation_p_values(gains)[0]
