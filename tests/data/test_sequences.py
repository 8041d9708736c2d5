"""Reading a dataset as people really have it: other line ends, other encodings, holes; and who knows what when."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workspaces import titles_csv, tsv, write_dataset

from mllmrec import ArtifactError, DataError, Workspace
from mllmrec.data.sequences import (
    Catalogue,
    Interactions,
    is_held_out,
    read_catalogue,
    read_lines,
    read_text,
    windows,
)
from mllmrec.records import Item


def lay(tmp_path: Path, content: str | bytes, name: str = "train.tsv") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines_of(tmp_path: Path, content: str | bytes) -> list[tuple[str, str, int]]:
    return [(line.user_id, " ".join(line.items), line.line_index) for line in read_lines(lay(tmp_path, content))]


def titles_of(tmp_path: Path, content: str | bytes) -> dict[str, str]:
    catalogue = read_catalogue(lay(tmp_path, content, "shop_titles.csv"))
    return {item: catalogue[item].title for item in catalogue}


def held_out(wanted: bool) -> str:
    """A user id that is, or isn't, validation where there is no valid.tsv."""
    return next(user for user in map(str, range(1000)) if is_held_out(user) == wanted)


# ---- lines


@pytest.mark.parametrize(
    "content",
    [
        "7\ta b c\n8\td e\n",
        "7\ta b c\n8\td e",
        "7\ta b c\r\n8\td e\r\n",
        "7\ta b c\r8\td e\r",
        "7\ta  b c \n8\td e\n",
        "7\ta\tb\tc\n8\td\te\n",
        b"\xef\xbb\xbf7\ta b c\n8\td e\n",
        b"\xef\xbb\xbf7\ta b c\r\n8\td e\r\n",
    ],
    ids=["plain", "no last newline", "CRLF", "CR", "spaces", "tabs", "BOM", "BOM and CRLF"],
)
def test_lines_are_the_same_however_they_were_saved(tmp_path: Path, content: str | bytes) -> None:
    assert lines_of(tmp_path, content) == [("7", "a b c", 0), ("8", "d e", 1)]


def test_blank_lines_are_passed_over_and_still_counted(tmp_path: Path) -> None:
    assert lines_of(tmp_path, "\n7\ta\n   \n\n8\tb\n") == [("7", "a", 1), ("8", "b", 4)]


