"""Weights of a blend: planted ones come out, the gradient is right, and nothing but the order of scores is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllmrec.errors import DataError
from mllmrec.evaluation.blending.fitting import (
    PENALTIES,
    ChoiceLists,
    Features,
    blended,
    features_of,
    fit,
    fitted_by_folds,
    folds_of,
    penalised_loss,
    standardised,
)
from mllmrec.evaluation.metrics import FloatArray

scores = st.lists(st.floats(-1e3, 1e3).map(lambda number: round(number, 3)), min_size=2, max_size=12)


def planted(weights: Sequence[float], num_lists: int, num_candidates: int = 10, seed: int = 0) -> ChoiceLists:
    """Lists whose targets are drawn by a conditional logit with these weights over standardised noise."""
    rng = np.random.default_rng(seed)
    lists = []
    for _ in range(num_lists):
        features = features_of(rng.normal(size=(len(weights), num_candidates)))
        chances = np.exp(features @ np.array(weights))
        lists.append((features, int(rng.choice(num_candidates, p=chances / chances.sum()))))
    return ChoiceLists.of(lists)


def hits(lists: ChoiceLists, weights: FloatArray) -> float:
    """The share of lists whose target has the highest score."""
    utilities = blended(weights, lists.features).reshape(len(lists), -1)
    return float((utilities.argmax(axis=1) == lists.targets - lists.starts).mean())


def test_standardised_by_hand() -> None:
    # Mean 2, deviations -1, 0 and 1, population variance 2/3.
    assert standardised([1.0, 2.0, 3.0]) == pytest.approx([-(1.5**0.5), 0.0, 1.5**0.5])
    assert standardised([5.0, 1.0, 1.0]) == pytest.approx([2**0.5, -(0.5**0.5), -(0.5**0.5)])
    assert standardised([0.1, 0.1, 0.1]).tolist() == [0.0, 0.0, 0.0]
    assert standardised([7.0]).tolist() == [0.0]


@given(scores, st.floats(0.01, 100), st.floats(-100, 100))
def test_a_part_may_have_any_scale_and_origin(values: list[float], scale: float, origin: float) -> None:
    rescaled = [scale * value + origin for value in values]
    assert standardised(rescaled) == pytest.approx(standardised(values), abs=1e-6)


@given(scores)
def test_standardising_keeps_the_order_and_equal_scores_equal(values: list[float]) -> None:
    own = standardised(values)
    for one, two in zip(range(len(values)), range(1, len(values)), strict=False):
        assert np.sign(own[one] - own[two]) == np.sign(values[one] - values[two])
    assert own.mean() == pytest.approx(0, abs=1e-9)
    assert own.std() == pytest.approx(float(len(set(values)) > 1))


def test_the_gradient_is_that_of_finite_differences() -> None:
    lists = planted([1.0, -0.5, 0.3], 40)
    for penalty in (0.0, 0.7):
        at, step = np.array([0.4, 0.2, -1.1]), 1e-6
        _, gradient = penalised_loss(at, lists, penalty)
        for part in range(3):
            moved = np.eye(3)[part] * step
            slope = penalised_loss(at + moved, lists, penalty)[0] - penalised_loss(at - moved, lists, penalty)[0]
            assert gradient[part] == pytest.approx(slope / (2 * step), abs=1e-7)


def test_the_loss_by_hand() -> None:
    """Two candidates at -1 and 1, target the second: softmax of (-w, w) gives it 1 / (1 + exp(-2 w))."""
    lists = ChoiceLists.of([(features_of([[3.0, 9.0]]), 1)])
    loss, gradient = penalised_loss(np.array([0.5]), lists, 0.2)
    chance = 1 / (1 + np.exp(-1.0))
    assert loss == pytest.approx(-np.log(chance) + 0.1 * 0.25)
    assert gradient == pytest.approx([-2 * (1 - chance) + 0.2 * 0.5])


def test_large_utilities_neither_overflow_nor_lose_the_loss() -> None:
    lists = ChoiceLists.of([(features_of([[3.0, 9.0]]), 0)])
    loss, _ = penalised_loss(np.array([5_000.0]), lists, 0.0)
    assert loss == pytest.approx(10_000.0)


def test_planted_weights_come_out_and_the_blend_beats_both() -> None:
    weights = (1.0, 0.6)
    whole = fit(planted(weights, 2_500), 1e-6)
    # The information of one list is about 0.9 for each weight, so its standard error is about 0.02.
    assert whole == pytest.approx(weights, abs=0.07)
    asked = planted(weights, 2_000, seed=1)
    alone = [hits(asked, np.array(one)) for one in ((1.0, 0.0), (0.0, 1.0))]
    assert hits(asked, whole) > max(alone) + 0.03


def test_a_part_that_tells_nothing_gets_no_weight() -> None:
    lists = planted((1.0, 0.0), 2_500)
    assert fit(lists, 1e-6)[1] == pytest.approx(0.0, abs=0.07)


def test_ranks_are_taken_where_distances_of_scores_say_little() -> None:
    """Targets follow the order of a part alone, and its scores are that order blown up to powers."""
    rng, lists = np.random.default_rng(5), []
    for _ in range(400):
        order = rng.permutation(10)
        chances = np.exp(1.2 * standardised(order))
        lists.append(([np.exp(1.5 * order)], int(rng.choice(10, p=chances / chances.sum()))))
    folds = folds_of(map(str, range(400)), 5, 42)
    kinds: tuple[Features, ...] = ("scores", "ranks")
    choices = {kind: ChoiceLists.of((features_of(own, kind), target) for own, target in lists) for kind in kinds}
    fitted = fitted_by_folds(choices, folds)
    assert fitted.features == "ranks"
    assert fitted.weights == pytest.approx([1.2], abs=0.15)
    assert min(fitted.held_out_loss["ranks"].values()) < min(fitted.held_out_loss["scores"].values()) - 0.1
    assert features_of([[3.0, 1.0, 1.0]], "ranks").tolist() == features_of([[2.5, 1.0, 1.0]]).tolist()


def test_a_copy_of_a_part_shares_its_weight() -> None:
    lists = planted((0.8,), 500)
    doubled = replace(lists, features=np.hstack([lists.features, lists.features]))
    [alone], both = fit(lists, 1e-4), fit(doubled, 1e-4)
    assert both[0] == pytest.approx(both[1])
    assert both.sum() == pytest.approx(alone, abs=1e-3)


def test_targets_that_are_always_first_have_finite_weights() -> None:
    lists = ChoiceLists.of([(features_of([[0.0, 1.0, 2.0]]), 2)] * 50)
    [weight] = fit(lists, min(PENALTIES))
    assert 3 < weight < 30


def test_the_fit_is_where_the_gradient_vanishes() -> None:
    lists = planted((1.0, 0.5, -0.2), 300)
    for penalty in PENALTIES:
        weights = fit(lists, penalty)
        assert np.abs(penalised_loss(weights, lists, penalty)[1]).max() < 1e-7


def test_equal_scores_stay_equal_to_the_last_bit() -> None:
    """Ties are counted by ==, so candidates that every part scores alike must come to the very same sum."""
    rng = np.random.default_rng(3)
    row = rng.normal(size=7)
    features = np.vstack([rng.normal(size=(13, 7)), *[row] * 21, rng.normal(size=(5, 7))])
    assert len(set(blended(rng.normal(size=7), features)[13:34].tolist())) == 1


def test_folds_follow_users_and_the_seed() -> None:
    users = [f"u{number}" for number in range(1_000)]
    folds = folds_of([*users, *users], 5, 42)
    assert folds[:1_000] == folds[1_000:], "all lists of a user are in one fold"
    assert folds == folds_of([*users, *users], 5, 42)
    assert folds != folds_of([*users, *users], 5, 43)
    assert [folds[:1_000].count(fold) for fold in range(5)] == pytest.approx([200] * 5, abs=50)
    reverse = folds_of(users[::-1], 5, 42)
    assert reverse[::-1] == folds[:1_000], "and don't depend on the order of lists"


def test_lists_of_several_lengths_are_taken_apart_as_they_were_put_together() -> None:
    parts = [(features_of([[1.0, 2.0], [0.0, 1.0]]), 1), (features_of([[1.0, 2.0, 9.0], [3.0, 1.0, 2.0]]), 0)]
    lists = ChoiceLists.of([*parts, parts[0]])
    assert (lists.lengths.tolist(), lists.targets.tolist()) == ([2, 3, 2], [1, 2, 6])
    chosen = lists.only(np.array([False, True, True]))
    assert (chosen.lengths.tolist(), chosen.targets.tolist()) == ([3, 2], [0, 4])
    assert chosen.features.tolist() == [*parts[1][0].tolist(), *parts[0][0].tolist()]
    assert lists.without(0).features.tolist() == lists.features[:, 1:].tolist()


def test_the_penalty_is_the_one_with_the_least_loss_on_users_left_out() -> None:
    noisy = planted((0.2, *[0.0] * 5), 60)
    folds = folds_of([str(number) for number in range(60)], 5, 42)
    fitted = fitted_by_folds({"scores": noisy}, folds)
    assert list(fitted.held_out_loss["scores"]) == list(PENALTIES)
    assert fitted.held_out_loss["scores"][fitted.penalty] == min(fitted.held_out_loss["scores"].values())
    assert fitted.penalty > min(PENALTIES), "sixty lists of noise call for shrinking"
    assert fitted == fitted_by_folds({"scores": noisy}, folds)
    assert fitted.weights == pytest.approx(fit(noisy, fitted.penalty))
    plenty = planted((1.0, 0.6), 1_000)
    assert fitted_by_folds({"scores": plenty}, folds_of([str(n) for n in range(1_000)], 5, 42)).penalty < 0.01


def test_the_loss_of_a_fold_is_of_weights_that_never_saw_it() -> None:
    lists, folds = planted((1.0, 0.5), 30), [0, 1, 2] * 10
    expected = 0.0
    for fold in range(3):
        inside, outside = lists.only(np.array(folds) == fold), lists.only(np.array(folds) != fold)
        expected += len(inside) * penalised_loss(fit(outside, 0.1), inside, 0.0)[0]
    assert fitted_by_folds({"scores": lists}, folds).held_out_loss["scores"][0.1] == pytest.approx(expected / 30)


def test_too_few_users_to_judge_a_penalty_are_refused() -> None:
    lists = planted((1.0, 0.5), 3)
    with pytest.raises(DataError, match="users of one fold"):
        fitted_by_folds({"scores": lists}, [2, 2, 2])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1_000), st.floats(0.01, 100), st.floats(-50, 50))
def test_weights_don_t_depend_on_the_scale_of_a_part(seed: int, scale: float, origin: float) -> None:
    rng = np.random.default_rng(seed)
    plain, rescaled = [], []
    for _ in range(20):
        one, two, target = rng.normal(size=5), rng.normal(size=5), int(rng.integers(5))
        plain.append((features_of([one, two]), target))
        rescaled.append((features_of([scale * one + origin, two]), target))
    assert fit(ChoiceLists.of(rescaled), 0.01) == pytest.approx(fit(ChoiceLists.of(plain), 0.01), abs=1e-5)
