"""Item kNN against co-occurrence planted by hand, and against the library's own recommendations."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from handmade import history_of

from mllmrec.data.sequences import Line

pytest.importorskip("implicit", reason="the extra `baselines` isn't installed")

from implicit.utils import ParameterWarning

from mllmrec.evaluation.baselines.neighbours import KINDS, UNSEEN, ItemKnn, users_by_items

TWO_SHELVES = [
    Line(user_id=str(user), items=items, line_index=user)
    for user, items in enumerate(
        [("a", "b"), ("a", "b", "c"), ("b", "a"), ("x", "y"), ("x", "y", "z"), ("y", "x", "z")]
    )
]


def test_cosines_are_those_of_pencil_and_paper() -> None:
    # a is chosen by users 0, 1, 2; b by the same three; c by user 1 alone: cos(a, b) = 1, cos(a, c) = 1 / sqrt(3).
    scores = ItemKnn("cosine").fit(TWO_SHELVES).score_items([history_of("a")], ["b", "c"])
    assert scores == pytest.approx(np.array([[1.0, 3**-0.5]]))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_chosen_together_comes_before_what_is_not(kind: str) -> None:
    model = ItemKnn(kind).fit(TWO_SHELVES)
    together, apart = model.score_items([history_of("x")], ["y", "b"])[0]
    assert together > 0 > apart


def test_strangers_are_in_the_order_of_popularity_and_the_unseen_are_last_and_tied() -> None:
    scores = ItemKnn().fit(TWO_SHELVES).score_items([history_of("x")], ["a", "b", "c", "new", "newer"])[0]
    assert scores[0] == scores[1] > scores[2] > scores[3] == scores[4] == UNSEEN


def test_a_history_of_nothing_known_is_popularity() -> None:
    model = ItemKnn().fit(TWO_SHELVES)
    for history in (history_of(), history_of("new")):
        scores = dict(zip("abcxyz", model.score_items([history], list("abcxyz"))[0], strict=True))
        assert scores["a"] == scores["b"] == scores["x"] == scores["y"] > scores["z"] > scores["c"] > UNSEEN


def test_decay_counts_what_is_further_back_for_less() -> None:
    model = ItemKnn(decay=0.5).fit(TWO_SHELVES)
    late, early = model.score_items([history_of("x", "a"), history_of("a", "x")], ["b"])[:, 0]
    assert (late, early) == pytest.approx((1.0, 0.5))


@pytest.mark.parametrize("kind", KINDS)
def test_without_decay_the_order_is_the_librarys(kind: str) -> None:
    rng = np.random.default_rng(7)
    items = [f"i{index}" for index in range(30)]
    lines = [
        Line(user_id=str(user), items=tuple(rng.choice(items, 8, replace=False)), line_index=user) for user in range(40)
    ]
    model = ItemKnn(kind, K=10).fit(lines)
    library = KINDS[kind](K=10, num_threads=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ParameterWarning)
        library.fit(users_by_items(lines, model.items), show_progress=False)
    for line in lines[:5]:
        row = users_by_items([line], model.items)
        ids, scores = library.recommend(0, row, N=10, filter_already_liked_items=False)
        ours = model.score_items([history_of(*line.items)], list(model.items))[0]
        assert ours[ids] == pytest.approx(scores)
        assert sorted(ours)[::-1][:10] == pytest.approx(list(scores))


def test_what_is_kept_scores_the_same(tmp_path: Path) -> None:
    model = ItemKnn("bm25", K=2, decay=0.9).fit(TWO_SHELVES)
    model.save(tmp_path)
    again = ItemKnn("bm25", K=2, decay=0.9).restore(tmp_path, [])
    asked, items = [history_of("a"), history_of("x", "y")], [*"abcxyz", "new"]
    assert (again.score_items(asked, items) == model.score_items(asked, items)).all()
