"""Delimited text: what is read, and what each kind of bad input says."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from raw_files import lay, settings

from mllmrec.data.importers.table import interactions, numbered_lines, read_table
from mllmrec.errors import DataError
from mllmrec.settings.data import Quoting


def table_file(folder: Path, content: str | bytes) -> Path:
    return lay(folder, {"table.csv": content}) / "table.csv"


@pytest.mark.parametrize(
    "content",
    [
        "user,item\nu1,a\nu2,b\n",
        "user,item\r\nu1,a\r\nu2,b\r\n",
        "\ufeffuser,item\nu1,a\nu2,b",
        "user, item\n\nu1 , a\n   \nu2,b\n\n",
        gzip.compress(b"user,item\nu1,a\nu2,b\n", mtime=0),
    ],
    ids=["plain", "crlf", "bom", "blanks", "gzip"],
)
def test_the_same_table_in_any_dress(tmp_path: Path, content: str | bytes) -> None:
    table = read_table(table_file(tmp_path, content), separator=",")
    assert table.select("user", "item").rows() == [("u1", "a"), ("u2", "b")]


def test_lines_keep_their_numbers_past_blank_ones(tmp_path: Path) -> None:
    table = read_table(table_file(tmp_path, "user,item\n\nu1,a\n\n\nu2,b\n"), separator=",")
    assert table["line"].to_list() == [3, 6]


def test_a_separator_of_two_characters_leaves_single_ones_in_the_field(tmp_path: Path) -> None:
    path = table_file(tmp_path, '1::Alien: "Director"::Horror|Sci-Fi\n')
    table = read_table(path, separator="::", columns=("item", "title", "genres"))
    assert table.row(0)[1:] == ("1", 'Alien: "Director"', "Horror|Sci-Fi")


def test_quoted_fields_hold_delimiters_quotes_and_line_breaks(tmp_path: Path) -> None:
    path = table_file(tmp_path, 'item,title\n1,"Seven, the ""first"""\n2,"Two\nlines"\n3,plain\n')
    table = read_table(path, separator=",", quoting="auto")
    assert table.rows() == [(2, "1", 'Seven, the "first"'), (3, "2", "Two\nlines"), (5, "3", "plain")]


def test_none_and_na_are_text(tmp_path: Path) -> None:
    path = table_file(tmp_path, "item,title\n1,None\n2,NA\n3,null\n4,\n")
    assert read_table(path, separator=",", quoting="auto")["title"].to_list() == ["None", "NA", "null", ""]


@pytest.mark.parametrize("quoting", ["none", "auto"])
def test_a_wrong_number_of_fields_is_an_error_at_its_line(tmp_path: Path, quoting: Quoting) -> None:
    path = table_file(tmp_path, 'user,item\n"u1",a\nu2,b,c\n')
    with pytest.raises(DataError, match=r"table\.csv:3: 3 fields where 2 were expected \(user, item\); found 'u2,b,c'"):
        read_table(path, separator=",", quoting=quoting)


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff", "  \r\n"], ids=["nothing", "breaks", "bom", "blanks"])
def test_an_empty_file_is_an_error(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"table\.csv is empty"):
        numbered_lines(table_file(tmp_path, content))


def test_a_header_alone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has a header but no rows"):
        read_table(table_file(tmp_path, "user,item\n"), separator=",")


def test_a_header_that_repeats_a_name_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"table\.csv:1: the header is user, user"):
        read_table(table_file(tmp_path, "user,user\n1,2\n"), separator=",")


def test_latin_1_bytes_are_named_by_line_and_mended_by_a_command(tmp_path: Path) -> None:
    path = table_file(tmp_path, "item,title\n1,Plain\n2,Amélie\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"table\.csv:3: byte 0xe9 is not UTF-8.*iconv -f latin1 -t utf-8 table\.csv"):
        read_table(path, separator=",")


def test_latin_1_is_read_when_the_format_is_latin_1(tmp_path: Path) -> None:
    path = table_file(tmp_path, "1|Amélie\n".encode("latin-1"))
    table = read_table(path, separator="|", columns=("item", "title"), encoding="latin-1")
    assert table["title"].to_list() == ["Amélie"]


def test_a_torn_archive_is_an_error(tmp_path: Path) -> None:
    data = gzip.compress(bytes(range(32, 127)) * 1000 + b"\n")
    with pytest.raises(DataError, match="can't be read"):
        numbered_lines(table_file(tmp_path, data[: len(data) // 2]))


def test_an_open_quotation_is_an_error_at_the_line_where_it_opens(tmp_path: Path) -> None:
    path = table_file(tmp_path, 'item,title\n1,a\n2,"never closed\n3,c\n')
    with pytest.raises(DataError, match=r"table\.csv:3: not valid CSV \(unexpected end of data\).*--quoting none"):
        read_table(path, separator=",", quoting="auto")


def test_a_missing_column_shows_the_columns_there_are(tmp_path: Path) -> None:
    path = table_file(tmp_path, "user,product,timestamp\nu1,a,1\n")
    with pytest.raises(
        DataError, match=r"no column named item\. The header has user, product, timestamp.*--item-column"
    ):
        interactions(read_table(path, separator=","), path, settings(path))
