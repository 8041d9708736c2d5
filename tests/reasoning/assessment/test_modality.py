"""Modality consistency: a trace ranks its own history first, one of another low, an empty one in the middle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from gallery import DATASET, GENERIC, captions, make_gallery, own_words, trace_of, traces
from workspaces import write_dataset

from mllmrec.data.sequences import Interactions
from mllmrec.models.embedding import TfidfEmbedder
from mllmrec.reasoning.assessment.modality import ItemSpace, ModalityJudge


@pytest.fixture(scope="module")
def interactions(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    return Interactions.load(make_gallery(tmp_path_factory.mktemp("gallery")), DATASET)


@pytest.fixture(scope="module")
def judge(interactions: Interactions) -> ModalityJudge:
    return ModalityJudge(interactions, captions(), TfidfEmbedder(), 42)


def test_traces_of_known_kind_come_out_in_order(judge: ModalityJudge) -> None:
    own = traces()
    # Everybody is given the trace of somebody who keeps to another theme.
    swapped = [replace(each, reasoning=own[(at + 24) % len(own)].reasoning) for at, each in enumerate(own)]
    scores = {
        "own": [each.score for each in judge.judge(own)],
        "generic": [each.score for each in judge.judge([replace(each, reasoning=GENERIC) for each in own])],
        "empty": [each.score for each in judge.judge([replace(each, reasoning="") for each in own])],
        "another's": [each.score for each in judge.judge(swapped)],
    }
    assert min(scores["own"]) > 0.9
    assert set(scores["generic"]) == set(scores["empty"]) == {0.5}, "no word of it is in any caption"
    assert fmean(scores["another's"]) < 0.5, "those of the theme it speaks of come before its own"
    assert all(one > other for one, other in zip(scores["own"], scores["another's"], strict=True))


def test_the_score_is_one_less_the_share_of_closer_histories_by_hand(tmp_path: Path) -> None:
    """Three others: one as close as the own history, one closer, one farther."""
    shop = write_dataset(
        tmp_path,
        train="1\ta b t\n2\tb a t\n3\ta a t\n4\tc c t\n",
        valid="1\ta b t t\n",
        titles="item,title\na,lantern\nb,river\nc,meadow\nt,tower\n",
    )
    judge = ModalityJudge(Interactions.load(shop, "shop"), {}, TfidfEmbedder(), 42)
    found = judge.judge([trace_of("1", "ab", "t", "a lantern, a lantern")])[0]
    assert found.score == pytest.approx(1 - (1 + 1 / 2) / 3, abs=1e-4)
    own, others = 1 / np.sqrt(2), np.array([1 / np.sqrt(2), 1.0, 0.0])
    assert found.margin == pytest.approx((own - others.mean()) / others.std(), abs=1e-3)


def test_what_an_item_without_caption_says_is_its_title(interactions: Interactions) -> None:
    user = traces()[0]
    named = replace(user, reasoning=" and ".join(interactions.catalogue.title(item) for item in user.history))
    with_captions = ModalityJudge(interactions, captions(), TfidfEmbedder(), 42).judge([named])[0]
    without = ModalityJudge(interactions, {}, TfidfEmbedder(), 42).judge([named])[0]
    assert with_captions.score == 0.5, "a title says nothing of an image that has a caption"
    assert without.score > 0.95


def test_a_score_depends_on_its_trace_alone(judge: ModalityJudge) -> None:
    some = traces()[:20]
    together = judge.judge(some)
    assert [judge.judge([each])[0] for each in some] == together
    assert judge.judge(some[::-1]) == together[::-1]


def test_histories_of_the_same_user_are_no_others(tmp_path: Path) -> None:
    shop = write_dataset(tmp_path, train="1\ta b t\n1\tb b t\n", valid="1\ta b t t\n")
    judge = ModalityJudge(Interactions.load(shop, "shop"), {}, TfidfEmbedder(), 42)
    assert judge.judge([trace_of("1", "ab", "t", "Thing a")])[0].score == 0.5, "there is nobody to compare with"


def test_short_lines_and_unknown_items_are_borne(tmp_path: Path) -> None:
    shop = write_dataset(
        tmp_path, train="1\ta b c t\n2\tz t\n3\tt\n", valid="1\ta b c t t\n", titles="item,title\na,Amber\nb,Birch\n"
    )
    judge = ModalityJudge(Interactions.load(shop, "shop"), {}, TfidfEmbedder(), 42)
    assert judge.judge([trace_of("1", "abc", "t", own_words("1234"[:4]) + " Amber and Birch")])[0].score == 1.0


def test_group_lengths_are_those_of_the_summed_vectors() -> None:
    space = ItemSpace({"a": "lantern", "b": "river lantern", "c": "1999"}, TfidfEmbedder())
    vectors = space.vectors.toarray()
    expected = [np.linalg.norm(vectors[0] + vectors[1] + vectors[1]), np.linalg.norm(vectors[2]), 0.0]
    assert space.norms([[0, 1, 1], [2], []]) == pytest.approx(expected)