def test_a_user_may_have_several_lines_and_repeat_items(tmp_path: Path) -> None:
    assert lines_of(tmp_path, "7\ta a\n7\tb\n") == [("7", "a a", 0), ("7", "b", 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("7\ta\n8 b c\n", r"train\.tsv:2: no tab\. Expected `user<TAB>item item \.\.\.`, found '8 b c'"),
        ("7\ta\n\n8\t  \n", r"train\.tsv:3: user '8' has no items"),
        ("7\ta\r\n8\t\r\n", r"train\.tsv:2: user '8' has no items"),
        ("7\ta b/c\n", r"train\.tsv:1: the id 'b/c' can't be used"),
        ("7\ta ../b\n", r"train\.tsv:1: the id '\.\./b' can't be used"),
        ("7\ta .b\n", r"train\.tsv:1: the id '\.b' can't be used.*not starting with a dot"),
        ("\ta b\n", r"train\.tsv:1: the id '' can't be used"),
        ("my user\ta b\n", r"train\.tsv:1: the id 'my user' can't be used"),
        ("7\ta\n8\tcafé\n", r"train\.tsv:2: the id 'café' can't be used"),
        ("7\ta [ITEM_3]\n", r"train\.tsv:1: the id '\[ITEM_3\]' can't be used"),
        (b"7\ta\n8\tb\n9\tcaf\xe9 d\n", r"train\.tsv:3: byte 0xe9 is not UTF-8.*iconv -f latin1 -t utf-8 train\.tsv"),
        ("", r"train\.tsv is empty\. Expected lines of `user<TAB>item item \.\.\.`\. .*`mllmrec prepare`"),
        ("\n \n", r"train\.tsv is empty"),
        (b"\xef\xbb\xbf", r"train\.tsv is empty"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        lines_of(tmp_path, content)


def test_usual_ids_are_taken(tmp_path: Path) -> None:
    ids = "B00ABC-1_x.y 0 -1 _ a..b"
    assert lines_of(tmp_path, f"A1.b\t{ids}\n") == [("A1.b", ids, 0)]


def test_a_file_that_is_gone_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "gone.tsv")


# ---- titles


@pytest.mark.parametrize(
    "content",
    [
        'item,title\n1,Lamp\n2,"Pot, large"\n',
        'item,title\r\n1,Lamp\r\n2,"Pot, large"\r\n',
        'item,title\r1,Lamp\r2,"Pot, large"\r',
        b'\xef\xbb\xbfitem,title\n1,Lamp\n2,"Pot, large"\n',
        'video_id, title\n 1 , Lamp \n\n2,"Pot, large"',
    ],
    ids=["plain", "CRLF", "CR", "BOM", "spaces and no last newline"],
)
def test_titles_are_the_same_however_they_were_saved(tmp_path: Path, content: str | bytes) -> None:
    assert titles_of(tmp_path, content) == {"1": "Lamp", "2": "Pot, large"}


@pytest.mark.parametrize("title", ["None", "NA", "nan", "null", "N/A", "#N/A", "True", "1e5", "007", "-"])
def test_titles_that_look_like_nothing_are_text(tmp_path: Path, title: str) -> None:
    assert titles_of(tmp_path, f"item,title\n1,{title}\n") == {"1": title}


def test_a_title_keeps_its_line_breaks_quotes_and_rare_separators(tmp_path: Path) -> None:
    written = 'item,title\n1,"Lamp\nwith a\r\nbreak"\n2,"Say ""hello"""\n3,Two\u2028parts\x85and\x0bmore\x1c\n4,Pot\n'
    expected = {"1": "Lamp\nwith a\r\nbreak", "2": 'Say "hello"', "3": "Two\u2028parts\x85and\x0bmore", "4": "Pot"}
    assert titles_of(tmp_path, written) == expected


def test_of_duplicated_rows_the_first_counts_and_they_are_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lay(tmp_path, "item,title\n2,Lamp\n1,Pot\n2,Lantern\n2,Candle\n", "shop_titles.csv")
    catalogue = read_catalogue(path)
    assert catalogue.ids == ["2", "1"]
    assert catalogue["2"].title == "Lamp"
    assert catalogue.num_duplicates == 2
    assert capsys.readouterr().err == f"{path}: 2 rows repeat an item id; the first of each that has a title counts.\n"


def test_further_columns_are_kept_as_attributes(tmp_path: Path) -> None:
    catalogue = read_catalogue(lay(tmp_path, "item,title,genre,year\n1,Lamp,Light,1990\n2,Pot,Clay\n", "t.csv"))
    assert catalogue["1"] == Item(item_id="1", title="Lamp", attributes=(("genre", "Light"), ("year", "1990")))
    assert catalogue["2"].attributes == (("genre", "Clay"),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"shop_titles\.csv:1: expected a header with at least two columns, item,title"),
        ("item\n1\n", r"shop_titles\.csv:1: expected a header with at least two columns"),
        ("item,title\n", r"shop_titles\.csv has a header but no items"),
        ("item,title\n1,Lamp\n2\n", r"shop_titles\.csv:3: expected item,title and found \['2'\]"),
        ("item,title\n1,Lamp\n../2,Pot\n", r"shop_titles\.csv:3: the id '\.\./2' can't be used"),
        ("item,title\n1,Lamp\n,Pot\n", r"shop_titles\.csv:3: the id '' can't be used"),
        (b"item,title\n1,Lamp\n2,Caf\xe9\n", r"shop_titles\.csv:3: byte 0xe9 is not UTF-8"),
        ('item,title\n1,"Lamp\n2,Pot\n3,Cup\n', r"shop_titles\.csv:2: not valid CSV .*Expected a field that begins"),
        ('item,title\n1,"The "Best" Lamp"\n2,Pot\n', r"shop_titles\.csv:2: not valid CSV"),
    ],
)
def test_a_wrong_titles_file_is_named_with_its_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        titles_of(tmp_path, content)


def test_an_item_without_a_title_is_named_by_its_id() -> None:
    catalogue = Catalogue([Item(item_id="1", title="Lamp"), Item(item_id="2", title="")])
    assert [catalogue.title(item) for item in ("1", "2", "3")] == ["Lamp", "Item 2", "Item 3"]
    assert list(catalogue) == catalogue.ids == ["1", "2"]
    assert len(catalogue) == 2


# ---- a dataset


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("data/shop", r"^The dataset shop is missing: .*data/shop does not exist\. Make it with `mllmrec prepare`"),
        ("data/shop/train.tsv", r"^The training file is missing: .*train\.tsv does not exist\. .*`mllmrec prepare`"),
        ("data/shop/shop_titles.csv", r"^The titles file is missing: .*shop_titles\.csv does not exist"),
    ],
)
def test_what_is_missing_is_told_with_the_next_command(tmp_path: Path, gone: str, message: str) -> None:
    workspace = write_dataset(tmp_path / "root", train="1\ta b\n")
    (tmp_path / "root" / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match=message):
        Interactions.load(workspace, "shop")


def test_items_without_title_are_kept_counted_and_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    titles = "item,title\na,Lamp\nb,\nz,\n"
    workspace = write_dataset(tmp_path, titles=titles, train="1\ta b c\n2\tb c c\n", test="1\ta d\n")
    interactions = Interactions.load(workspace, "shop")
    assert interactions.untitled == {"b", "c", "d"}
    assert interactions.train[0].items == ("a", "b", "c")
    assert interactions.catalogue.title("c") == "Item c"
    assert capsys.readouterr().err == (
        f"{workspace.dataset('shop').titles}: 3 of 4 items in the sequences have no title (such as b); they are kept "
        "and named by their id.\n"
    )


