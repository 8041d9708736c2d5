"""Intervals and tests against closed forms, full enumeration, and simulations of their promises."""

from __future__ import annotations

import doctest
import itertools
import tracemalloc

import numpy as np
import pytest

from mllmrec.errors import DataError
from mllmrec.evaluation import statistics
from mllmrec.evaluation.statistics import bootstrap, minimum_detectable, randomisation_p_values


def test_doctests_hold() -> None:
    result = doctest.testmod(statistics)
    assert result.attempted >= 3
    assert result.failed == 0


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


def test_the_interval_covers_the_truth_in_95_of_100_repetitions() -> None:
    repetitions = np.random.default_rng(3).random((200, 1000)) < 0.3
    intervals = bootstrap(repetitions.astype(float), draws=2000)
    covered = np.mean([interval.low <= 0.3 <= interval.high for interval in intervals])
    assert 0.925 <= covered <= 0.97


def test_the_randomisation_test_agrees_with_all_signs_enumerated() -> None:
    differences = np.array([0.5, -0.25, 1.0, 0.75, 0.0, -0.5, 1.0, 0.25])
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product((-1, 1), repeat=len(differences))]
    exact = np.mean(np.array(sums) >= differences.sum() - 1e-12)
    assert randomisation_p_values(differences[:, None])[0] == pytest.approx(exact, abs=0.015)


def test_the_randomisation_test_errs_in_five_of_100_repetitions_without_a_difference() -> None:
    differences = np.random.default_rng(4).normal(size=(100, 2000))
    p_values = np.array(randomisation_p_values(differences, draws=1000))
    assert 0.035 <= np.mean(p_values <= 0.05) <= 0.065
    assert 0.46 <= np.mean(p_values <= 0.5) <= 0.54


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
