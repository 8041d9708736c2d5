"""Quotation marks in delimited text: no row is lost inside the quotes of another."""

from __future__ import annotations

from pathlib import Path

import pytest
from raw_files import lay, prepare, read

from mllmrec.data.fetching.tmdb import read_links
from mllmrec.data.sequences import read_catalogue
from mllmrec.errors import DataError

HEADER = ("user", "item", "timestamp", "title")
ROWS = [
    ("u1", "a", "1", '"Big Kettle'),
    ("u1", "b", "2", "Blue Kettle"),
    ("u1", "c", "3", 'Saucer 7"'),
    ("u2", "b", "4", "Blue Kettle"),
    ("u2", "d", "5", '"Great" Shows'),
    ("u2", "a", "6", '"Big Kettle'),
    ("u2", "c", "7", 'Saucer 7"'),
]


def written(rows: list[tuple[str, ...]], separator: str, end: str = "\n") -> str:
    return "".join(separator.join(row) + end for row in rows)


@pytest.mark.parametrize("separator", ["\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_quotation_mark_that_opens_a_field_takes_in_no_other_row(tmp_path: Path, separator: str, end: str) -> None:
    raw = lay(tmp_path, {"t.txt": "\ufeff" + written([HEADER, *ROWS], separator, end)}) / "t.txt"
    imported = read(raw)
    assert imported.rows.rows() == [(user, item, int(time)) for user, item, time, _ in ROWS]
    assert {name: item.title for name, item in imported.catalogue.items()} == {
        "a": '"Big Kettle',
        "b": "Blue Kettle",
        "c": 'Saucer 7"',
        "d": '"Great" Shows',
    }


def test_prepare_keeps_every_row_between_two_quotation_marks(tmp_path: Path) -> None:
    summary = prepare(tmp_path, lay(tmp_path / "raw", {"t.tsv": written([HEADER, *ROWS], "\t")}))
    assert summary.facts["import"]["rows_read"] == 7


@pytest.mark.parametrize(
    ("line", "title"),
    [
        ('u1\ta\t1\t"Quoted whole"', "Quoted whole"),
        ('u1\ta\t1\t"A ""doubled"" mark"', 'A "doubled" mark'),
        ('u1\ta\t1\t"a tab\tinside"', "a tab\tinside"),
        ('u1\ta\t1\t"Half" quoted', '"Half" quoted'),
        ('u1\ta\t1\t"', '"'),
        ('u1\ta\t1\t""', ""),
    ],
)
def test_a_field_quoted_whole_on_its_line_loses_its_marks(tmp_path: Path, line: str, title: str) -> None:
    raw = lay(tmp_path, {"t.tsv": "user\titem\ttimestamp\ttitle\n" + line + "\n"})
    assert [item.title for item in read(raw).catalogue.values()] == [title]


def test_a_tab_separated_field_may_run_over_a_line_end_when_nothing_else_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = lay(tmp_path, {"t.tsv": 'user\ttitle\titem\ttimestamp\nu1\t"Two\nlines"\ta\t1\nu1\tOne\tb\t2\n'})
    imported = read(raw)
    assert [item.title for item in imported.catalogue.values()] == ["Two\nlines", "One"]
    assert "1 rows run over line ends inside quotation marks and take 2 lines" in capsys.readouterr().err


SWALLOWING = [
    ("t.csv", 'user,item,timestamp,title\nu1,a,1,"Big Kettle\nu1,b,2,Blue\nu1,c,3,Saucer 7"\nu1,d,4,Pot\n'),
    ("t.csv", 'user;item;timestamp;title\nu1;a;1;"Big Kettle\nu1;c;3;Saucer 7"\nu1;d;4;Pot\n'),
    ("t.tsv", 'user\ttitle\titem\ttimestamp\nu1\t"Big\nu1\tBlue\tb\t2\nu1\tSaucer 7"\tc\t3\nu1\tPot\td\t4\n'),
]


@pytest.mark.parametrize(("name", "content"), SWALLOWING)
def test_a_quotation_over_whole_rows_is_refused_with_both_ways_out(tmp_path: Path, name: str, content: str) -> None:
    raw = lay(tmp_path, {name: content})
    with pytest.raises(DataError, match=r"t\.[ct]sv:2: a quotation mark opens a field.*--quoting none.*--quoting csv"):
        read(raw)


@pytest.mark.parametrize(("quoting", "items"), [("none", "abcd"), ("csv", "ad")])
def test_quoting_can_be_chosen(tmp_path: Path, quoting: str, items: str) -> None:
    content = SWALLOWING[0][1]
    imported = read(lay(tmp_path, {"t.csv": content}), quoting=quoting)
    assert imported.rows["item"].to_list() == list(items)


def test_quoting_can_only_be_set_for_pairs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="quoting can only be set with source pairs"):
        read(tmp_path, source="amazon", quoting="none")


TITLES = 'item,title,kind\n1,"Big Kettle,k\n2,Blue Kettle,k\n3,Saucer 7",k\n4,Pot,k\n'


def test_a_titles_file_in_which_a_title_takes_in_others_is_refused(tmp_path: Path) -> None:
    lay(tmp_path, {"t.csv": TITLES})
    with pytest.raises(DataError, match=r"t\.csv:2: a quotation mark opens a field that ends on line 4"):
        read_catalogue(tmp_path / "t.csv")


def test_a_title_of_several_lines_is_no_reason_to_refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lay(tmp_path, {"t.csv": 'item,title,kind\n1,"Big\nblue, round\nKettle",k\n2,Pot,k\n'})
    assert read_catalogue(tmp_path / "t.csv").title("1") == "Big\nblue, round\nKettle"
    assert "1 rows run over line ends inside quotation marks and take 3 lines" in capsys.readouterr().err


@pytest.mark.parametrize("last", ['3,"03', '3,03"'])
def test_links_in_which_a_quotation_takes_in_rows_are_refused(tmp_path: Path, last: str) -> None:
    lay(tmp_path, {"links.csv": f'movieId,imdbId,tmdbId\n1,"01,11\n2,02,22\n{last},33\n'})
    with pytest.raises(DataError, match=r"links\.csv:2: "):
        read_links(tmp_path / "links.csv")
