"""SASRec and BERT4Rec on a planted cycle, against the library's own recommendations, and kept and read again."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from handmade import history_of

from mllmrec.data.sequences import Line
from mllmrec.errors import DataError

pytest.importorskip("rectools", reason="the extra `baselines` isn't installed")

import torch

from mllmrec.evaluation.baselines.base import Baseline
from mllmrec.evaluation.baselines.sequential import Bert4Rec, SasRec, SequentialBaseline, dataset_of

RING = [f"i{index}" for index in range(12)]
SMALL = {"n_factors": 32, "session_max_len": 10, "lr": 5e-3, "batch_size": 16, "patience": 3}
LINES = [
    Line(user_id=str(user), items=tuple(RING[(5 * user + step) % 12] for step in range(8)), line_index=user)
    for user in range(60)
]
"""All items are chosen equally often and each is followed by its neighbour on the ring: order is all there is."""
ASKED = [history_of(*(RING[(start + step) % 12] for step in range(4))) for start in range(12)]
NEXT = [RING[(start + 4) % 12] for start in range(12)]


@pytest.fixture(scope="module")
def sasrec() -> SasRec:
    return SasRec({**SMALL, "epochs": 15}, short=4).fit(LINES)


@pytest.fixture(scope="module")
def bert4rec() -> Bert4Rec:
    return Bert4Rec({**SMALL, "epochs": 45, "mask_prob": 0.3}, short=5).fit(LINES)


@pytest.fixture(params=["sasrec", "bert4rec"])
def model(request: pytest.FixtureRequest) -> SequentialBaseline:
    return request.getfixturevalue(request.param)


def test_a_planted_cycle_is_learned_where_popularity_knows_nothing(model: SequentialBaseline) -> None:
    best = [RING[index] for index in model.score_items(ASKED, RING).argmax(axis=1)]
    assert sum(first == right for first, right in zip(best, NEXT, strict=True)) >= 8  # chance: 1 of 12


def test_scores_are_what_the_library_recommends_by(model: SequentialBaseline) -> None:
    lines = [Line(user_id=str(user), items=example.history, line_index=user) for user, example in enumerate(ASKED)]
    told = model._model.recommend(users=np.arange(12), dataset=dataset_of(lines, 9), k=5, filter_viewed=False)
    for user, row in enumerate(model.score_items(ASKED, RING)):
        theirs = told[told.user_id == user]
        assert [RING[index] for index in np.argsort(-row)[:5]] == list(theirs.item_id)
        assert np.sort(row)[::-1][:5] == pytest.approx(np.array(theirs.score), abs=1e-4)


def test_unseen_items_come_last_and_unseen_histories_tell_nothing(model: SequentialBaseline) -> None:
    scores = model.score_items([ASKED[0], history_of("new")], [*RING, "new", "newer"])
    assert scores[0, -1] == scores[0, -2] < scores[0, :-2].min()
    assert set(scores[1]) == {0.0, -1.0}


def test_one_list_is_scored_like_many(sasrec: SasRec) -> None:
    together = sasrec.score_items(ASKED, RING)
    alone = np.array([sasrec.score_items([example], RING)[0] for example in ASKED])
    assert alone == pytest.approx(together, abs=1e-4)


def test_the_same_seed_gives_the_same_numbers_and_leaves_the_generators_alone(sasrec: SasRec) -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    expected = (torch.rand(1), np.random.rand())
    torch.manual_seed(3)
    np.random.seed(3)
    again = SasRec({**SMALL, "epochs": 15}, short=4).fit(LINES)
    assert (torch.rand(1), np.random.rand()) == expected
    assert (again.score_items(ASKED, RING) == sasrec.score_items(ASKED, RING)).all()
    other = SasRec({**SMALL, "epochs": 1}, seed=1).fit(LINES)
    assert (other.score_items(ASKED, RING) != sasrec.score_items(ASKED, RING)).any()


def test_what_is_kept_scores_the_same(model: SequentialBaseline, tmp_path: Path) -> None:
    model.save(tmp_path)
    again = type(model)(model.params).restore(tmp_path, [])
    assert again.items == model.items
    assert (again.score_items(ASKED, RING) == model.score_items(ASKED, RING)).all()
    assert not [path for path in tmp_path.iterdir() if path.suffix not in (".safetensors", ".json")]


def test_learning_stops_when_validation_no_longer_gains_and_the_best_round_is_kept() -> None:
    told, scores = iter([0.1, 0.5, 0.2, 0.3, 0.4, 0.9]), []

    def judge(baseline: Baseline) -> float:
        scores.append(baseline.score_items(ASKED, RING))
        return next(told)

    model = SasRec({**SMALL, "max_epochs": 6})
    assert model.fit_judged(LINES, judge) == 0.5
    assert model.settled() == {"epochs": 2}
    assert len(scores) == 5
    assert (model.score_items(ASKED, RING) == scores[1]).all()
    refitted = SasRec({**SMALL, **model.settled()}).fit(LINES)
    assert (refitted.score_items(ASKED, RING) == scores[1]).all()


def test_every_second_line_is_cut_to_the_short_length() -> None:
    lines = [Line(user_id=str(user), items=tuple("abcdefg"), line_index=user) for user in range(2)]
    table = dataset_of(lines, 6, short=3).get_raw_interactions()
    assert list(table.groupby("user_id").item_id.sum()) == ["abcdefg", "defg", "abcd"]


def test_lines_without_a_successor_are_refused() -> None:
    with pytest.raises(DataError, match="No training line has two items"):
        SasRec(SMALL).fit([Line(user_id="1", items=("a",), line_index=0)])


def test_the_trainer_says_nothing(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        SasRec({**SMALL, "epochs": 1}).fit(LINES)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert not Path("lightning_logs").exists()
