"""The card of small folders, counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_files import lay

from mllmrec import Workspace
from mllmrec.data.card import card, overlaid, table
from mllmrec.errors import ArtifactError
from mllmrec.storage.workspace import DatasetFiles

TRAIN = "1\ta b c d\n2\tb c d e\n3\ta a b c\n"
TEST = "1\tb c d e\n2\tc d e x\n4\ta b c a\n"
TITLES = "item,title,genres\na,Apple,fruit\nb,Bean,\nc,Apple,\nd,,\ne,NA,\nunmet,Unmet,\n"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    lay(tmp_path / "data" / "tiny", {"train.tsv": TRAIN, "test.tsv": TEST, "tiny_titles.csv": TITLES})
    return Workspace(tmp_path)


def test_a_folder_that_prepare_never_saw(workspace: Workspace) -> None:
    facts = card(DatasetFiles(workspace, "tiny"), window=3)
    assert (facts["users"], facts["items"], facts["catalogue"]) == (4, 6, 6)
    # User 1 has a b c d e, user 2 b c d e x, user 3 a a b c, user 4 a b c a.
    assert facts["interactions"] == 18
    assert facts["lengths"] == {"min": 4, "median": 4.5, "mean": 4.5, "max": 5}
    assert facts["repeats"] == {"count": 2, "share": round(2 / 18, 6)}
    assert list(facts["splits"]) == ["train", "test"]
    assert facts["splits"]["test"] == {
        "lines": 3,
        "users": 3,
        "lengths": {"min": 4, "median": 4, "mean": 4.0, "max": 4},
    }
    # Only x is unseen in train; it is the target of one of three test lines.
    assert facts["unseen_targets"] == {"test": {"items": 1, "lines": {"count": 1, "share": round(1 / 3, 6)}}}
    # Users 1 and 2 are in both; no last three items agree; no test target is in the user's train line.
    assert facts["overlap"] == {"train-test": {"users": 2, "windows": 0, "known_targets": 0}}


def test_items_without_title_count_rows_that_are_empty_and_rows_that_are_missing(workspace: Workspace) -> None:
    # d has an empty title and x no row; e is titled "NA", which is a title. Apple names two items.
    facts = card(DatasetFiles(workspace, "tiny"))
    assert facts["without_title"] == {"count": 2, "share": round(2 / 7, 6)}
    assert facts["shared_titles"] == 1


def test_items_without_image_are_looked_up_by_id(workspace: Workspace) -> None:
    assert card(DatasetFiles(workspace, "tiny"))["without_image"]["count"] == 7
    lay(workspace.dataset("tiny").images, {"a.jpg": b"", "b.WEBP": b"", "c.txt": b"", "stranger.png": b""})
    facts = card(DatasetFiles(workspace, "tiny"))
    assert facts["without_image"] == {"count": 5, "share": round(5 / 7, 6)}
    # b.WEBP is Bean's; stranger.png is nobody's, and c.txt is no image.
    assert facts["images_of_no_item"] == 1
    assert ("image files of no item", "1") in table(facts).rows


def test_overlap_shows_a_leak(workspace: Workspace) -> None:
    workspace.dataset("tiny").split("valid").write_text("1\tx b c d\n2\ta c d e\n3\tc b c a\n")
    facts = card(DatasetFiles(workspace, "tiny"), window=3)
    # The last three of users 1 and 2 are those of their train lines; all three targets lie on train lines.
    assert facts["overlap"]["train-valid"] == {"users": 3, "windows": 2, "known_targets": 3}
    assert list(facts["overlap"]) == ["train-valid", "train-test", "valid-test"]


def test_train_alone_makes_a_card(workspace: Workspace) -> None:
    workspace.dataset("tiny").split("test").unlink()
    facts = card(DatasetFiles(workspace, "tiny"))
    assert facts["interactions"] == 12
    assert facts["overlap"] == {}
    assert facts["unseen_targets"] == {}


def test_a_missing_file_names_the_command(workspace: Workspace) -> None:
    workspace.dataset("tiny").titles.unlink()
    with pytest.raises(ArtifactError, match=r"titles file is missing.*mllmrec prepare"):
        card(DatasetFiles(workspace, "tiny"))


def test_the_table_says_the_same(workspace: Workspace) -> None:
    rows = dict(table(card(DatasetFiles(workspace, "tiny"), window=3)).rows)
    assert rows["items on lines / in the titles file"] == "6 / 6"
    assert rows["sequence length"] == "4 / 4.5 / 4.5 / 5 (min/median/mean/max)"
    assert rows["shared by train-test"] == "2 users, 0 windows of 3, 0 targets known before"
    assert rows["test targets unseen in train"] == "1 items on 1 (33.3%) lines"


@pytest.mark.real_data
def test_the_reference_folder_of_real_data(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(real_data)
    facts = card(DatasetFiles(Workspace(tmp_path), "movielens"))
    assert (facts["users"], facts["catalogue"]) == (6040, 3416)
    # 21 items a user at most: the 20 before the last one, then the last one.
    assert facts["lengths"]["max"] == 21
    assert facts["without_image"]["count"] == 1816
    assert facts["overlap"]["train-test"]["known_targets"] == 0


@given(sequence=st.lists(st.integers(), unique=True, min_size=1), data=st.data())
def test_two_windows_of_one_sequence_lay_over_to_what_they_span(sequence: list[int], data: st.DataObject) -> None:
    whole = [str(item) for item in sequence]
    start = data.draw(st.integers(0, len(whole) - 1))
    end = data.draw(st.integers(start, len(whole)))
    assert overlaid(whole[:end], whole[start:]) == whole
