"""Comparison of RUNs: paired figures worked out by hand, and everything that can't be compared refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from handmade import SCORES, WriteRun

from mllmrec.artifacts import Workspace, read_json, read_jsonl, write_json, write_jsonl
from mllmrec.errors import ArtifactError, DataError, SettingsError
from mllmrec.evaluation import compare
from mllmrec.evaluation.runs import Run
from mllmrec.settings.base import validated
from mllmrec.settings.evaluation import CompareSettings

PERFECT = {"1": (1.0, 0.0, 0.0, 0.0), "2": (0.0, 1.0, 0.0, 0.0), "3": (0.0, 0.0, 0.0, 1.0), "4": (0.0, 0.0, 1.0, 0.0)}


def settings_of(*runs: Run | Path) -> CompareSettings:
    paths = [str(run.folder if isinstance(run, Run) else run) for run in runs]
    return validated(CompareSettings, {"runs": paths}, "test")


def edit(run: Run, **facts: object) -> None:
    path = run.folder / "metrics.json"
    write_json(path, read_json(path) | facts)


def test_differences_are_paired_by_user(make_run: WriteRun) -> None:
    hand, perfect = make_run(), make_run("perfect", PERFECT)
    [rows] = compare.compare([hand, perfect])
    by_name = {row.metric: row for row in rows}
    hit = by_name["HR@1"]
    # User by user 0, 0.5, 1 and 0.75 more.
    assert (hit.first, hit.other, hit.difference.value) == (0.4375, 1.0, 0.5625)
    assert (hit.difference.low, hit.difference.high) == pytest.approx((0.125, 0.9375), abs=0.0626)
    assert hit.p_value == pytest.approx(2 / 8, abs=0.02)
    assert hit.minimum_detectable == pytest.approx(2.8016 * 0.42696 / 2, rel=1e-3)
    assert set(by_name) == {"HR@1", "HR@3", "NDCG@3", "NDCG@5", "NDCG@10", "MRR"}


def test_users_are_matched_by_example_whatever_their_order(make_run: WriteRun) -> None:
    hand, perfect = make_run(), make_run("perfect", PERFECT)
    expected = compare.compare([hand, perfect])
    path = perfect.folder / "rankings.jsonl"
    write_jsonl(path, reversed(list(read_jsonl(path))))
    assert compare.compare([hand, perfect]) == expected


def test_a_run_against_itself_shows_nothing(make_run: WriteRun) -> None:
    hand = make_run()
    for row in compare.compare([hand, hand])[0]:
        assert (row.difference.value, row.difference.low, row.difference.high, row.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_swapping_the_runs_flips_the_sign(make_run: WriteRun) -> None:
    hand, perfect = make_run(), make_run("perfect", PERFECT)
    [forward], [back] = compare.compare([hand, perfect]), compare.compare([perfect, hand])
    for one, other in zip(forward, back, strict=True):
        assert one.difference.value == -other.difference.value
        assert one.difference.low == pytest.approx(-other.difference.high)


def test_the_stage_compares_each_run_with_the_first(make_run: WriteRun, shop: Workspace) -> None:
    hand, perfect = make_run(), make_run("perfect", PERFECT)
    under_root = Path("result/shop/hand/test_uni3_w3_s42")
    summary = compare.run(settings_of(perfect, under_root, perfect), shop)
    assert summary.headline == "Compared hand, perfect with perfect on the same 4 users."
    first = summary.tables[0]
    assert first.columns == ("metric", "perfect", "hand", "difference [95 %]", "p", "detectable")
    assert first.rows[0][:3] == ("HR@1/uni3", "1.000", "0.438")
    assert first.rows[0][3].startswith("-0.562 [-")
    assert "paired randomisation test" in first.note
    assert json.dumps(summary.facts)
    assert hand.folder == shop.root / under_root


def test_only_metrics_that_all_runs_tell_are_compared(make_run: WriteRun, shop_settings: object) -> None:
    hand = make_run()
    narrow = make_run("narrow", settings=shop_settings.model_copy(update={"top_k": (3,)}))
    assert [row.metric for row in compare.compare([hand, narrow])[0]] == ["HR@1", "HR@3", "NDCG@3", "MRR"]


def test_other_candidate_files_are_refused_by_name(make_run: WriteRun, shop: Workspace) -> None:
    hand, other = make_run(), make_run("other")
    edit(other, candidates_sha256="0123456789", candidates="test_uni99_w3_s42")
    with pytest.raises(
        DataError, match=r"different candidate files: test_uni3_w3_s42 .* test_uni99_w3_s42 \(sha256 01"
    ):
        compare.run(settings_of(hand, other), shop)


def test_other_numbers_of_users_are_refused(make_run: WriteRun, shop: Workspace) -> None:
    hand, fewer = make_run(), make_run("fewer", {user: SCORES[user] for user in ("1", "2")})
    with pytest.raises(DataError, match=r"ranked 4 users and .* 2\. Expected the same users"):
        compare.run(settings_of(hand, fewer), shop)


def test_other_users_are_refused_by_name(make_run: WriteRun, shop: Workspace) -> None:
    left = make_run("left", {user: SCORES[user] for user in ("1", "2", "3")})
    right = make_run("right", {user: SCORES[user] for user in ("1", "2", "4")})
    with pytest.raises(DataError, match=r"1 examples are only in the first and 1 only in the second, such as example3"):
        compare.run(settings_of(left, right), shop)


def test_other_candidates_of_a_user_are_refused(make_run: WriteRun, shop: Workspace) -> None:
    hand, other = make_run(), make_run("other")
    path = other.folder / "rankings.jsonl"
    path.write_text(path.read_text().replace('["a","b","c","d"]', '["a","b","c","e"]', 1))
    with pytest.raises(DataError, match=r"gave user 1 \(example example1\) another target or other candidates"):
        compare.run(settings_of(hand, other), shop)


def test_incomplete_unfinished_and_missing_runs_are_refused(make_run: WriteRun, shop: Workspace) -> None:
    hand, other = make_run(), make_run("other")
    path = other.folder / "rankings.jsonl"
    whole = path.read_text()
    for text, count in ((whole[: whole.index("\n") + 1], 1), ("", 0)):
        path.write_text(text)
        with pytest.raises(ArtifactError, match=f"holds {count} rankings and metrics.json counts 4"):
            compare.run(settings_of(hand, other), shop)
    path.unlink()
    with pytest.raises(ArtifactError, match="rankings file is missing"):
        compare.run(settings_of(hand, other), shop)
    (other.folder / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="no finished RUN"):
        compare.run(settings_of(hand, other), shop)
    with pytest.raises(ArtifactError, match="The RUN is missing"):
        compare.run(settings_of(hand, shop.root / "nowhere"), shop)


def test_a_nan_score_is_refused_with_its_line(make_run: WriteRun, shop: Workspace) -> None:
    hand, other = make_run(), make_run("other")
    path = other.folder / "rankings.jsonl"
    path.write_text(path.read_text().replace("3.0", "NaN", 1))
    with pytest.raises(DataError, match=r"rankings.jsonl:1: the score of candidate a of user 1 is nan"):
        compare.run(settings_of(hand, other), shop)


def test_one_run_is_not_enough() -> None:
    with pytest.raises(SettingsError, match="at least 2"):
        settings_of(Path("alone"))
