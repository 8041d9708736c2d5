"""The whole catalogue as the list: a place is exact, the best are kept, and a RUN is checked as far as it goes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from workspaces import tsv, write_dataset

from mllmrec.data.candidates.stage import run as freeze_candidates
from mllmrec.errors import DataError, SettingsError
from mllmrec.evaluation.baselines import stage as baselines_stage
from mllmrec.evaluation.comparison import stage as compare
from mllmrec.evaluation.comparison.pairing import paired_positions
from mllmrec.evaluation.metrics import Position
from mllmrec.evaluation.ranking.rankings import position_of, read_rankings
from mllmrec.evaluation.ranking.runs import Run, read_run
from mllmrec.evaluation.reporting.ladder import ladder_section, measure
from mllmrec.evaluation.reporting.runs import read_ladders
from mllmrec.evaluation.retrieval import catalogue
from mllmrec.evaluation.retrieval.catalogue import best_kept
from mllmrec.evaluation.verifying import stage as verification
from mllmrec.records import RankingExample, Summary
from mllmrec.settings.base import validated
from mllmrec.settings.data import CandidatesSettings
from mllmrec.settings.evaluation import BaselinesSettings, CompareSettings, VerifySettings
from mllmrec.storage.workspace import Workspace, read_json, read_jsonl, sha256, write_json, write_jsonl, write_text

ITEMS = [f"i{number}" for number in range(12)]
TRAIN = [(f"t{copy}", ITEMS[: 12 - copy]) for copy in range(12)]
TEST = [("u", ["i0", "i3", "i2"]), ("w", ["i7", "i8", "i5"]), ("x", ["i0", "i1", "i3"]), ("y", ["i4", "i5", "i11"])]


def question(target: str) -> RankingExample:
    return RankingExample(example_id="e", user_id="u", history=("h",), candidates=(), target_id=target, split="test")


@given(
    scores=st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=2, max_size=12),
    data=st.data(),
    kept=st.integers(1, 12),
)
@hypothesis_settings(deadline=None)
def test_a_place_is_that_of_the_whole_list_whatever_is_kept(
    scores: list[float], data: st.DataObject, kept: int
) -> None:
    items = ITEMS[: len(scores)]
    free = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    own = data.draw(st.integers(0, len(scores) - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "KEPT", kept)
        ranking = best_kept(question(items[own]), items, np.array(scores), np.array(free))
    among = [index for index in range(len(scores)) if free[index] or index == own]
    assert ranking.num_candidates == len(among)
    assert ranking.higher == sum(scores[index] > scores[own] for index in among)
    assert ranking.ties == sum(scores[index] == scores[own] for index in among) - 1
    ordered = sorted(among, key=lambda index: (-scores[index], index))
    best = [items[index] for index in ordered[:kept]]
    assert list(ranking.candidates) == best + [items[own]] * (items[own] not in best)
    assert list(ranking.scores) == [scores[items.index(item)] for item in ranking.candidates]
    assert position_of(ranking) == Position(ranking.higher, ranking.ties, len(among), True)


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(DataError, match="A score of user u is NaN"):
        best_kept(question("i0"), ITEMS[:2], np.array([0.0, np.nan]), np.array([True, True]))


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Items are the more popular the smaller their number; three of each ranking are kept."""
    monkeypatch.setattr(catalogue, "KEPT", 3)
    workspace = write_dataset(tmp_path, train=tsv(TRAIN), valid=tsv([("v", ["i0", "i1", "i2"])]), test=tsv(TEST))
    settings = CandidatesSettings(dataset="shop", root=str(tmp_path), min_inter=3, negatives="all")
    summary = freeze_candidates(settings, workspace)
    assert summary.headline == "4 questions about the whole catalogue in test_full_w3_s42.jsonl"
    return workspace


def rank(shop: Workspace, **knobs: object) -> Summary:
    base = {"dataset": "shop", "root": str(shop.root), "negatives": "all", "min_inter": 3, "top_k": "1,3"}
    return baselines_stage.run(validated(BaselinesSettings, base | knobs, "test"), shop)