def test_nothing_is_told_of_a_dataset_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Interactions.load(write_dataset(tmp_path, train="1\ta b\n"), "shop")
    assert capsys.readouterr() == ("", "")


def test_test_lines_may_be_absent(tmp_path: Path) -> None:
    interactions = Interactions.load(write_dataset(tmp_path, train="1\ta b\n", valid="1\ta b c\n"), "shop")
    assert interactions.lines("test") == []
    assert [line.items for line in interactions.lines("valid")] == [("a", "b", "c")]


def test_an_empty_train_file_is_told(tmp_path: Path) -> None:
    workspace = write_dataset(tmp_path, titles=titles_csv("ab"), train="")
    with pytest.raises(DataError, match=r"train\.tsv is empty"):
        Interactions.load(workspace, "shop")


def test_a_tenth_of_the_users_is_validation_by_the_hash_of_their_id() -> None:
    for user in map(str, range(200)):
        share = int(hashlib.sha256(user.encode()).hexdigest()[:8], 16) / 2**32
        assert is_held_out(user) == (share < 0.1)


@pytest.fixture
def without_valid(tmp_path: Path) -> Interactions:
    out, fit = held_out(True), held_out(False)
    train = tsv([(out, "abc"), (fit, "abd"), (out, "ef")])
    return Interactions.load(write_dataset(tmp_path, train=train, test=tsv([(out, "abcz"), (fit, "abdy")])), "shop")


def test_without_a_valid_file_the_last_item_of_held_out_users_is_the_target(without_valid: Interactions) -> None:
    out, fit = held_out(True), held_out(False)
    assert without_valid.held_out
    assert [(line.user_id, line.items) for line in without_valid.valid] == [(out, tuple("abc")), (out, tuple("ef"))]
    assert [line.user_id for line in without_valid.training_lines()] == [fit]
    assert [(line.user_id, line.items, line.line_index) for line in without_valid.fit_lines()] == [
        (out, ("a", "b"), 0),
        (fit, ("a", "b", "d"), 1),
        (out, ("e",), 2),
    ]
    assert [line.items for line in without_valid.train] == [tuple("abc"), tuple("abd"), tuple("ef")]


def test_with_a_valid_file_nobody_is_held_out(tmp_path: Path) -> None:
    out = held_out(True)
    workspace = write_dataset(tmp_path, train=tsv([(out, "abc")]), valid=tsv([(out, "abcd")]))
    interactions = Interactions.load(workspace, "shop")
    assert not interactions.held_out
    assert interactions.training_lines() == interactions.fit_lines() == interactions.train
    assert [line.items for line in interactions.valid] == [tuple("abcd")]


def test_what_is_known_of_a_user_grows_with_the_split(tmp_path: Path) -> None:
    workspace = write_dataset(
        tmp_path, train="1\ta b\n2\tc\n1\tx\n", valid="1\ta b d\n", test="1\ta b e\n3\tf\n", titles=titles_csv("ab")
    )
    interactions = Interactions.load(workspace, "shop")
    assert interactions.known("train") == {"1": {"a", "b", "x"}, "2": {"c"}}
    assert interactions.known("valid") == {"1": {"a", "b", "x", "d"}, "2": {"c"}}
    assert interactions.known("test") == {"1": {"a", "b", "x", "d", "e"}, "2": {"c"}, "3": {"f"}}


def test_held_out_targets_are_known_at_every_split(without_valid: Interactions) -> None:
    out = held_out(True)
    assert without_valid.known("train")[out] == set("abcef")
    assert without_valid.known("test")[out] == set("abcefz")


@given(st.lists(st.sampled_from("abcde"), max_size=12).map(tuple), st.integers(1, 6))
@settings(deadline=None)
def test_windows_are_all_runs_of_their_length(items: tuple[str, ...], length: int) -> None:
    every = windows(items, length, "all")
    assert len(every) == max(0, len(items) - length + 1)
    assert every == [items[start : start + length] for start in range(len(every))]
    assert windows(items, length, "last") == every[-1:]


@pytest.mark.real_data
def test_the_real_movielens_folder_is_read_whole(real_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interactions = Interactions.load(Workspace(real_data.parent), "movielens")
    assert len(interactions.train) == len(interactions.test) == 6040
    assert len(interactions.catalogue) == 3416
    assert sum(len(line.items) for line in interactions.train) == 120_705
    assert len({item for line in interactions.train for item in line.items}) == 3_291
    assert 0.08 < len(interactions.valid) / 6040 < 0.12
    assert capsys.readouterr().err == ""
