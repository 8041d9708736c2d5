"""The captions file: read when it is there or asked for, refused when it is something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from mllmrec import ArtifactError, DataError, Workspace
from mllmrec.data.item_files import CaptionMode, read_captions
from mllmrec.storage.workspace import write_json

ROWS = {"1": {"title": "Lamp", "caption": "A brass lamp."}, "B-2": {"title": "NA", "caption": "天空"}}


def laid(tmp_path: Path, rows: object) -> Workspace:
    workspace = Workspace(tmp_path)
    write_json(workspace.dataset("shop").captions, rows)
    return workspace


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_captions_by_item(tmp_path: Path, mode: CaptionMode) -> None:
    assert read_captions(laid(tmp_path, ROWS), "shop", mode) == {"1": "A brass lamp.", "B-2": "天空"}


def test_the_spelling_beside_the_dataset_folder_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "data" / "shop_captions.json", ROWS)
    assert set(read_captions(Workspace(tmp_path), "shop", "auto")) == {"1", "B-2"}


def test_captions_can_be_left_aside(tmp_path: Path) -> None:
    assert read_captions(laid(tmp_path, ROWS), "shop", "off") == {}
    assert read_captions(Workspace(tmp_path), "elsewhere", "auto") == {}


def test_captions_that_were_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"needs .*shop_captions\.json.*`mllmrec caption --dataset shop`"):
        read_captions(Workspace(tmp_path), "shop", "on")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROWS], r"expected an object \{item: \{title, caption\}\}, found list"),
        ({"1": "A brass lamp."}, "item 1 has no caption text"),
        ({"1": {"title": "Lamp"}}, "item 1 has no caption text"),
        ({"1": {"title": "Lamp", "caption": None}}, "item 1 has no caption text"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, rows: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_captions(laid(tmp_path, rows), "shop", "auto")
