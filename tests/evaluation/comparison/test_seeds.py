"""Seeds as an outer level: exact against textbook formulas, and its promises by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, t, ttest_rel

from mllmrec.errors import DataError
from mllmrec.evaluation.comparison.statistics import PairedDifference, compare_over_seeds

Runs = list[np.ndarray]


def two_configurations(
    rng: np.random.Generator, num_runs: tuple[int, int], between: float, repetitions: int
) -> tuple[Runs, Runs]:
    """Runs of equally good configurations over 200 users: seeds move a run's mean by `between`, users differ in how
    hard they are and in their luck with each run."""
    users = rng.normal(0, 0.4, (200, repetitions))

    def run() -> np.ndarray:
        return users + rng.normal(0, between, repetitions) + rng.normal(0, 0.3, users.shape)

    return [run() for _ in range(num_runs[0])], [run() for _ in range(num_runs[1])]


def p_values(differences: list[PairedDifference]) -> np.ndarray:
    return np.array([difference.p for difference in differences])


def test_of_single_runs_it_is_the_paired_t_test() -> None:
    first, other = np.random.default_rng(1).normal(size=(2, 40, 3))
    differences, expected = compare_over_seeds([first], [other]), ttest_rel(other, first)
    assert p_values(differences) == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert [each.interval.low for each in differences] == pytest.approx(interval.low)
    assert [each.interval.high for each in differences] == pytest.approx(interval.high)


def test_where_seeds_are_all_that_varies_it_is_welchs_test_of_the_runs() -> None:
    first_means, other_means = np.array([0.1, 0.3, 0.2]), np.array([0.5, 0.9])
    [difference] = compare_over_seeds(
        *([np.full((50, 1), mean) for mean in means] for means in (first_means, other_means))
    )
    error = (first_means.var(ddof=1) / 3 + other_means.var(ddof=1) / 2) ** 0.5
    freedom = error**4 / ((first_means.var(ddof=1) / 3) ** 2 / 2 + (other_means.var(ddof=1) / 2) ** 2 / 1)
    assert difference.interval.value == pytest.approx(0.5)
    assert difference.interval.high == pytest.approx(0.5 + t.ppf(0.975, freedom) * error)
    assert difference.p == pytest.approx(2 * t.sf(0.5 / error, freedom))
    assert difference.detectable == pytest.approx((t.ppf(0.975, freedom) + t.ppf(0.8, freedom)) * error)


@pytest.mark.parametrize("num_runs", [(2, 2), (3, 3), (5, 5), (3, 5)])
@pytest.mark.parametrize("between", [0.0, 0.02, 0.2])
def test_the_interval_covers_the_truth_whether_seeds_matter_or_not(num_runs: tuple[int, int], between: float) -> None:
    differences = compare_over_seeds(*two_configurations(np.random.default_rng(2), num_runs, between, 1500))
    covered = np.mean([each.interval.low <= 0 <= each.interval.high for each in differences])
    # From what chance leaves of 95 % up to 99 %: the formula errs on the wide side with two or three seeds.
    assert binom.ppf(0.0005, 1500, 0.95) / 1500 <= covered <= 0.99
    assert np.mean(p_values(differences) < 0.05) == pytest.approx(1 - covered)


def test_looking_at_users_alone_would_take_luck_with_seeds_for_a_find() -> None:
    first, other = two_configurations(np.random.default_rng(3), (3, 3), 0.1, 500)
    alone = compare_over_seeds([np.mean(first, axis=0)], [np.mean(other, axis=0)])
    assert np.mean(p_values(alone) < 0.05) > 0.4
    assert np.mean(p_values(compare_over_seeds(first, other)) < 0.05) < 0.07


def test_equal_runs_have_p_value_one_and_a_point_for_an_interval() -> None:
    same = [np.full((9, 2), 0.5)] * 3
    differences = compare_over_seeds(same, same)
    assert p_values(differences).tolist() == [1.0, 1.0]
    assert [str(each.interval) for each in differences] == ["0.000 [0.000, 0.000]"] * 2


def test_one_user_is_refused() -> None:
    with pytest.raises(DataError, match="at least two"):
        compare_over_seeds([np.ones((1, 1))] * 2, [np.ones((1, 1))])
