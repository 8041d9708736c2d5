"""Candidate files as they are ranked: one paragraph for each way in which a list or its file is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workspaces import titles_csv, tsv, write_dataset

from mllmrec import ArtifactError, DataError, Workspace
from mllmrec.data.candidates.files import contradiction, ranked_lists, ranked_protocol, refuse_contradiction
from mllmrec.data.candidates.stage import run as draw
from mllmrec.data.sequences import Interactions
from mllmrec.records import example_id
from mllmrec.settings.data import CandidatesSettings
from mllmrec.storage.manifests import manifest_path
from mllmrec.storage.workspace import read_json, read_jsonl, sha256, write_json, write_jsonl, write_text

LINES = {f"u{user}": [f"i{(7 * user + 3 * step) % 40}" for step in range(6)] for user in range(12)}
Row = dict[str, Any]


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    """Twelve users of six items; `untitled` stands in a sequence and has no title."""
    lines = {**LINES, "u11": ["untitled", *LINES["u11"]]}
    train = tsv({user: items[:-1] for user, items in lines.items()})
    return write_dataset(
        tmp_path, train=train, test=tsv(lines), titles=titles_csv(f"i{number}" for number in range(40))
    )


def drawn(shop: Workspace, **knobs: Any) -> Path:
    settings = CandidatesSettings(dataset="shop", root=str(shop.root), min_inter=4, num_neg=3, **knobs)
    path = draw(settings, shop).artifact
    assert path is not None
    return path


def foreign(shop: Workspace, change: Callable[[list[Row]], Any], name: str = "mine.jsonl") -> Path:
    """Lists of somebody else: those of a draw, changed, under another name and without a manifest."""
    rows = list(read_jsonl(drawn(shop, overwrite=True)))
    change(rows)
    path = shop.dataset("shop").processed / name
    write_jsonl(path, rows)
    return path


def refusal(shop: Workspace, path: Path) -> str:
    with pytest.raises(DataError) as error:
        ranked_lists(path, Interactions.load(shop, "shop"), 4)
    assert "\n" not in str(error.value)
    return str(error.value)


def named_anew(row: Row) -> None:
    row["example_id"] = example_id(row["user_id"], row["target_id"], row["history"])


def test_lists_of_ours_are_ranked_as_they_are(shop: Workspace) -> None:
    lists = ranked_lists(drawn(shop), Interactions.load(shop, "shop"), 4)
    assert [example.user_id for example in lists] == list(LINES)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda row: row.update(split="later"), "is of no split that there is: later"),
        (lambda row: row.update(split="valid", user_id="u4"), "is of user u4, who has no line in the valid split"),
        (lambda row: row.update(user_id="nobody"), "is of user nobody, who has no line in the test split"),
        (lambda row: row.update(user_id="u3"), "a history and a target that stand on no line of user u3"),
        (lambda row: row["history"].reverse(), "a history and a target that stand on no line of user u2"),
        (lambda row: row.update(example_id="0" * 16), "has the example id 0000000000000000, and its user"),
        (lambda row: row["candidates"].append("i99"), "holds the candidate i99, which neither the titles nor"),
        (lambda row: row["candidates"].append(row["candidates"][0]), "twice"),
        (lambda row: row.update(candidates=[row["target_id"]] * 2), f"holds candidate {LINES['u2'][-1]} twice"),
        (lambda row: row.update(candidates=[]), "is empty, though others of its file aren't"),
    ],
    ids=["split", "not held out", "user", "other user", "history", "id", "item", "twice", "target twice", "empty"],
)
def test_a_list_that_fits_no_split_is_told_by_its_line(
    shop: Workspace, change: Callable[[Row], Any], expected: str
) -> None:
    path = foreign(shop, lambda rows: change(rows[2]))
    told = refusal(shop, path)
    assert told.startswith(f"{path}:3: the list ")
    assert expected in told


def test_a_list_that_comes_twice_and_how_many_more_are_amiss(shop: Workspace) -> None:
    told = refusal(shop, foreign(shop, lambda rows: rows.extend(rows[4:7])))
    assert ":13: the list is the second one of example" in told
    assert "; 2 more lists are amiss" in told


@pytest.mark.parametrize("name", ["test_uni3_w4_s42.jsonl", "test_hard3_w4_s42.jsonl", "test_pop3_w4_s42.jsonl"])
def test_only_a_retriever_or_a_stranger_may_miss_a_target(shop: Workspace, name: str) -> None:
    def miss(rows: list[Row]) -> None:
        rows[5]["candidates"].remove(rows[5]["target_id"])

    assert f":6: the list lacks its target {LINES['u5'][-1]}" in refusal(shop, foreign(shop, miss, name))
    interactions = Interactions.load(shop, "shop")
    for other in ("mine.jsonl", "test_rr4_w4_s42.jsonl"):
        assert len(ranked_lists(foreign(shop, miss, other), interactions, 4)) == 12


def test_a_list_of_its_target_alone(shop: Workspace) -> None:
    def shrink(rows: list[Row]) -> None:
        rows[0]["candidates"] = [rows[0]["target_id"]]

    for name in ("mine.jsonl", "test_uni3_w4_s42.jsonl", "test_hard3_w4_s42.jsonl"):
        told = refusal(shop, foreign(shop, shrink, name))
        assert f":1: the list holds the one candidate {LINES['u0'][-1]}, so that there is nothing to rank" in told
    assert len(ranked_lists(foreign(shop, shrink, "test_rr1_w4_s42.jsonl"), Interactions.load(shop, "shop"), 4)) == 12


def test_an_item_without_a_title_and_a_shorter_window_are_known(shop: Workspace) -> None:
    def change(rows: list[Row]) -> None:
        rows[0]["candidates"].append("untitled")
        rows[1]["history"] = rows[1]["history"][1:]
        named_anew(rows[1])

    assert len(ranked_lists(foreign(shop, change), Interactions.load(shop, "shop"), 4)) == 12


def test_a_target_that_its_history_repeats_is_legal(tmp_path: Path) -> None:
    workspace = write_dataset(
        tmp_path, train=tsv({"u": ["a", "b", "c"]}), test=tsv({"u": ["b", "c", "b"], "v": ["c", "d", "e"]})
    )
    settings = CandidatesSettings(dataset="shop", root=str(tmp_path), min_inter=3, num_neg=1)
    path = draw(settings, workspace).artifact
    assert path is not None
    assert len(ranked_lists(path, Interactions.load(workspace, "shop"), 3)) == 2


# ---- who vouches for a file


def test_a_name_counts_where_a_manifest_vouches_for_it(shop: Workspace) -> None:
    path = drawn(shop)
    assert ranked_protocol(path) == "uni3"
    manifest_path(path).unlink()
    assert ranked_protocol(path) == "foreign-test_uni3_w4_s42"
    assert ranked_protocol(shop.dataset("shop").processed / "test_generate_seed42_neg9.json") == "legacy-uni9"


def as_first_written(path: Path) -> None:
    """The manifest as version 0.1 wrote it: the hash among the details, and no outputs."""
    manifest = read_json(manifest_path(path))
    manifest["details"]["sha256"] = sha256(path)
    del manifest["outputs"]
    write_json(manifest_path(path), manifest)


@pytest.mark.parametrize("first", [False, True])
def test_bytes_that_contradict_their_manifest_are_refused(shop: Workspace, first: bool) -> None:
    """Of the same length and at the same time, so that neither gives it away."""
    path = drawn(shop)
    if first:
        as_first_written(path)
    assert contradiction(path) == ""
    refuse_contradiction(path)
    before = path.stat()
    text = path.read_text(encoding="utf-8")
    at = text.index('"candidates":["i') + len('"candidates":["i')
    write_text(path, text[:at] + ("2" if text[at] != "2" else "3") + text[at + 1 :])
    shutil.copystat(path, path)
    assert path.stat().st_size == before.st_size
    with pytest.raises(
        ArtifactError, match=r"contradicts its manifest: the bytes are others.*foreign-test_uni3_w4_s42"
    ):
        refuse_contradiction(path)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    ("knobs", "other"),
    [
        ({"negatives": "popularity"}, "test_uni3_w4_s42.jsonl"),
        ({}, "test_uni4_w4_s42.jsonl"),
        ({}, "test_uni3_w5_s42.jsonl"),
        ({}, "test_uni3_w4_s43.jsonl"),
        ({}, "valid_uni3_w4_s42.jsonl"),
        ({"legacy": True}, "test_uni3_w4_s42.jsonl"),
    ],
)
def test_a_file_renamed_with_its_manifest_is_refused(
    shop: Workspace, knobs: dict[str, Any], other: str, first: bool
) -> None:
    path = drawn(shop, **knobs)
    if first:
        as_first_written(path)
    renamed = path.with_name(other)
    manifest_path(path).rename(manifest_path(renamed))
    path.rename(renamed)
    told = contradiction(renamed)
    assert told.startswith("it tells of " if first else f"it vouches for no file named {other}")


def test_a_manifest_of_another_shape_vouches_for_nothing(shop: Workspace) -> None:
    path = drawn(shop)
    manifest = read_json(manifest_path(path))
    for outputs, details in (([], {}), ({path.name: "x"}, None), (None, [])):
        write_json(manifest_path(path), {**manifest, "outputs": outputs, "details": details})
        assert contradiction(path) == f"it vouches for no file named {path.name}"
    write_text(manifest_path(path), json.dumps([1]))
    with pytest.raises(ArtifactError, match="is not a manifest of this program"):
        contradiction(path)
