"""JSON lines, JSON arrays and parquet files as tables: columns of text with line numbers."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from mllmrec.data.importers.contents import BROKEN, content, head_of, opened, unreadable
from mllmrec.errors import DataError


def holds_objects(path: Path) -> bool:
    """Whether a file begins as JSON lines or as an array of objects."""
    return head_of(path).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file, each with its line; in an array, with its number."""
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
    """The fields of all objects that are no lists and no objects themselves; `only` names those wanted."""
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
