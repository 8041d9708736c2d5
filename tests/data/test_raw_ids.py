"""Ids as they come: safe ones stay, others are mapped, and the way back is kept."""

from __future__ import annotations

import csv
import hashlib
import unicodedata
from pathlib import Path

import pytest
from raw_files import lay, pairs, prepare, settings

from mllmrec import Workspace
from mllmrec.data.item_files import image_names
from mllmrec.data.prepare import run
from mllmrec.data.raw_ids import RawIds, safe_ids
from mllmrec.data.sequences import Interactions
from mllmrec.errors import ArtifactError, DataError
from mllmrec.storage.manifests import manifest_path
from mllmrec.storage.workspace import read_json

RAW = ["cat/i3", "Crème brûlée", "кофе", "a+b==", "u1@example.org", ".hidden", "../up", "a b", "shop:item:1"]


def safe(raw: str) -> str:
    """The safe spelling of one id alone."""
    return safe_ids([raw])[raw]


def test_safe_ids_stay_and_others_get_a_readable_spelling_with_a_hash() -> None:
    assert safe_ids(["i3", "_x", "-1", "a.b"]) == {}
    digest = hashlib.sha256(b"cat/i3").hexdigest()[:12]
    assert safe_ids(["i3", "cat/i3"]) == {"cat/i3": f"cat-i3-{digest}"}


@pytest.mark.parametrize("raw", [*RAW, "x" * 5000 + " ", "ß", "\t", "日本語"])
def test_a_safe_spelling_is_a_word_and_a_file_name_whatever_else_there_is(raw: str) -> None:
    Workspace(".").checkpoint(safe(raw), "tag")
    assert len(safe(raw)) < 60
    assert safe_ids([raw, "other", "an other"])[raw] == safe(raw)


def test_spellings_are_distinct_and_none_is_a_safe_id_of_the_data() -> None:
    raw = ["a b", "a+b", "a/b", "a  b"]
    assert len(set(safe_ids(raw).values())) == 4
    assert safe("a b") not in safe_ids(["a b", safe("a b")]).values()


ROWS = [(user, item, time) for user in ("u 1", "u2") for time, item in enumerate(("кофе", "b", "cat/i3", "d"))]
TITLES = "item,title\nкофе,Coffee\ncat/i3,Cat\nb,Bee\n,Nobody\nnever met,Unmet\n"


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    raw = lay(tmp_path / "raw", {"t.csv": pairs(*ROWS)})
    lay(tmp_path, {"names.csv": TITLES})
    prepare(tmp_path, raw, titles=str(tmp_path / "names.csv"))
    return Workspace(tmp_path)


def test_prepare_maps_ids_in_lines_pairs_and_titles_and_keeps_the_map(shop: Workspace) -> None:
    loaded = Interactions.load(shop, "shop")
    line = (safe("кофе"), "b", safe("cat/i3"), "d")
    assert {line.user_id: line.items for line in loaded.test} == {safe("u 1"): line, "u2": line}
    assert [loaded.catalogue.title(item) for item in line] == ["Coffee", "Bee", "Cat", "Item d"]
    assert f"{safe('u 1')},{safe('кофе')},0" in shop.dataset("shop").pairs.read_text().splitlines()
    with shop.dataset("shop").raw_ids.open(newline="", encoding="utf-8") as file:
        assert sorted(csv.reader(file)) == sorted(
            [
                ["kind", "raw", "id"],
                ["user", "u 1", safe("u 1")],
                ["item", "кофе", safe("кофе")],
                ["item", "cat/i3", safe("cat/i3")],
            ]
        )
    known = RawIds.read(shop.dataset("shop").raw_ids)
    assert (known.user(safe("u 1")), known.user("u2"), known.item(safe("кофе"))) == ("u 1", "u2", "кофе")


def test_the_card_tells_how_many_were_renamed(shop: Workspace) -> None:
    assert read_json(shop.dataset("shop").card)["import"]["renamed"] == {"users": 1, "items": 2}


