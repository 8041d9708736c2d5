"""Comparison of RUNs: paired figures worked out by hand, and everything that can't be compared refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from handmade import SCORES, WriteRun, vouch_again

from mllmrec.errors import ArtifactError, DataError, SettingsError
from mllmrec.evaluation.comparison import stage as compare
from mllmrec.evaluation.comparison.pairing import Configuration, run_named
from mllmrec.evaluation.ranking.runs import Run, read_run
from mllmrec.settings.base import validated
from mllmrec.settings.evaluation import CompareSettings, RunSettings
from mllmrec.storage.workspace import Workspace, read_json, read_jsonl, write_json, write_jsonl

PERFECT = {"1": (1.0, 0.0, 0.0, 0.0), "2": (0.0, 1.0, 0.0, 0.0), "3": (0.0, 0.0, 0.0, 1.0), "4": (0.0, 0.0, 1.0, 0.0)}


def settings_of(*runs: Run | Path) -> CompareSettings:
    paths = [str(run.folder if isinstance(run, Run) else run) for run in runs]
    return validated(CompareSettings, {"runs": paths}, "test")


def edit(run: Run, **facts: object) -> None:
    path = run.folder / "metrics.json"
    write_json(path, read_json(path) | facts)
    vouch_again(run.folder)


def test_differences_are_paired_by_user(make_run: WriteRun) -> None:
    hand, perfect = make_run(), make_run("perfect", PERFECT)
    [rows] = compare.compare([hand, perfect])
    by_name = {row.metric: row for row in rows}
    hit = by_name["HR@1"]
    # User by user 0, 0.5, 1 and 0.75 more.
    assert (hit.first, hit.other, hit.difference.interval.value) == (0.4375, 1.0, 0.5625)
    assert (hit.difference.interval.low, hit.difference.interval.high) == pytest.approx((0.125, 0.9375), abs=0.0626)
    assert hit.difference.p == pytest.approx(2 / 8, abs=0.02)
    assert hit.difference.detectable == pytest.approx(2.8016 * 0.42696 / 2, rel=1e-3)
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
        interval = row.difference.interval
        assert (interval.value, interval.low, interval.high, row.difference.p) == (0.0, 0.0, 0.0, 1.0)


def test_swapping_the_runs_flips_the_sign(make_run: WriteRun) -> None:
    hand, perfect = make_run(), make_run("perfect", PERFECT)
    [forward], [back] = compare.compare([hand, perfect]), compare.compare([perfect, hand])
    for one, other in zip(forward, back, strict=True):
        assert one.difference.interval.value == -other.difference.interval.value
        assert one.difference.interval.low == pytest.approx(-other.difference.interval.high)


def test_a_run_under_the_root_comes_before_one_of_that_path_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    word = "result/shop/markov/test_uni9_w10_s42"
    here, root = tmp_path / "here", tmp_path / "root"
    for folder in (here, root):
        (folder / word).mkdir(parents=True)
    monkeypatch.chdir(here)
    assert run_named(word, Workspace(root)) == root / word
    assert run_named(word, Workspace(Path())).resolve() == here / word
    assert run_named(str(here / word), Workspace(root)) == here / word
    (root / word).rmdir()
    assert run_named(word, Workspace(root)).resolve() == here / word


def test_the_reference_draw_is_compared_list_by_list_wherever_it_is_stored(make_run: WriteRun) -> None:
    """Caches of two generations and a file of ours have other bytes and the same lists."""
    hand, perfect = make_run(), make_run("perfect", PERFECT)
    expected = compare.compare([hand, perfect])
    edit(hand, protocol="legacy-uni3")
    edit(perfect, protocol="legacy-uni3", candidates="test_generate_seed42_neg3", candidates_sha256="01" * 32)
    runs = [read_run(run.folder) for run in (hand, perfect)]
    assert compare.compare(runs) == expected
    rows = list(read_jsonl(perfect.folder / "rankings.jsonl"))
    rows[0]["candidates"].reverse()
    write_jsonl(perfect.folder / "rankings.jsonl", rows)
    with pytest.raises(DataError, match=r"gave user 1 \(example example1\) another target or other candidates"):
        compare.compare(runs)


@pytest.mark.parametrize("runs", [[], ["result/shop/markov/test_uni9_w10_s42"]])
def test_fewer_than_two_runs_are_refused_in_words(runs: list[str]) -> None:
    with pytest.raises(SettingsError, match="expected two RUN folders or more, such as result/shop/markov/test_uni9"):
        validated(CompareSettings, {"runs": runs}, "test")


def test_the_stage_compares_each_run_with_the_first(make_run: WriteRun, shop: Workspace) -> None:
    hand, perfect = make_run(), make_run("perfect", PERFECT)
    under_root = Path("result/shop/hand/test_uni3_w3_s42")
    summary = compare.run(settings_of(perfect, under_root, perfect), shop)
    assert summary.headline == (
        "Compared hand, perfect with perfect on the same 4 users: 0 of 12 differences hold after Holm's correction."
    )
    first = summary.tables[0]
    assert first.columns == ("metric", "perfect", "hand", "difference [95 %]", "p", "p Holm", "detectable")
    assert first.rows[0][:3] == ("HR@1/uni3", "1.000", "0.438")
    assert first.rows[0][3].startswith("-0.562 [-")
    assert [bool(table.note) for table in summary.tables] == [False, True]
    assert "paired randomisation test over users, two-sided; p Holm: corrected for all 12" in summary.tables[1].note
    assert json.dumps(summary.facts)
    assert hand.folder == shop.root / under_root


def test_only_metrics_that_all_runs_tell_are_compared(make_run: WriteRun, shop_settings: object) -> None:
    hand = make_run()
    narrow = make_run("narrow", settings=shop_settings.model_copy(update={"top_k": (3,)}))
    assert [row.metric for row in compare.compare([hand, narrow])[0]] == ["HR@1", "HR@3", "NDCG@3", "MRR"]


def test_p_values_are_corrected_for_all_that_is_shown(make_run: WriteRun) -> None:
    runs = [make_run(), make_run("perfect", PERFECT), make_run("flat", dict.fromkeys(SCORES, (0.0,) * 4))]
    both = compare.compare(runs)
    raw = [row.difference.p for rows in both for row in rows]
    assert len(raw) == 12
    smallest = min((row for rows in both for row in rows), key=lambda row: row.difference.p)
    assert smallest.difference.p_holm == pytest.approx(min(1.0, 12 * smallest.difference.p))
    [alone] = compare.compare(runs[:2], metrics=["HR@1"])
    assert [(row.metric, row.difference.p_holm) for row in alone] == [("HR@1", alone[0].difference.p)]
    among = next(row.difference for row in both[0] if row.metric == "HR@1")
    assert (among.interval, among.p) == (alone[0].difference.interval, alone[0].difference.p)


def test_metrics_that_a_run_does_not_tell_are_refused(make_run: WriteRun, shop: Workspace) -> None:
    hand = make_run()
    asked = settings_of(hand, hand).model_copy(update={"metrics": ("HR@1", "HR@7")})
    with pytest.raises(SettingsError, match=r"not every RUN tells HR@7\. Expected some of HR@1, HR@3"):
        compare.run(asked, shop)


SEEDS = {
    "warm-s1": SCORES,
    "warm-s2": PERFECT,
    "warm-s3": SCORES | {"3": (0.0, 0.0, 0.0, 1.0)},
    "cold-s1": dict.fromkeys(SCORES, (0.0,) * 4),
    "cold-s2": dict.fromkeys(SCORES, (0.0,) * 4) | {"1": (1.0, 0.0, 0.0, 0.0)},
}


def test_commas_join_the_seeds_of_one_configuration(make_run: WriteRun, shop: Workspace) -> None:
    folders = {name: str(make_run(name, scores).folder) for name, scores in SEEDS.items()}
    warm = ",".join(folder for name, folder in folders.items() if name.startswith("warm"))
    cold = "result/shop/cold-s1/test_uni3_w3_s42, result/shop/cold-s2/test_uni3_w3_s42"
    summary = compare.run(validated(CompareSettings, {"runs": [cold, warm]}, "test"), shop)
    [table] = summary.tables
    assert table.title == "warm (3 seeds) - cold (2 seeds), shop, 4 users"
    # HR@1 of the runs: warm 0.4375, 1 and 0.6875; cold 0.25 and (1 + 3/4) / 4.
    assert table.rows[0][1:3] == (f"{(0.25 + 0.4375) / 2:.3f}", f"{(0.4375 + 1 + 0.6875) / 3:.3f}")
    assert "Student's t over users and seeds" in table.note
    assert json.dumps(summary.facts)


@pytest.mark.parametrize(
    ("names", "label"),
    [
        (["sft"], "sft"),
        (["sft2"], "sft2"),
        (["sft-s1", "sft-s2"], "sft (2 seeds)"),
        (["sft", "sft_seed7", "sft12"], "sft (3 seeds)"),
        (["sft", "sasrec"], "sft + sasrec"),
    ],
)
def test_a_configuration_is_named_after_its_runs(names: list[str], label: str) -> None:
    facts = [{"name": name, "candidates": "test_uni3_w3_s42"} for name in names]
    runs = tuple(Run(folder=Path("test_uni3_w3_s42"), facts=each) for each in facts)
    assert Configuration(runs=runs).label == label


def test_a_seed_that_differs_in_nothing_leaves_only_the_users(make_run: WriteRun, shop: Workspace) -> None:
    runs = [make_run("flat-s1", SEEDS["cold-s1"]), make_run("flat-s2", SEEDS["cold-s1"]), make_run("best", PERFECT)]
    configurations = [Configuration(runs=(runs[0], runs[1])), Configuration(runs=(runs[2],))]
    assert configurations[0].label == "flat (2 seeds)"
    [rows] = compare.compare_configurations(configurations)
    hit = rows[0]
    assert (hit.first, hit.other) == (0.25, 1.0)
    assert (hit.difference.interval.low, hit.difference.interval.high, hit.difference.p) == (0.75, 0.75, 0.0)


def test_single_runs_beside_seeds_are_compared_as_ever(make_run: WriteRun) -> None:
    runs = {name: make_run(name, scores) for name, scores in SEEDS.items()}
    plain = compare.compare([runs["cold-s1"], runs["warm-s1"]])
    warm = Configuration(runs=tuple(runs[name] for name in SEEDS if name.startswith("warm")))
    mixed = compare.compare_configurations([*(Configuration(runs=(runs[n],)) for n in ("cold-s1", "warm-s1")), warm])
    assert [(row.difference.interval, row.difference.p) for row in mixed[0]] == [
        (row.difference.interval, row.difference.p) for row in plain[0]
    ]
    assert len(mixed) == 2


def test_a_run_given_twice_as_a_seed_is_refused(make_run: WriteRun, shop: Workspace) -> None:
    hand, other = make_run().folder, make_run("other").folder
    with pytest.raises(DataError, match="was given twice as a seed of one configuration"):
        compare.run(validated(CompareSettings, {"runs": [f"{hand},{hand}/../{hand.name}", str(other)]}, "test"), shop)


def test_seeds_ranked_by_other_methods_are_refused(make_run: WriteRun, shop: Workspace) -> None:
    hand, other = make_run(), make_run("other")
    edit(other, method="generate")
    with pytest.raises(DataError, match=r"one ranked by score, the other by generate.* space in place of the comma"):
        compare.run(
            validated(CompareSettings, {"runs": [f"{hand.folder},{other.folder}", str(hand.folder)]}, "t"), shop
        )


def test_other_protocols_and_empty_runs_are_refused_by_name(make_run: WriteRun, shop: Workspace) -> None:
    hand, other = make_run(), make_run("other")
    edit(other, protocol="hard3")
    with pytest.raises(DataError, match=r"hand.* names its protocol uni3 and .*other.* hard3\. Expected one protocol"):
        compare.run(settings_of(hand, other), shop)
    for each in (hand, other):
        (each.folder / "rankings.jsonl").write_text("")
        edit(each, protocol="uni3", num_users=0)
    with pytest.raises(DataError, match=r"hand.* is empty: it ranked no users"):
        compare.run(settings_of(hand, other), shop)


def test_an_example_ranked_twice_is_refused(make_run: WriteRun, shop: Workspace) -> None:
    hand = make_run()
    path = hand.folder / "rankings.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], lines[0]]) + "\n")
    vouch_again(hand.folder)
    with pytest.raises(ArtifactError, match="holds example example1 of user 1 twice"):
        compare.run(settings_of(hand, hand), shop)


def test_shards_that_are_left_are_told(make_run: WriteRun, shop: Workspace) -> None:
    hand, other = make_run(), make_run("other")
    (other.folder / "manifest.json").unlink()
    for shard in (1, 2):
        (other.folder / f"rankings.0123456789ab.{shard}-of-3.partial.jsonl").write_text("")
    with pytest.raises(ArtifactError, match=r"incomplete: 2 working logs of processes or shards.* for every shard"):
        compare.run(settings_of(hand, other), shop)


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
    vouch_again(other.folder)
    with pytest.raises(DataError, match=r"gave user 1 \(example example1\) another target or other candidates"):
        compare.run(settings_of(hand, other), shop)


def test_incomplete_unfinished_and_missing_runs_are_refused(make_run: WriteRun, shop: Workspace) -> None:
    hand, other = make_run(), make_run("other")
    path = other.folder / "rankings.jsonl"
    whole = path.read_text()
    for text, count in ((whole[: whole.index("\n") + 1], 1), ("", 0)):
        path.write_text(text)
        vouch_again(other.folder)
        with pytest.raises(ArtifactError, match=f"holds {count} rankings and metrics.json counts 4"):
            compare.run(settings_of(hand, other), shop)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"finished: rankings.jsonl is gone\. Expected the files"):
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
    vouch_again(other.folder)
    with pytest.raises(DataError, match=r"rankings.jsonl:1: the score of candidate a of user 1 is nan"):
        compare.run(settings_of(hand, other), shop)


@pytest.mark.parametrize("name", ["rankings.jsonl", "metrics.json"])
def test_a_run_whose_files_were_altered_is_refused(make_run: WriteRun, shop: Workspace, name: str) -> None:
    """A digit of another value in place of one, so that the size is the same."""
    hand, other = make_run(), make_run("other")
    path = other.folder / name
    path.write_text(path.read_text().replace("0.0", "9.0", 1))
    with pytest.raises(
        ArtifactError, match=rf"other.* is no longer what `mllmrec baselines` finished: {name} was altered"
    ):
        compare.run(settings_of(hand, other), shop)


def test_a_copied_run_of_another_time_is_as_good(make_run: WriteRun, shop: Workspace) -> None:
    hand, other = make_run(), make_run("other", PERFECT)
    expected = compare.run(settings_of(hand, other), shop).tables
    for path in other.folder.iterdir():
        os.utime(path, (1, 1))
    assert compare.run(settings_of(hand, other), shop).tables == expected


def test_a_run_of_an_earlier_version_vouches_for_nothing_and_is_compared(make_run: WriteRun, shop: Workspace) -> None:
    hand, other = make_run(), make_run("other")
    path = other.folder / "rankings.jsonl"
    write_jsonl(path, reversed(list(read_jsonl(path))))
    manifest = read_json(other.folder / "manifest.json")
    write_json(
        other.folder / "manifest.json",
        {key: value for key, value in manifest.items() if key not in ("outputs", "seal")},
    )
    [table] = compare.run(settings_of(hand, other), shop).tables
    assert table.rows[0][3] == "+0.000 [+0.000, +0.000]"


def test_a_run_between_two_cut_offs_is_compared_by_its_rankings(make_run: WriteRun, shop: Workspace) -> None:
    """Killed after metrics.json told other cut-offs and before the manifest did."""
    hand, other = make_run(), make_run("other")
    path = other.folder / "metrics.json"
    wider = make_run(
        "wider", settings=RunSettings(dataset="shop", num_neg=3, min_inter=3, top_k=(2,), root=str(shop.root))
    )
    write_json(path, read_json(wider.folder / "metrics.json") | {"name": "other"})
    [table] = compare.run(settings_of(hand, other), shop).tables
    assert [row[0] for row in table.rows] == ["HR@1/uni3", "MRR/uni3"]
