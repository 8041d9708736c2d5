"""Pairs in whatever a file may be: read as the same table, or named for what it is."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from raw_files import lay, read

from mllmrec.errors import DataError

TEXT = "user,item,timestamp,title\nu1,a,5,Crème\nu1,b,6,Lamp\n"
ROWS = [("u1", "a", 5), ("u1", "b", 6)]
OBJECTS = [{"user": "u1", "item": "a", "timestamp": 5, "title": "Crème", "tags": []}, {"user": "u1", "item": "b"}]
OBJECTS[1] |= {"timestamp": 6.0, "title": "Lamp"}
LINES = "".join(json.dumps(row) + "\n" for row in OBJECTS)


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def parquet(**columns: list[object]) -> bytes:
    file = io.BytesIO()
    pl.DataFrame(columns).write_parquet(file)
    return file.getvalue()


PARQUET = parquet(user=["u1", "u1"], item=["a", "b"], timestamp=[5, 6], title=["Crème", "Lamp"], tags=[[1], []])
NESTED = {"__MACOSX/x.csv": b"", "deep/er/": b"", "deep/er/t.csv": TEXT.encode()}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv.gz", gzip.compress(TEXT.encode(), mtime=0)),
        ("t.csv", TEXT.replace("\n", "\r\n").encode("utf-8-sig")),
        ("t.csv", TEXT.encode("utf-16")),
        ("t.csv", TEXT.encode("utf-16-be")),
        ("t.csv", TEXT.encode("utf-16-le")),
        ("t.csv.gz", gzip.compress(TEXT.encode("utf-16"), mtime=0)),
        ("t.tsv", TEXT.replace(",", "\t").encode()),
        ("t.zip", zipped(**NESTED)),
        ("t.zip", zipped(**{"a/t.csv.gz": gzip.compress(TEXT.encode(), mtime=0)})),
        ("t.zip", zipped(**{"README.txt": b"read me", "t.csv": TEXT.encode()})),
        ("t.jsonl", LINES.encode()),
        ("t.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("t.json", json.dumps(OBJECTS).encode()),
        ("t.parquet", PARQUET),
        (
            "t.inter",
            b"user_id:token\titem_id:token\ttimestamp:float\ttitle:token_seq\nu1\ta\t5\tCr\xc3\xa8me\nu1\tb\t6\tLamp\n",
        ),
    ],
)
@pytest.mark.parametrize("as_folder", [True, False])
def test_the_same_table_in_any_wrapping(tmp_path: Path, name: str, content: bytes, as_folder: bool) -> None:
    lay(tmp_path, {name: content})
    imported = read(tmp_path if as_folder else tmp_path / name)
    assert imported.rows.rows() == ROWS
    assert [item.title for item in imported.catalogue.values()] == ["Crème", "Lamp"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (zipped(**{"[Content_Types].xml": b"", "xl/workbook.xml": b""}), "an Excel workbook"),
        (b"\xd0\xcf\x11\xe0" + b"\0" * 600, "an old Excel"),
        (b"%PDF-1.4\n", "a PDF document"),
        (b"SQLite format 3\x00" + b"\0" * 90, "an SQLite database"),
        (b"<!DOCTYPE html>\n<html></html>", "a web page"),
        (b"BZh91AY", "compressed with bzip2"),
        (b"\x28\xb5\x2f\xfd\0\0", "compressed with zstd"),
        (zipped(**{"inner.zip": b""}), "a zip file that holds inner.zip"),
        (zipped(**{"a.dat": b"", "b.dat": b""}), "a zip file of 2 files: a.dat, b.dat"),
        (zipped(), "a zip file of 0 files|can't be read"),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, content: bytes, kind: str) -> None:
    lay(tmp_path, {"t.csv": content})
    with pytest.raises(DataError, match=kind) as caught:
        read(tmp_path / "t.csv")
    assert "latin" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", zipped(**{"t.csv": b""}), gzip.compress(b"", mtime=0)])
def test_nothing_is_told_to_be_empty(tmp_path: Path, content: bytes) -> None:
    lay(tmp_path, {"t.csv": content})
    with pytest.raises(DataError, match=r"t\.csv is empty"):
        read(tmp_path / "t.csv")


@pytest.mark.parametrize("name", ["t.csv.gz", "t.jsonl.gz"])
def test_a_torn_archive_is_an_error_in_one_line(tmp_path: Path, name: str) -> None:
    text = "".join(json.dumps({"user": f"u{index}", "item": "a", "timestamp": index}) + "\n" for index in range(3000))
    data = gzip.compress(text.encode())
    lay(tmp_path, {name: data[: len(data) // 2]})
    with pytest.raises(DataError, match="can't be read"):
        read(tmp_path)


def test_parquet_in_another_reader_is_named(tmp_path: Path) -> None:
    lay(tmp_path, {"ratings.csv": PARQUET, "movies.csv": "movieId,title,genres\n1,a,b\n"})
    with pytest.raises(DataError, match="a parquet file, which --source pairs reads"):
        read(tmp_path, source="movielens-latest")


def test_parquet_of_other_types(tmp_path: Path) -> None:
    moments = [datetime(2020, 9, 13, 12, 18), datetime(2020, 9, 13, 12, 18, 0, 500000)]
    lay(tmp_path, {"t.parquet": parquet(user=[1.0, None], item=[7, 8], timestamp=moments)})
    assert read(tmp_path).rows.rows() == [("1", "7", 1599999480.0), ("", "8", 1599999480.5)]


def test_a_recbole_folder_brings_its_titles(tmp_path: Path) -> None:
    files = {
        "toy.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu1\ta\t5.0\t160.0\n",
        "toy.item": 'item_id:token\tmovie_title:token_seq\tclass:token_seq\na\t"Great" Lamp\tKitchen\n',
    }
    lay(tmp_path, files)
    plain = read(tmp_path)
    typed = read(tmp_path, user_column="user_id:token", item_column="item_id:token", time_column="timestamp:float")
    for imported in (plain, typed):
        assert imported.rows.rows() == [("u1", "a", 160.0)]
        assert imported.catalogue["a"].title == '"Great" Lamp'
        assert imported.catalogue["a"].attributes == (("class", "Kitchen"),)