def test_safe_ids_need_no_map(tmp_path: Path) -> None:
    summary = prepare(tmp_path, lay(tmp_path / "raw", {"t.csv": pairs(*[("u", item, 1) for item in "abcd"])}))
    assert not Workspace(tmp_path).dataset("shop").raw_ids.exists()
    assert not any("can't be words" in warning for warning in summary.warnings)


def test_the_map_is_part_of_what_prepare_made(shop: Workspace) -> None:
    raw = shop.root / "raw"
    knobs = {"titles": str(shop.root / "names.csv")}
    assert "nothing to do" in prepare(shop.root, raw, **knobs).headline
    shop.dataset("shop").raw_ids.unlink()
    assert "Prepared" in prepare(shop.root, raw, **knobs).headline
    assert shop.dataset("shop").raw_ids.exists()
    lay(raw, {"t.csv": pairs(*[("u", item, 1) for item in "abcd"])})
    prepare(shop.root, raw, overwrite=True)
    assert not shop.dataset("shop").raw_ids.exists()


def test_a_foreign_map_is_not_replaced(tmp_path: Path) -> None:
    lay(tmp_path / "data" / "shop", {"shop_ids.csv": "mine\n"})
    with pytest.raises(ArtifactError, match=r"shop_ids\.csv exist and were not made by"):
        prepare(tmp_path, lay(tmp_path / "raw", {"t.csv": pairs(*ROWS)}))


def test_rows_without_a_user_or_an_item_are_counted_and_left_out(tmp_path: Path) -> None:
    rows = [("u", item, time) for time, item in enumerate("abcdef")]
    rows[2] = ("", "c", 2)
    rows[3] = ("u", "", 3)
    summary = prepare(tmp_path, lay(tmp_path / "raw", {"t.csv": pairs(*rows)}))
    assert summary.facts["import"]["left_out"] == {"no user": 1, "no item": 1}
    assert (tmp_path / "data" / "shop" / "test.tsv").read_text() == "u\ta b e f\n"


def test_images_named_by_raw_ids_are_matched(shop: Workspace) -> None:
    decomposed = unicodedata.normalize("NFD", "кофе")
    lay(shop.dataset("shop").images, {f"{decomposed}.jpg": b"1", "cat%2Fi3.PNG": b"2", "b.jpg": b"3"})
    names = image_names(shop.dataset("shop").images)
    assert (names[safe("кофе")], names[safe("cat/i3")], names["b"]) == (f"{decomposed}.jpg", "cat%2Fi3.PNG", "b.jpg")
    facts = run(settings(shop.root / "raw", titles=str(shop.root / "names.csv")), shop).facts
    assert facts["without_image"]["count"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [("raw,id\n", r"shop_ids\.csv:1: expected the columns kind, raw, id"), ("kind,raw,id\nitem,a\n", r"ids\.csv:2: ")],
)
def test_a_damaged_map_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    lay(tmp_path, {"shop_ids.csv": content})
    with pytest.raises(DataError, match=message):
        RawIds.read(tmp_path / "shop_ids.csv")


def test_the_manifest_vouches_for_the_map(shop: Workspace) -> None:
    assert "shop_ids.csv" in read_json(manifest_path(shop.dataset("shop").card))["outputs"]


def test_upper_case_suffixes_are_seen_and_lower_case_ones_come_first(tmp_path: Path) -> None:
    lay(tmp_path / "images", {"a.JPG": b"", "b.JPEG": b"", "c.Png": b"", "d.JPG": b"", "d.jpg": b"", "e.txt": b""})
    assert image_names(tmp_path / "images") == {"a": "a.JPG", "b": "b.JPEG", "c": "c.Png", "d": "d.jpg"}


def test_image_files_of_no_item_are_told(shop: Workspace) -> None:
    lay(shop.dataset("shop").images, {"b.JPG": b"1", "stranger.jpg": b"2"})
    summary = run(settings(shop.root / "raw", titles=str(shop.root / "names.csv")), shop)
    assert any("1 files in images/ are named by no item of shop" in warning for warning in summary.warnings)
