"""What a file holds, by its first bytes and not by its suffix.

Text in any wrapping (gzip, zip, UTF-16, UTF-32) is handed on as UTF-8; a zip file may hold one table, at any depth of
folders. JSON lines, JSON arrays and parquet files become tables of text with line numbers. Whatever is none of these
is refused by its name.
"""

from __future__ import annotations

import ast
import codecs
import fnmatch
import gzip
import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import polars as pl

from mllmrec.errors import DataError
from mllmrec.progress import note

GZIP, ZIP, PARQUET = b"\x1f\x8b", (b"PK\x03\x04", b"PK\x05\x06"), b"PAR1"
HEAD_BYTES = 4096
BROKEN = (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError)
"""What unpacking raises on a damaged archive, and on one with a password or an unknown method."""
TABLE_PATTERNS = (
    "*pairs.*",
    "interactions.*",
    "ratings.*",
    "*.inter",
    "*.csv",
    "*.tsv",
    "*.jsonl",
    "*.json",
    "*.parquet",
)
SIGNATURES = (
    (PARQUET, "a parquet file, which --source pairs reads"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Office file; save the table as CSV (UTF-8)"),
    (b"BZh", "compressed with bzip2; unpack it"),
    (b"\xfd7zXZ", "compressed with xz; unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"SQLite format 3\x00", "an SQLite database; export the table as CSV"),
    (b"\x89HDF", "an HDF5 file; export the table as CSV"),
    (b"ARROW1", "an Arrow file; save the table as parquet or CSV"),
    (b"%PDF", "a PDF document; download the data itself"),
    (b"\x89PNG", "an image; name the table"),
    (b"\xff\xd8\xff", "an image; name the table"),
)
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def text_source(path: Path, encoding: str = "utf-8") -> Path | bytes:
    """The file itself where it is plain or gzipped UTF-8, else its text in UTF-8; raises DataError where it isn't text.

    With `encoding` "latin-1", which old releases are in, text that isn't UTF-8 is read as latin-1.
    """
    head = head_of(path)
    wide = _wide_encoding(head)
    if wide:
        note(f"{path} is {wide.upper()} text and read so.")
    elif encoding == "utf-8" and not _is_zip(path):
        return path
    data = content(path)
    try:
        return data.decode(wide or "utf-8").encode()
    except UnicodeDecodeError:
        if wide or encoding == "utf-8":
            return data
        return data.decode(encoding).encode()


def head_of(path: Path) -> bytes:
    """The first bytes of a file, unpacked; empty for an empty file. Raises DataError where they aren't text."""
    try:
        with closing(opened(path)) as file:
            head = file.read(HEAD_BYTES)
    except BROKEN as error:
        raise unreadable(path, error) from error
    for mark, name in SIGNATURES:
        if head.startswith(mark) and mark != PARQUET:
            raise _wrong_kind(path, name)
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise _wrong_kind(path, "a web page and no data; download the file again")
    return head


def is_parquet(path: Path) -> bool:
    """Whether a file begins as parquet files do."""
    return head_of(path).startswith(PARQUET)


def refuse_parquet(path: Path) -> None:
    """A DataError where a reader of text alone is given a parquet file."""
    if is_parquet(path):
        raise _wrong_kind(path, dict(SIGNATURES)[PARQUET])


def content(path: Path) -> bytes:
    """All that a file holds, unpacked."""
    try:
        with closing(opened(path)) as file:
            return file.read()
    except BROKEN as error:
        raise unreadable(path, error) from error


def opened(path: Path) -> IO[bytes] | gzip.GzipFile:
    """The file as a stream of unpacked bytes; of a zip file its one table."""
    with path.open("rb") as file:
        mark = file.read(4)
    if mark.startswith(GZIP):
        return gzip.open(path, "rb")
    if mark in ZIP:
        archive = zipfile.ZipFile(path)
        member = archive.open(_table_in(archive.namelist(), path))
        return gzip.open(member, "rb") if member.name.endswith(".gz") else member
    return path.open("rb")


def unreadable(path: Path, error: Exception) -> DataError:
    """The error of a file that can't be unpacked or read."""
    return DataError(f"{path} can't be read: {error}. Download it again, or unpack it by hand.")


def holds_objects(path: Path) -> bool:
    """Whether a file begins as JSON lines or as an array of objects."""
    return head_of(path).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file, each with its line; in an array, with its number from 1."""
    if head_of(path).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        yield from _array(path)
        return
    try:
        with closing(opened(path)) as file:
            for number, data in enumerate(file, 1):
                text = _decoded(data, path, number)
                if text.strip():
                    yield number, _object(text, path, number)
    except BROKEN as error:
        raise unreadable(path, error) from error


def object_table(path: Path, *, only: Sequence[str] = ()) -> pl.DataFrame:
    """A column of text for each plain field of the objects, or for those in `only`; lists and objects are left out."""
    columns: dict[str, list[str]] = {name: [] for name in only}
    lines: list[int] = []
    for number, row in read_objects(path):
        for name in row if not only else ():
            if name not in columns and not isinstance(row[name], (dict, list)):
                columns[name] = [""] * len(lines)
        lines.append(number)
        for name, values in columns.items():
            values.append(_text(row.get(name)))
    if not lines:
        raise DataError(f"{path} is empty. Expected JSON objects, one a line; download or unpack it again.")
    columns.pop("line", None)
    return pl.DataFrame({"line": lines, **columns}, schema_overrides={"line": pl.UInt32})


def parquet_table(path: Path) -> pl.DataFrame:
    """The columns of a parquet file but nested ones and bytes, as text; null becomes empty, 3.0 becomes 3."""
    try:
        frame = pl.read_parquet(BytesIO(content(path)))
    except pl.exceptions.PolarsError as error:
        raise unreadable(path, error) from error
    kept = [name for name, kind in frame.schema.items() if not kind.is_nested() and kind != pl.Binary]
    if frame.is_empty():
        raise DataError(f"{path} has columns but no rows. Expected a row for each interaction or item.")
    texts = [_as_text(frame[name]).fill_null("").alias(name) for name in kept if name != "line"]
    return pl.DataFrame([pl.int_range(1, frame.height + 1, dtype=pl.UInt32, eager=True).alias("line"), *texts])


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in ZIP


def _table_in(names: Sequence[str], path: Path) -> str:
    if "[Content_Types].xml" in names:
        raise _wrong_kind(path, "an Excel workbook or another Office file; save the table as CSV (UTF-8)")
    files = [
        name
        for name in names
        if not name.endswith("/") and not name.startswith("__MACOSX/") and not Path(name).name.startswith(".")
    ]
    if len(files) > 1:
        for pattern in TABLE_PATTERNS:
            chosen = [name for name in files if fnmatch.fnmatch(Path(name).name.removesuffix(".gz"), pattern)]
            if len(chosen) == 1:
                note(f"{path} holds {len(files)} files; {chosen[0]} is read.")
                return chosen[0]
    if len(files) != 1:
        raise DataError(
            f"{path} is a zip file of {len(files)} files: {', '.join(files[:12]) or 'none'}. Expected one table; "
            "unpack it and point --raw at the folder or the file."
        )
    if files[0].lower().endswith((".zip", ".xlsx", ".7z", ".rar")):
        raise _wrong_kind(path, f"a zip file that holds {files[0]}; unpack it")
    return files[0]


def _wide_encoding(head: bytes) -> str:
    """UTF-16 or UTF-32 by a mark or, without one, by where the zeros of plain letters lie; nothing for other text."""
    for mark, name in BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return name
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if not even + odd or 4 * (even + odd) < len(head):
        return ""
    return "utf-16-be" if even > odd else "utf-16-le"


def _wrong_kind(path: Path, name: str) -> DataError:
    what, _, remedy = name.partition("; ")
    remedy = f" {remedy[0].upper()}{remedy[1:]}." if remedy else ""
    return DataError(
        f"{path} is {what}. Expected a table as text (CSV, TSV, JSON lines), plain, gzipped or zipped.{remedy}"
    )


def _as_text(column: pl.Series) -> pl.Series:
    kind = column.dtype
    if isinstance(kind, pl.Datetime):
        utc = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if kind.time_zone else column
        return utc.cast(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%S%.6f")
    if kind.is_float() and ((column % 1 == 0) | column.is_null()).all():
        return column.cast(pl.Int64).cast(pl.String)
    return column.cast(pl.String).str.strip_chars()


def _array(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    text = _decoded(content(path), path, 1)
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: not valid JSON ({error}). Expected an array of objects, or one object a line."
        ) from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}: entry {number} of the array is no object: {str(row)[:80]!r}. Expected objects.")
        yield number, row


def _decoded(data: bytes, path: Path, number: int) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}:{number}: byte 0x{data[error.start]:02x} is not UTF-8. Expected UTF-8 text; convert it."
        ) from error


def _object(text: str, path: Path, number: int) -> dict[str, Any]:
    """JSON, or the Python literal that the 2014 release of Amazon reviews wrote in its place."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            value = None
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise DataError(f"{path}:{number}: not a JSON object: {text.strip()[:80]!r}. Expected one object a line.")
    return value


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()
