"""`prepare` as a user meets it: files written, runs repeated, folders protected, published counts reproduced."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Any

import pytest
from raw_files import lay, pairs, prepare

from mllmrec import Workspace
from mllmrec.data.sequences import Interactions
from mllmrec.errors import ArtifactError, DataError
from mllmrec.storage.manifests import manifest_path
from mllmrec.storage.workspace import partial, read_json

ROWS = [
    *[("10", item, time) for time, item in enumerate(("tea", "cup", "jam", "tea", "pot"))],
    *[("9", item, 50 - time) for time, item in enumerate(("pot", "jam", "cup", "tea"))],
    ("9", "pot", 50),
    ("8", "bread", 1),
]
TITLED = 'item,title,shelf\npot,"Pot, large",3\ncup,None,1\ntea,"Tea\nwith\tleaves",2\nunmet,Unmet,9\ncup,Second,8\n'


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    lay(tmp_path / "names", {"names.csv": TITLED})
    return lay(tmp_path / "raw", {"shop_pairs.csv": pairs(*ROWS)})


def knobs(raw: Path, **more: Any) -> dict[str, Any]:
    return {"titles": str(raw.parent / "names" / "names.csv"), **more}


def text(root: Path, name: str) -> str:
    return (root / "data" / "shop" / name).read_text(encoding="utf-8")


def test_the_files_of_a_small_shop(tmp_path: Path, raw: Path) -> None:
    prepare(tmp_path, raw, **knobs(raw))
    assert text(tmp_path, "train.tsv") == "9\ttea cup\n10\ttea cup jam\n"
    assert text(tmp_path, "valid.tsv") == "9\ttea cup jam\n10\ttea cup jam tea\n"
    assert text(tmp_path, "test.tsv") == "9\ttea cup jam pot\n10\ttea cup jam tea pot\n"
    assert text(tmp_path, "shop_pairs.csv").splitlines()[:3] == ["user,item,timestamp", "9,tea,47", "9,cup,48"]
    with (tmp_path / "data" / "shop" / "shop_titles.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["item", "title", "shelf"],
            ["pot", "Pot, large", "3"],
            ["cup", "None", "1"],
            ["tea", "Tea with leaves", "2"],
            ["jam", "", ""],
        ]


def test_the_card_counts_what_happened(tmp_path: Path, raw: Path) -> None:
    summary = prepare(tmp_path, raw, **knobs(raw))
    facts = read_json(tmp_path / "data" / "shop" / "card.json")
    assert summary.facts == facts
    assert (facts["users"], facts["items"], facts["interactions"]) == (2, 4, 9)
    assert facts["repeats"]["count"] == 1
    assert facts["without_title"] == {"count": 1, "share": 0.25}
    assert facts["without_image"]["count"] == 4
    imported = facts["import"]
    assert (imported["rows_read"], imported["duplicates_removed"], imported["duplicate_title_rows"]) == (11, 1, 1)
    assert imported["dropped_users"] == {"fewer than 4 interactions (min-inter + 2)": 1}
    assert imported["ties"]["users_last"]["count"] == 0
    assert summary.headline.endswith("2 users, 4 items, 9 interactions.")
    assert any("1 items have no title" in warning for warning in summary.warnings)


def test_the_readers_take_what_prepare_wrote(tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(tmp_path, raw, **knobs(raw))
    loaded = Interactions.load(Workspace(tmp_path), "shop")
    assert [line.items[-1] for line in loaded.test] == ["pot", "pot"]
    assert loaded.catalogue.title("cup") == "None"
    assert loaded.catalogue.title("jam") == "Item jam"
    assert loaded.catalogue["tea"].attributes == (("shelf", "2"),)
    assert "1 of 4 items in the sequences have no title" in capsys.readouterr().err


def test_the_same_rows_in_another_file_order_give_the_same_lines_when_no_time_is_tied(
    tmp_path: Path, raw: Path
) -> None:
    prepare(tmp_path / "one", raw)
    prepare(tmp_path / "two", lay(tmp_path / "other", {"shop_pairs.csv": pairs(*reversed(ROWS))}))
    for name in ("train.tsv", "valid.tsv", "test.tsv", "shop_pairs.csv", "shop_titles.csv"):
        assert text(tmp_path / "one", name) == text(tmp_path / "two", name)


def test_many_users_that_fall_away_are_told_with_what_lower_windows_would_keep(tmp_path: Path) -> None:
    """Nine users of 4 interactions, one of 5 and two of 12: windows of 10 keep two users, of 3 three, of 2 all."""
    lengths = {f"u{number}": 4 for number in range(9)} | {"v": 5, "w": 12, "x": 12}
    rows = [(user, f"i{place}", place) for user, length in lengths.items() for place in range(length)]
    summary = prepare(tmp_path, lay(tmp_path / "raw", {"t.csv": pairs(*rows)}), min_inter=10)
    [warning] = [warning for warning in summary.warnings if "fall away" in warning]
    assert warning.startswith("10 of 12 users fall away")
    assert warning.endswith("A lower --min-inter than 10 would keep: 2 with 5, 3 with 3, 12 with 2.")


def test_tied_last_times_are_warned_about(tmp_path: Path) -> None:
    raw = lay(tmp_path / "raw", {"t.csv": pairs(*[("u", item, 7) for item in "dcba"])})
    summary = prepare(tmp_path, raw)
    assert text(tmp_path, "test.tsv") == "u\td c b a\n"
    assert any("1 users (100.0%) end on a tied timestamp" in warning for warning in summary.warnings)
    assert ("users whose last timestamp is tied", "1 (100.0%)") in summary.tables[0].rows


def test_a_source_without_times_says_that_ties_are_unknown(tmp_path: Path) -> None:
    raw = lay(tmp_path / "raw", {"t.csv": "user,item\nu,a\nu,b\nu,a\nu,a\n"})
    summary = prepare(tmp_path, raw, time_column="none")
    assert text(tmp_path, "test.tsv") == "u\ta b a a\n"
    assert summary.facts["import"]["ties"] is None
    assert dict(summary.tables[0].rows)["tied timestamps"].startswith("unknown")


def test_k_core_and_drop_repeats_reach_the_files_and_the_card(tmp_path: Path, raw: Path) -> None:
    summary = prepare(tmp_path, raw, drop_repeats=True, k_core=2)
    assert text(tmp_path, "test.tsv") == "9\ttea cup jam pot\n10\ttea cup jam pot\n"
    assert dict(summary.tables[0].rows)["2-core removed"] == "1 users, 1 items, 1 interactions"


def test_global_time_reaches_the_files(tmp_path: Path) -> None:
    rows = [("u", f"i{time}", time) for time in range(20)]
    raw = lay(tmp_path / "raw", {"t.csv": pairs(*rows)})
    summary = prepare(tmp_path, raw, split="global-time", cut_share=0.9, valid_cut_share=0.5)
    ends = {split: text(tmp_path, f"{split}.tsv").split()[-1] for split in ("train", "valid", "test")}
    assert ends == {"train": "i9", "valid": "i10", "test": "i18"}
    assert summary.facts["import"]["interactions_after_last_target"] == 1
    assert "i19" not in text(tmp_path, "shop_titles.csv")


def test_a_second_run_does_nothing_and_counts_images_anew(tmp_path: Path, raw: Path) -> None:
    first = prepare(tmp_path, raw, **knobs(raw))
    before = (tmp_path / "data" / "shop" / "train.tsv").stat().st_mtime_ns
    lay(tmp_path / "data" / "shop" / "images", {"pot.jpg": b""})
    moved = raw.rename(raw.with_name("moved"))
    second = prepare(tmp_path, moved, **knobs(raw))
    assert "nothing to do" in second.headline
    assert (tmp_path / "data" / "shop" / "train.tsv").stat().st_mtime_ns == before
    assert (first.facts["without_image"]["count"], second.facts["without_image"]["count"]) == (4, 3)


def test_other_settings_are_refused_by_name_and_overwrite_replaces(tmp_path: Path, raw: Path) -> None:
    prepare(tmp_path, raw)
    with pytest.raises(ArtifactError, match=r"setting drop_repeats was False and is now True.*--overwrite"):
        prepare(tmp_path, raw, drop_repeats=True)
    prepare(tmp_path, raw, drop_repeats=True, overwrite=True)
    assert text(tmp_path, "test.tsv") == "9\ttea cup jam pot\n10\ttea cup jam pot\n"


def test_changed_raw_files_are_refused(tmp_path: Path, raw: Path) -> None:
    prepare(tmp_path, raw)
    lay(raw, {"shop_pairs.csv": pairs(*ROWS, ("10", "lid", 99))})
    with pytest.raises(ArtifactError, match="the input pairs has changed since"):
        prepare(tmp_path, raw)


def test_files_of_other_origin_are_not_replaced(tmp_path: Path, raw: Path) -> None:
    lay(tmp_path / "data" / "shop", {"train.tsv": "1\ta b c\n"})
    with pytest.raises(ArtifactError, match=r"train\.tsv exist and were not made by .*--overwrite"):
        prepare(tmp_path, raw)
    assert text(tmp_path, "train.tsv") == "1\ta b c\n"
    prepare(tmp_path, raw, overwrite=True)
    assert text(tmp_path, "train.tsv").startswith("9\t")


def test_an_interrupted_run_leaves_no_manifest_and_is_taken_up(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_args: object, **_knobs: object) -> None:
        raise KeyboardInterrupt

    artifact = Workspace(tmp_path).dataset("shop").card
    with monkeypatch.context() as patch:
        patch.setattr("mllmrec.data.prepare.card", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path, raw)
    assert (tmp_path / "data" / "shop" / "train.tsv").exists()
    assert not manifest_path(artifact).exists()
    prepare(tmp_path, raw)
    assert manifest_path(artifact).exists()
    assert not partial(artifact).exists()


def test_a_lost_file_is_made_again(tmp_path: Path, raw: Path) -> None:
    prepare(tmp_path, raw)
    (tmp_path / "data" / "shop" / "train.tsv").unlink()
    assert "Prepared" in prepare(tmp_path, raw).headline
    assert text(tmp_path, "train.tsv").startswith("9\t")


def test_the_manifest_holds_inputs_and_counts(tmp_path: Path, raw: Path) -> None:
    prepare(tmp_path, raw, **knobs(raw))
    manifest = json.loads(manifest_path(Workspace(tmp_path).dataset("shop").card).read_text())
    assert manifest["verb"] == "prepare"
    assert set(manifest["inputs"]) == {"pairs", "titles"}
    assert manifest["counts"]["duplicates_removed"] == 1
    assert "raw" not in manifest["result_settings"]


def test_nothing_is_written_when_the_input_is_bad(tmp_path: Path) -> None:
    raw = lay(tmp_path / "raw", {"t.csv": pairs(*ROWS) + "9,x\n"})
    with pytest.raises(DataError, match=r"t\.csv:13: 2 fields where 3 were expected"):
        prepare(tmp_path, raw)
    assert not (tmp_path / "data").exists()


def test_images_among_the_raw_files_are_pointed_at_and_not_copied(tmp_path: Path, raw: Path) -> None:
    lay(raw / "Shop_covers", {"pot.jpg": b"0"})
    summary = prepare(tmp_path, raw)
    assert any("Shop_covers looks like a folder of images" in warning for warning in summary.warnings)
    assert not (tmp_path / "data" / "shop" / "images").exists()


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("source", "folder", "users", "items", "interactions", "mean"),
    [
        ("movielens-100k", "ml-100k", 943, 1682, 100_000, 106.04),
        ("movielens-latest", "ml-latest-small", 610, 9724, 100_836, 165.3),
        ("movielens-1m", "ml-1m", 6040, 3416, 999_611, 165.5),
    ],
)
def test_published_counts(
    real_data: Path, tmp_path: Path, source: str, folder: str, users: int, items: int, interactions: int, mean: float
) -> None:
    started = time.monotonic()
    summary = prepare(tmp_path, real_data / "raw" / folder, source=source, min_inter=10)
    assert time.monotonic() - started < 30
    facts = summary.facts
    assert (facts["users"], facts["items"], facts["catalogue"]) == (users, items, items)
    assert facts["interactions"] == facts["import"]["rows_read"] == interactions
    assert facts["lengths"]["mean"] == mean
    assert facts["without_title"]["count"] == 0
    assert facts["overlap"]["train-test"] == {"users": users, "windows": 0, "known_targets": 0}


@pytest.mark.real_data
def test_ties_of_ml_100k_equal_a_count_of_the_file(real_data: Path, tmp_path: Path) -> None:
    times: dict[str, list[int]] = {}
    for line in (real_data / "raw" / "ml-100k" / "u.data").read_text().splitlines():
        user, _, _, stamp = line.split("\t")
        times.setdefault(user, []).append(int(stamp))
    tied = sum(stamps.count(max(stamps)) > 1 for stamps in times.values())
    assert tied == 415
    summary = prepare(tmp_path, real_data / "raw" / "ml-100k", source="movielens-100k", min_inter=10)
    assert summary.facts["import"]["ties"]["users_last"]["count"] == tied


@pytest.mark.real_data
def test_ml_1m_ends_as_the_reference_folder_does(real_data: Path, tmp_path: Path) -> None:
    """Its test lines are the last 20 items of each user and its train lines the 20 before the last one."""
    prepare(tmp_path, real_data / "raw" / "ml-1m", source="movielens-1m", min_inter=10)
    ours = dict(line.split("\t") for line in text(tmp_path, "test.tsv").splitlines())
    for split, cut in (("test", 0), ("train", 1)):
        lines = (real_data / "movielens" / f"{split}.tsv").read_text().splitlines()
        assert len(lines) == 6040
        for line in lines:
            user, items = line.split("\t")
            whole = ours[user].split()
            assert whole[: len(whole) - cut][-20:] == items.split()
