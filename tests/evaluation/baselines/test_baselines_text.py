"""Text kNN on titles written by hand."""

from __future__ import annotations

import numpy as np
import pytest
from handmade import history_of

from mllmrec.data.sequences import Line
from mllmrec.evaluation.baselines.neighbours import TextKnn
from mllmrec.models.embedding import TfidfEmbedder

TEXTS = {
    "a": "Red kettle. A kettle of copper",
    "b": "Blue kettle. A kettle of steel",
    "c": "Garden spade. A spade of steel",
    "d": "Garden fork",
    "e": "",
    "new": "Red kettle. A kettle of copper",
}
LINES = [Line(user_id="1", items=tuple("abcde"), line_index=0)]


def model_of(decay: float = 1.0) -> TextKnn:
    return TextKnn(TEXTS, TfidfEmbedder(), decay).fit(LINES)


def test_what_reads_alike_comes_first_and_what_training_never_met_last() -> None:
    scores = dict(zip("abcde", model_of().score_items([history_of("a")], list("abcde"))[0], strict=True))
    assert scores["a"] == pytest.approx(1.0)
    assert 1 > scores["b"] > 0
    assert scores["d"] == scores["e"] == 0
    unseen = model_of().score_items([history_of("a")], ["new", "newer", "e"])[0]
    assert unseen[0] == unseen[1] < unseen[2]


def test_a_history_is_the_mean_of_its_items() -> None:
    model = model_of()
    one, other, both = model.score_items([history_of("a"), history_of("d"), history_of("a", "d")], list("abcde"))
    assert both == pytest.approx((one + other) / 2)


def test_decay_counts_what_is_further_back_for_less() -> None:
    both = model_of(decay=0.5).score_items([history_of("a", "d")], list("abcde"))[0]
    one, other = model_of().score_items([history_of("a"), history_of("d")], list("abcde"))
    assert both == pytest.approx((0.5 * one + other) / 1.5)


def test_an_unknown_history_ties_everything_known() -> None:
    scores = model_of().score_items([history_of(), history_of("new")], list("abcde"))
    assert (scores == np.zeros((2, 5))).all()
