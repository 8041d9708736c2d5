"""Closeness: cosines by hand, words that nobody has, and a sentence-transformers model where the library is there."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mllmrec.errors import SettingsError
from mllmrec.models.embedding import SentenceEmbedder, TfidfEmbedder, make_embedders
from mllmrec.reasoning.assessment.modality import ItemSpace
from mllmrec.storage.workspace import Workspace

TEXTS = {"a": "lantern", "b": "Lanterns, lantern!", "c": "river", "d": "", "e": "the 1999"}


def test_closeness_is_a_cosine_by_hand() -> None:
    """Among five texts a word of two has idf 1 + log(6/3), one of a single text or of none 1 + log(6/2), 1 + log 6."""
    space = ItemSpace(TEXTS, TfidfEmbedder())
    two, one, none = 1 + math.log(6 / 3), 1 + math.log(6 / 2), 1 + math.log(6)
    found = space.closeness(["A LANTERN", "lantern, moon", "", "the 2001"])
    # "lantern, moon" has three terms: two words and their pair.
    expected = two / math.sqrt(two**2 + 2 * none**2)
    # b has "lanterns", "lantern" and their pair.
    b_lantern = two / math.sqrt(two**2 + 2 * one**2)
    assert found[0] == pytest.approx([1, b_lantern, 0, 0, 0])
    assert found[1] == pytest.approx([expected, expected * b_lantern, 0, 0, 0])
    assert not found[2:].any()


def test_words_of_its_own_make_a_text_farther() -> None:
    space = ItemSpace(TEXTS, TfidfEmbedder())
    near, far = space.closeness(["lantern", "lantern among many other unheard-of things"])[:, 0]
    assert near == pytest.approx(1)
    assert 0 < far < 0.3


def test_a_text_has_the_same_closeness_alone_and_among_others() -> None:
    space = ItemSpace(TEXTS, TfidfEmbedder())
    together = space.closeness(["lantern river", "river", "moon"])
    assert (space.closeness(["river"])[0] == together[1]).all()


def test_a_model_that_is_not_there_is_wrong_use() -> None:
    with pytest.raises(SettingsError, match="--embedder tfidf"):
        make_embedders("/no/such/folder")


def test_a_sentence_model_gives_rows_of_length_one(toy: Workspace) -> None:
    pytest.importorskip("sentence_transformers", reason="sentence-transformers (extra `embed`) is not installed")
    embedder = SentenceEmbedder(str(toy.root / "tiny"), "cpu")
    space = ItemSpace({"a": "one lantern", "b": "two rivers"}, embedder)
    assert np.linalg.norm(space.vectors, axis=1) == pytest.approx([1, 1])
    found = space.closeness(["two rivers", "one lantern"])
    assert found[0, 1] == pytest.approx(1)
    assert found[1, 0] == pytest.approx(1)
    assert found[0, 0] == pytest.approx(found[1, 1])
    assert space.norms([[0, 0]]) == pytest.approx([2])
