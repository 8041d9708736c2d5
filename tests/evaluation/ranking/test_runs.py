"""A RUN is written and read by one pair of functions; its figures are worked out by hand."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import time
from pathlib import Path

import pytest
from handmade import SCORES, TARGETS, WriteRun, example_of

from mllmrec.errors import ArtifactError, DataError, SettingsError
from mllmrec.evaluation.comparison.tables import results_table
from mllmrec.evaluation.ranking import rankings
from mllmrec.evaluation.ranking.rankings import ranking_of, ranking_of_answers, read_rankings, write_rankings
from mllmrec.evaluation.ranking.runs import candidate_file, read_run, run_folder, write_run
from mllmrec.settings.base import validated
from mllmrec.settings.evaluation import RunSettings
from mllmrec.storage.manifests import manifest_path
from mllmrec.storage.workspace import Workspace, read_json, read_jsonl, write_json, write_jsonl

LOG3 = math.log2(3)
NDCG3 = (1 + (1 + 1 / LOG3) / 2 + 0 + (1 + 1 / LOG3 + 0.5) / 4) / 4


def changed(settings: RunSettings, **values: object) -> RunSettings:
    return validated(RunSettings, settings.model_dump() | values, "test")


def test_metrics_are_those_worked_out_by_hand(make_run: WriteRun) -> None:
    facts = read_json(make_run().folder / "metrics.json")
    values = {name: interval["value"] for name, interval in facts["metrics"].items()}
    assert values == {
        "HR@1": pytest.approx((1 + 0.5 + 0 + 0.25) / 4),
        "HR@3": pytest.approx((1 + 1 + 0 + 0.75) / 4),
        "NDCG@3": pytest.approx(NDCG3),
        "NDCG@5": pytest.approx(NDCG3 + (1 / math.log2(5) + 1 / math.log2(5) / 4) / 4),
        "NDCG@10": values["NDCG@5"],
        "MRR": pytest.approx((1 + 0.75 + 0.25 + (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4) / 4),
    }
    assert all(bounds["low"] <= bounds["value"] <= bounds["high"] for bounds in facts["metrics"].values())
    assert facts["vacuous"] == ["HR@5", "HR@10"]
    assert facts["chance"]["HR@1"] == 0.25
    assert facts["chance"]["HR@3"] == 0.75
    assert "HR@5" not in facts["chance"]


def test_metrics_json_says_what_was_measured(make_run: WriteRun, shop: Workspace) -> None:
    facts = make_run().facts
    told = {name: facts[name] for name in ("dataset", "name", "method", "protocol", "candidates")}
    assert told == {
        "dataset": "shop",
        "name": "hand",
        "method": "score",
        "protocol": "uni3",
        "candidates": "test_uni3_w3_s42",
    }
    assert (facts["num_users"], facts["num_candidates"], facts["top_k"]) == (4, 4, [3, 5, 10])
    assert (facts["seconds"], facts["users_per_second"], facts["invalid_share"]) == (2.0, 2.0, 0.0)
    assert len(facts["candidates_sha256"]) == 64


def test_rankings_hold_the_promised_fields_in_order(make_run: WriteRun) -> None:
    run = make_run()
    first = (run.folder / "rankings.jsonl").read_text(encoding="utf-8").splitlines()[1]
    assert json.loads(first) == {
        "example_id": "example2",
        "user_id": "2",
        "target_id": "b",
        "candidates": ["a", "b", "c", "d"],
        "scores": [1.0, 1.0, 0.0, 0.0],
        "higher": 0,
        "ties": 1,
        "rank": 1.5,
    }
    # The length of a list is told only where the list isn't there in full.
    assert [*json.loads(first), "num_candidates"] == [field.name for field in dataclasses.fields(rankings.Ranking)]
    assert list(run.rankings()) == [ranking_of(example_of(u, TARGETS[u]), scores) for u, scores in SCORES.items()]


def test_the_references_pair_of_files_is_there_for_each_k(make_run: WriteRun) -> None:
    folder = make_run().folder
    text = (folder / "hand_shop_top3.csv").read_bytes()
    assert text.startswith(b"\xef\xbb\xbfindex,target_id,pred_topk,hit,rank\n")
    rows = list(csv.DictReader(text.decode("utf-8-sig").splitlines()))
    assert [(row["index"], row["target_id"], row["hit"], row["rank"]) for row in rows] == [
        ("1", "a", "1", "1"),
        ("2", "b", "1", "2"),
        ("3", "d", "0", ""),
        ("4", "c", "1", "3"),
    ]
    assert rows[0]["pred_topk"] == "['a', 'b', 'c']"
    assert read_json(folder / "hand_shop_top3.json") == {
        "dataset": "shop",
        "top_k": 3,
        "HR@K": 0.6875,
        "NDCG@K": pytest.approx(NDCG3),
        "total_test": 4,
        "distributed": False,
        "world_size": 1,
    }
    assert read_json(folder / "hand_shop_top5.json")["HR@K"] == "vacuous"
    assert sorted(path.name for path in folder.glob("*_top10.*")) == ["hand_shop_top10.csv", "hand_shop_top10.json"]


def test_writing_again_leaves_no_files_of_another_k(make_run: WriteRun, shop_settings: RunSettings) -> None:
    make_run()
    folder = make_run(settings=changed(shop_settings, top_k="1,2")).folder
    assert sorted(path.name for path in folder.glob("*.csv")) == ["hand_shop_top1.csv", "hand_shop_top2.csv"]
    assert read_json(folder / "hand_shop_top1.json")["NDCG@K"] == 0.4375


def test_a_run_is_unfinished_until_the_manifest_is_there(make_run: WriteRun) -> None:
    run = make_run()
    assert read_run(run.folder).facts == run.facts
    (run.folder / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="no finished RUN"):
        read_run(run.folder)
    with pytest.raises(ArtifactError, match="does not exist"):
        read_run(run.folder / "nowhere")


def test_a_run_cut_short_is_incomplete(make_run: WriteRun) -> None:
    run = make_run()
    path = run.folder / "rankings.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    with pytest.raises(ArtifactError, match=r"holds 3 rankings and metrics.json counts 4"):
        list(read_run(run.folder).rankings())


def test_metrics_that_are_no_object_are_named(make_run: WriteRun) -> None:
    folder = make_run().folder
    write_json(folder / "metrics.json", [])
    with pytest.raises(DataError, match=r"metrics\.json holds no object"):
        read_run(folder)


def test_no_rankings_make_no_run(make_run: WriteRun, shop: Workspace) -> None:
    with pytest.raises(DataError, match="no rankings"):
        make_run(scores={})
    assert not (shop.dataset("shop").results / "hand" / "test_uni3_w3_s42" / "manifest.json").exists()


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_scores_that_are_no_numbers_are_refused(make_run: WriteRun, bad: float) -> None:
    with pytest.raises(DataError, match=r"score of candidate"):
        make_run(scores={"1": (bad, 2.0, 1.0, 0.0)})


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("3.0", "NaN", r"rankings.jsonl:1: the score of candidate a of user 1 is nan"),
        ('"user_id":"1",', "", r"rankings.jsonl:1: not a ranking"),
        ("3.0", '"3"', r"rankings.jsonl:1: not a ranking"),
        ("[3.0,", "[", r"rankings.jsonl:1: user 1 has 4 candidates and 3 scores"),
        ('{"example_id"', '"example_id"', r"rankings.jsonl:1: not valid JSON"),
    ],
)
def test_a_damaged_line_is_named(make_run: WriteRun, before: str, after: str, message: str) -> None:
    path = make_run().folder / "rankings.jsonl"
    path.write_text(path.read_text().replace(before, after, 1))
    with pytest.raises(DataError, match=message):
        list(read_rankings(path))


def test_an_example_ranked_twice_is_refused(tmp_path: Path) -> None:
    ranking = ranking_of(example_of("1", "a"), SCORES["1"])
    with pytest.raises(DataError, match="ranked twice"):
        write_rankings(tmp_path / "rankings.jsonl", [ranking, ranking])
    assert not list(tmp_path.iterdir())


def test_a_score_too_few_is_refused() -> None:
    with pytest.raises(DataError, match="4 candidates and 3 scores"):
        ranking_of(example_of("1", "a"), [1.0, 2.0, 3.0])


def test_a_target_the_retriever_missed_is_ranked_nowhere() -> None:
    ranking = ranking_of(example_of("1", "z"), SCORES["1"])
    assert (ranking.higher, ranking.ties, ranking.rank) == (4, 0, None)


@pytest.mark.parametrize(
    ("answers", "higher", "rank", "scores"),
    [
        (["b", "d"], 0, 1.0, (0.0, 2.0, 0.0, 1.0)),
        (["d", "a", "b"], 2, 3.0, (2.0, 1.0, 0.0, 3.0)),
        (["a"], 4, None, (1.0, 0.0, 0.0, 0.0)),
        ([], 4, None, (0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_answers_become_a_ranking(answers: list[str], higher: int, rank: float, scores: tuple[float, ...]) -> None:
    ranking = ranking_of_answers(example_of("1", "b"), answers)
    assert (ranking.higher, ranking.ties, ranking.rank, ranking.scores) == (higher, 0, rank, scores)


@pytest.mark.parametrize("answers", [["z"], ["a", "a"]])
def test_foreign_and_repeated_answers_are_refused(answers: list[str]) -> None:
    with pytest.raises(DataError, match="distinct candidates"):
        ranking_of_answers(example_of("1", "b"), answers)


def test_a_generated_run_lists_only_what_was_answered(shop: Workspace, shop_settings: RunSettings) -> None:
    candidates = candidate_file(shop_settings, shop)
    run = write_run(
        run_folder(shop_settings, shop, "words", candidates, "generate"),
        [ranking_of_answers(example_of("1", "a"), ["c", "a"]), ranking_of_answers(example_of("2", "b"), [])],
        shop_settings,
        name="words",
        candidates=candidates,
        inputs={"candidates": "0" * 64},
        started=time.monotonic(),
        seconds=1.0,
        method="generate",
        invalid_share=0.5,
        world_size=2,
        details={"tokens": 12},
    )
    rows = list(csv.reader((run.folder / "words_shop_top3.csv").read_text(encoding="utf-8-sig").splitlines()))
    assert rows[1:] == [["1", "a", "['c', 'a']", "1", "2"], ["2", "b", "[]", "0", ""]]
    assert run.facts["metrics"]["HR@3"]["value"] == 0.5
    assert (run.facts["invalid_share"], run.facts["tokens"], run.label) == (0.5, 12, "words generate")
    assert read_json(run.folder / "words_shop_top3.json")["distributed"] is True
    assert read_json(run.folder / "manifest.json")["counts"] == {"users": 2, "unranked": 1}


def test_the_folder_is_named_after_candidates_method_and_limit(shop: Workspace, shop_settings: RunSettings) -> None:
    limited = changed(shop_settings, limit=2)
    folder = run_folder(limited, shop, "tag", candidate_file(limited, shop), "generate")
    assert folder == shop.root / "result/shop/tag/test_uni3_w3_s42_generate_limit2"


def test_candidates_are_found_by_settings_by_path_and_under_the_root(
    shop: Workspace, shop_settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = candidate_file(shop_settings, shop)
    assert path == shop.root / "data/shop/processed/test_uni3_w3_s42.jsonl"
    assert candidate_file(changed(shop_settings, candidates=str(path), num_neg=9), shop) == path
    monkeypatch.chdir("/")
    under_root = changed(shop_settings, candidates="data/shop/processed/test_uni3_w3_s42.jsonl")
    assert candidate_file(under_root, shop) == path


def test_lists_without_a_manifest_are_ranked_as_foreign_and_told_once(
    shop: Workspace, shop_settings: RunSettings, make_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    path = candidate_file(shop_settings, shop)
    assert make_run().facts["protocol"] == "uni3"
    assert capsys.readouterr().err == ""
    manifest_path(path).unlink()
    run = make_run("nameless")
    assert run.facts["protocol"] == "foreign-test_uni3_w3_s42"
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "test_uni3_w3_s42.jsonl has no manifest" in told
    assert "its figures are named foreign-test_uni3_w3_s42" in told


def test_lists_that_contradict_their_manifest_are_not_ranked(shop: Workspace, shop_settings: RunSettings) -> None:
    path = candidate_file(shop_settings, shop)
    rows = [row | {"candidates": row["candidates"][::-1]} for row in read_jsonl(path)]
    write_jsonl(path, rows)
    with pytest.raises(ArtifactError, match=r"test_uni3_w3_s42\.jsonl contradicts its manifest: the bytes are others"):
        candidate_file(shop_settings, shop)


def test_missing_candidates_name_the_command_that_makes_them(shop: Workspace, shop_settings: RunSettings) -> None:
    missing = changed(shop_settings, root=".", num_neg=99, negatives="popularity", min_inter=5)
    with pytest.raises(ArtifactError) as error:
        candidate_file(missing, shop)
    command = "mllmrec candidates --dataset shop --split test --num-neg 99 --negatives popularity --min-inter 5`"
    assert command in str(error.value)
    with pytest.raises(ArtifactError, match=r"nowhere\.jsonl does not exist"):
        candidate_file(changed(shop_settings, candidates="nowhere.jsonl"), shop)


@pytest.mark.parametrize(
    ("knobs", "name", "command"),
    [
        ({"negatives": "hard", "num_neg": 19}, "hard19", "retrieve --dataset shop --split test --num 19`"),
        (
            {"negatives": "hard", "num_neg": 99, "retriever": "markov", "split": "valid"},
            "hard99-markov",
            "retrieve --dataset shop --split valid --num 99 --retriever markov`",
        ),
        (
            {"negatives": "rerank", "num_neg": 100},
            "rr100",
            "retrieve --dataset shop --split test --num 100 --rerank`",
        ),
        (
            {"negatives": "all", "retriever": "markov"},
            "full",
            "candidates --dataset shop --split test --negatives all`",
        ),
    ],
)
def test_every_protocol_names_its_file_and_its_command(
    shop: Workspace, shop_settings: RunSettings, knobs: dict[str, object], name: str, command: str
) -> None:
    with pytest.raises(ArtifactError) as error:
        candidate_file(changed(shop_settings, root=".", min_inter=10, **knobs), shop)
    split = knobs.get("split", "test")
    assert f"processed/{split}_{name}_w10_s42.jsonl does not exist. Make it with `mllmrec {command}" in str(error.value)


def test_a_retriever_that_there_is_not_is_refused_with_the_nearest_one(shop_settings: RunSettings) -> None:
    with pytest.raises(SettingsError, match="there is no retriever 'itemkn'; did you mean itemknn"):
        changed(shop_settings, retriever="itemkn")


def test_only_top_k_and_seed_decide_a_run_beside_its_inputs(shop_settings: RunSettings) -> None:
    assert shop_settings.result_settings() == {"dataset": "shop", "seed": 42, "top_k": [3, 5, 10]}


@pytest.mark.parametrize("top_k", ["0", "3,-1", "", []])
def test_cut_offs_below_one_are_refused(shop_settings: RunSettings, top_k: object) -> None:
    with pytest.raises(SettingsError, match="at least 1"):
        changed(shop_settings, top_k=top_k)


def test_the_table_shows_intervals_protocol_chance_and_what_is_vacuous(make_run: WriteRun) -> None:
    flat = dict.fromkeys(SCORES, (0.0, 0.0, 0.0, 0.0))
    table = results_table([make_run(), make_run("flat", flat)])
    assert table.columns == ("run", "HR@1/uni3", "HR@3/uni3", "NDCG@3/uni3", "NDCG@5/uni3", "NDCG@10/uni3", "MRR/uni3")
    assert [row[0] for row in table.rows] == ["hand", "flat", "chance"]
    assert table.rows[0][1].startswith("0.438\n0.")
    assert table.rows[1][1] == "0.250\n0.250-0.250"
    assert table.rows[2][1:3] == ("0.250", "0.750")
    assert "HR@5/uni3, HR@10/uni3 are vacuous: no list has more than 4 candidates." in table.note


def test_a_table_never_mixes_candidate_files_or_users(make_run: WriteRun, shop_settings: RunSettings) -> None:
    run = make_run()
    fewer = make_run("fewer", {"1": SCORES["1"]})
    with pytest.raises(DataError, match=r"ranked 4 users and .*fewer.* 1"):
        results_table([run, fewer])
    other = dataclasses.replace(run, facts={**run.facts, "candidates_sha256": "f" * 64, "candidates": "test_uni99"})
    with pytest.raises(DataError, match=r"different candidate files: test_uni3_w3_s42 .* and test_uni99 \(sha256 ffff"):
        results_table([run, other])
    with pytest.raises(DataError, match="no RUNs"):
        results_table([])