@pytest.fixture
def popularity(shop: Workspace) -> Run:
    rank(shop, names="popularity")
    return read_run(shop.dataset("shop").run("popularity", "test_full_w3_s42"))


def verify(run: Run) -> Summary:
    return verification.run(VerifySettings(runs=(str(run.folder),)), Workspace("."))


def test_targets_stand_among_all_items_that_are_not_known(popularity: Run) -> None:
    rows = {row["user_id"]: row for row in read_jsonl(popularity.folder / "rankings.jsonl")}
    # u knows i0, i3 and its target i2: of ten items left, i1 alone is more popular than i2.
    assert rows["u"]["candidates"] == ["i1", "i2", "i4"]
    assert (rows["u"]["higher"], rows["u"]["ties"], rows["u"]["num_candidates"]) == (1, 0, 10)
    # y's i11 is the least popular of all; it stands behind the three best.
    assert rows["y"]["candidates"] == ["i0", "i1", "i2", "i11"]
    assert (rows["y"]["higher"], rows["y"]["rank"], rows["y"]["num_candidates"]) == (9, 10.0, 10)
    values = {name: bounds["value"] for name, bounds in popularity.facts["metrics"].items()}
    # Ranks: u 2, w 6, x 2, y 10.
    assert (values["HR@1"], values["HR@3"]) == (0.0, 0.5)
    assert values["MRR"] == pytest.approx((1 / 2 + 1 / 6 + 1 / 2 + 1 / 10) / 4)
    assert popularity.facts["chance"]["HR@3"] == pytest.approx(0.3)
    assert (popularity.facts["protocol"], popularity.facts["num_candidates"]) == ("full", 10)


def test_result_files_list_the_best(popularity: Run) -> None:
    text = (popularity.folder / "popularity_shop_top3.csv").read_text(encoding="utf-8-sig").splitlines()
    assert text[1] == "1,i2,\"['i1', 'i2', 'i4']\",1,2"
    assert text[4] == "4,i11,\"['i0', 'i1', 'i2']\",0,"


def test_an_item_without_a_title_can_be_a_target_and_is_a_candidate_of_others(tmp_path: Path) -> None:
    test = [("u", ["i0", "i3", "ghost"]), ("w", ["i7", "i8", "i5"])]
    titles = "item,title\n" + "".join(f"{item},Thing {item}\n" for item in ITEMS)
    shop = write_dataset(tmp_path, titles=titles, train=tsv(TRAIN), test=tsv(test))
    freeze_candidates(CandidatesSettings(dataset="shop", root=str(tmp_path), min_inter=3, negatives="all"), shop)
    rank(shop, names="popularity")
    run = read_run(shop.dataset("shop").run("popularity", "test_full_w3_s42"))
    first, second = run.rankings()
    assert (first.rank, first.num_candidates, first.candidates[-1]) == (11.0, 11, "ghost")
    assert second.candidates[-1] == "ghost"
    assert verify(run).passed


def test_what_is_beyond_the_best_is_taken_on_trust_and_told(popularity: Run) -> None:
    summary = verify(popularity)
    assert summary.passed, summary.warnings
    [table] = summary.tables
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["the whole catalogue but what is known"] == ("12", "0")
    assert rows["higher, ties and rank"] == ("4", "0")
    assert table.note.startswith("Taken on trust: the places of 2 of 4 targets, beyond what is kept of their lists;")


Lines = list[dict[str, Any]]
TAMPERED: list[tuple[Callable[[Lines], object], str, str]] = [
    (lambda rows: rows[0].update(higher=0, rank=1.0), "higher, ties and rank", r"line 1: .* told as \(0, 0, 1.0\)"),
    (lambda rows: rows[3].update(higher=1, rank=2.0), "higher, ties and rank", r"line 4: .* told as \(1, 0, 2.0\)"),
    (lambda rows: rows[3].update(higher=12, rank=13.0), "higher, ties and rank", "line 4"),
    (lambda rows: rows[3].update(higher=4, rank=9.0), "higher, ties and rank", r"told as \(4, 0, 9.0\)"),
    (lambda rows: rows[1].update(num_candidates=11), "the whole catalogue but what is known", "told as 11 and .* 10"),
    (lambda rows: rows[1].update(num_candidates="ten"), "every example once", "line 2 holds no whole numbers"),
    (
        lambda rows: rows[0].update(candidates=["i1", "i2", "i3"]),
        "the whole catalogue but what is known",
        "line 1: i3 is known of user u, or no item",
    ),
]


