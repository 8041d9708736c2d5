"""The permutation test without permutations, against permutations and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import fisher_exact, hypergeom

from mllmrec.data.auditing.chance import marked_probability, ordered_probability

NUM_PERMUTATIONS = 20_000


def dealt(seed: int, num_strata: int = 4) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """Labels that are the rarer the higher the stratum, as targets among items of growing popularity might be."""
    rng = np.random.default_rng(seed)
    strata = rng.integers(0, num_strata, 120)
    labels = rng.random(120) < 0.6 / (1 + strata)
    return rng, labels, strata


def permuted_sums(rng: np.random.Generator, values: np.ndarray, labels: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """The sum of labelled values, labels dealt out anew within strata many times."""
    sums = np.zeros(NUM_PERMUTATIONS)
    for stratum in np.unique(strata):
        here = np.flatnonzero(strata == stratum)
        shuffled = rng.permuted(np.tile(values[here], (NUM_PERMUTATIONS, 1)), axis=1)
        sums += shuffled[:, labels[here]].sum(axis=1)
    return sums


@pytest.mark.parametrize("seed", range(4))
def test_marks_have_the_share_of_permutations(seed: int) -> None:
    rng, labels, strata = dealt(seed)
    marked = rng.random(len(labels)) < 0.2 + 0.15 * labels
    sums, own = permuted_sums(rng, marked.astype(float), labels, strata), (marked & labels).sum()
    share = min(1.0, 2 * min((sums >= own).mean(), (sums <= own).mean()))
    assert marked_probability(marked, labels, strata) == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize("seed", range(4))
def test_ordered_values_have_nearly_the_share_of_permutations(seed: int) -> None:
    rng, labels, strata = dealt(seed)
    values = rng.integers(1, 40, len(labels)) + 6.0 * labels
    sums = permuted_sums(rng, values, labels, strata)
    distance = abs(values[labels].sum() - sums.mean())
    share = (abs(sums - sums.mean()) >= distance - 1e-9).mean()
    assert ordered_probability(values, labels, strata) == pytest.approx(share, abs=0.015)


def test_far_in_the_tail_marks_are_exact() -> None:
    """One stratum is Fisher's test, where permutations would have to be millions."""
    labels = np.arange(300) < 30
    marked = labels & (np.arange(300) < 20) | (np.arange(300) > 270)
    one_sided = fisher_exact([[20, 10], [29, 241]], alternative="greater").pvalue
    found = marked_probability(marked, labels, np.zeros(300, dtype=np.int64))
    assert found == pytest.approx(2 * one_sided, rel=1e-6)
    assert found < 1e-6


def test_several_strata_are_summed() -> None:
    """Two strata: the chance that both give all their marks to labels is the product."""
    labels = np.array([True] * 5 + [False] * 15 + [True] * 4 + [False] * 6)
    marked = np.array([True] * 3 + [False] * 17 + [True] * 2 + [False] * 8)
    strata = np.repeat([0, 1], [20, 10])
    expected = hypergeom.pmf(3, 20, 3, 5) * hypergeom.pmf(2, 10, 2, 4)
    assert marked_probability(marked, labels, strata) == pytest.approx(2 * expected, rel=1e-9)


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_what_goes_with_the_stratum_alone_is_chance(share: float) -> None:
    """Marks and labels both follow the stratum; without it they go together."""
    rng = np.random.default_rng(3)
    strata = np.repeat([0, 1], 2000)
    labels, marked = rng.random(4000) < share * (1 + 2 * strata), rng.random(4000) < 0.2 + 0.6 * strata
    assert marked_probability(marked, labels, strata) > 0.01
    assert ordered_probability(marked.astype(float), labels, strata) > 0.01
    assert marked_probability(marked, labels, np.zeros_like(strata)) < 1e-4
    assert ordered_probability(marked.astype(float), labels, np.zeros_like(strata)) < 1e-4


def test_false_alarms_are_as_rare_as_promised() -> None:
    """Of 400 files without anything amiss about 20 have p < .05."""
    rng = np.random.default_rng(7)
    low = {"marked": 0, "ordered": 0}
    for _ in range(400):
        strata = rng.integers(0, 5, 400)
        labels, values = rng.random(400) < 0.1 + 0.05 * strata, rng.integers(1, 40, 400) + strata
        low["marked"] += marked_probability(values > 30, labels, strata) < 0.05
        low["ordered"] += ordered_probability(values.astype(float), labels, strata) < 0.05
    assert low["marked"] <= 32
    assert 8 <= low["ordered"] <= 32


def test_what_all_or_none_have_tells_nothing() -> None:
    labels, strata = np.array([True, False, False]), np.zeros(3, dtype=np.int64)
    for value in (0.0, 1.0):
        assert ordered_probability(np.full(3, value), labels, strata) == 1.0
        assert marked_probability(np.full(3, value) > 0, labels, strata) == 1.0