@pytest.mark.parametrize(("change", "check", "message"), TAMPERED)
def test_what_contradicts_the_best_or_the_dataset_is_found(
    popularity: Run, change: Callable[[Lines], object], check: str, message: str
) -> None:
    path = popularity.folder / "rankings.jsonl"
    rows = list(read_jsonl(path))
    change(rows)
    write_jsonl(path, rows)
    summary = verify(popularity)
    assert not summary.passed
    assert any(f": {check}: " in each and re.search(message, each) for each in summary.warnings)


def test_lengths_are_on_trust_when_the_dataset_changed(shop: Workspace, popularity: Run) -> None:
    write_text(shop.dataset("shop").split("train"), tsv(TRAIN[:-1]))
    summary = verify(popularity)
    assert summary.passed
    assert "how long each list was, because the dataset's files aren't those" in summary.tables[0].note


def test_two_rankings_of_the_catalogue_can_be_compared(shop: Workspace, popularity: Run) -> None:
    rank(shop, names="markov,random")
    runs = [
        popularity,
        *(read_run(shop.dataset("shop").run(name, "test_full_w3_s42")) for name in ("markov", "random")),
    ]
    positions = paired_positions(runs)
    assert [each.num_candidates for each in positions[1]] == [10, 10, 10, 10]
    summary = compare.run(CompareSettings(runs=tuple(str(run.folder) for run in runs)), Workspace("."))
    assert summary.tables[0].rows[0][0] == "HR@1/full"
    assert all(verify(run).passed for run in runs)
    [ladder], _ = read_ladders(shop, "shop", "MRR")
    assert (
        "The target among all items that the user isn't known to have met." in ladder_section(measure(ladder, 1)).lead
    )


def test_a_cut_beyond_what_is_kept_is_refused(shop: Workspace) -> None:
    with pytest.raises(SettingsError, match=r"top_k = 1,4: .* the 3 best are kept"):
        rank(shop, names="popularity", top_k="1,4")


def test_other_cuts_are_told_without_ranking_again(shop: Workspace, popularity: Run) -> None:
    rank(shop, names="popularity", top_k="2")
    again = read_run(popularity.folder)
    assert again.facts["metrics"]["HR@2"]["value"] == 0.5
    assert verify(again).passed


def test_a_kept_list_that_is_longer_than_its_list_is_refused(popularity: Run) -> None:
    path = popularity.folder / "rankings.jsonl"
    rows = list(read_jsonl(path))
    rows[2]["num_candidates"] = 2
    write_jsonl(path, rows)
    with pytest.raises(DataError, match=r"rankings\.jsonl:3: 3 candidates of user x are kept of a list of 2"):
        list(read_rankings(path))


def test_ordinary_lines_have_no_length(shop: Workspace) -> None:
    freeze_candidates(CandidatesSettings(dataset="shop", root=str(shop.root), min_inter=3, num_neg=3), shop)
    rank(shop, names="popularity", negatives="uniform", num_neg=3)
    path = shop.dataset("shop").run("popularity", "test_uni3_w3_s42") / "rankings.jsonl"
    assert all("num_candidates" not in json.loads(line) for line in path.read_text().splitlines())


def test_the_file_of_questions_is_frozen_like_any_other(shop: Workspace, popularity: Run) -> None:
    path = shop.dataset("shop").candidates("test", "full", 3, 42)
    assert popularity.facts["candidates_sha256"] == sha256(path)
    facts = read_json(popularity.folder / "metrics.json")
    write_json(popularity.folder / "metrics.json", facts | {"candidates_sha256": "0" * 64})
    assert not verify(popularity).passed
