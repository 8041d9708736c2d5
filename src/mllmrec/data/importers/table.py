"""Delimited text as a table of strings that still knows its line numbers, so that every error can name one.

Files are read as lines and split afterwards: it is as fast as a CSV parser, takes separators of several characters
(`::`), and a line with too few fields is an error at that line and not a shifted column.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from mllmrec.data.importers.contents import content, refuse_parquet, text_source, unreadable
from mllmrec.data.importers.times import parse_times, require_times
from mllmrec.data.quoting import Delimited, quoted_rows
from mllmrec.errors import DataError
from mllmrec.settings.prepare import PrepareSettings, Quoting


def read_table(
    path: Path,
    *,
    separator: str,
    columns: Sequence[str] | None = None,
    quoting: Quoting = "none",
    encoding: str = "utf-8",
) -> pl.DataFrame:
    """The fields of a file as strings, with their 1-based `line`; without `columns` the first line names them.

    `quoting` says how quotation marks are read (`data/quoting.py`); with "none" they are characters like any other.
    """
    lines = numbered_lines(path, encoding)
    quoted = quoting != "none" and len(separator) == 1 and bool(lines["text"].str.contains('"', literal=True).any())
    if columns is None:
        columns = _header(lines, path, separator, quoted)
        lines = lines.slice(1)
        if lines.is_empty():
            raise DataError(f"{path} has a header but no rows. Expected a row for each interaction or item.")
    if not quoted:
        return _fields(lines, path, separator, columns)
    return _quoted_fields(lines, path, separator, columns, quoting)


def numbered_lines(path: Path, encoding: str = "utf-8") -> pl.DataFrame:
    """Columns `line` (from 1) and `text` of a text file in any wrapping, without its blank lines; never empty.

    `encoding` "latin-1" is for releases that may be in it: what isn't UTF-8 is read so.
    """
    refuse_parquet(path)
    try:
        source = text_source(path, encoding)
        frame = pl.read_lines(source, name="text", row_index_name="line", row_index_offset=1, glob=False)
    except (pl.exceptions.ComputeError, OSError) as error:
        raise _unreadable(path, error) from error
    frame = frame.with_columns(pl.col("text").str.strip_prefix("\ufeff").str.strip_chars_end("\r"))
    frame = frame.filter(pl.col("text").str.strip_chars().str.len_bytes() > 0)
    if frame.is_empty():
        raise DataError(f"{path} is empty. Expected lines of text; download or unpack it again.")
    if frame.height == 1 and "\r" in frame["text"][0]:
        raise DataError(f"{path}: its lines end in carriage returns alone. Expected line feeds; convert the file.")
    return frame


def interactions(
    table: pl.DataFrame,
    path: Path,
    settings: PrepareSettings,
    *,
    user: str = "user",
    item: str = "item",
    time: str | None = "timestamp",
) -> pl.DataFrame:
    """The columns user, item, timestamp of a table; `time` None numbers the rows in its place.

    Ids stay as they are, empty ones too. A missing time is null where the settings say that such rows may be dropped,
    and an error otherwise.
    """
    require_columns(table, path, [name for name in (user, item, time) if name])
    times = parse_times(table, path, time, settings.time_format) if time else pl.int_range(table.height, eager=True)
    if not settings.drop_missing_times:
        require_times(times, table["line"], path)
    return table.select(pl.col(user).alias("user"), pl.col(item).alias("item"), times.alias("timestamp"))


def require_columns(table: pl.DataFrame, path: Path, names: Sequence[str]) -> None:
    """Every name is a column, or a DataError shows which columns there are."""
    missing = [name for name in names if name not in table.columns]
    if missing:
        there = ", ".join(name for name in table.columns if name != "line")
        raise DataError(
            f"{path}:1: no column named {', '.join(missing)}. The header has {there}. Name the right ones with "
            "--source pairs (--user-column, --item-column, --time-column, --title-column, and "
            "--titles-item-column for --titles), or mend the header."
        )


def _header(lines: pl.DataFrame, path: Path, separator: str, quoted: bool) -> list[str]:
    text = str(lines["text"][0])
    names = [
        name.strip() for name in (next(csv.reader([text], delimiter=separator)) if quoted else text.split(separator))
    ]
    if len(set(names)) < len(names) or "line" in names:
        raise DataError(
            f"{path}:{lines['line'][0]}: the header is {', '.join(names)}. Expected different names for all columns, "
            "none of them 'line'. Rename the columns."
        )
    return names


def _fields(lines: pl.DataFrame, path: Path, separator: str, names: Sequence[str]) -> pl.DataFrame:
    counts = lines["text"].str.count_matches(separator, literal=True) + 1
    bad = lines.with_columns(counts.alias("count")).filter(pl.col("count") != len(names)).head(1)
    if bad.height:
        raise _wrong_count(path, bad["line"][0], bad["count"][0], names, bad["text"][0])
    split = lines["text"].str.split_exact(separator, len(names) - 1).struct.rename_fields(list(names)).struct.unnest()
    return lines.select("line").hstack(split.with_columns(pl.all().str.strip_chars()))


def _quoted_fields(
    lines: pl.DataFrame, path: Path, separator: str, names: Sequence[str], quoting: Quoting
) -> pl.DataFrame:
    numbers = lines["line"].to_list()
    text = Delimited(path=path, separator=separator, width=len(names), line_number=numbers.__getitem__, quoting=quoting)
    rows = []
    for start, row in quoted_rows([f"{line}\n" for line in lines["text"]], text):
        if len(row) != len(names):
            raise _wrong_count(path, numbers[start], len(row), names, separator.join(row).strip())
        rows.append((numbers[start], *(field.strip() for field in row)))
    return pl.DataFrame(rows, schema={"line": pl.UInt32, **dict.fromkeys(names, pl.String)}, orient="row")


def _wrong_count(path: Path, number: int, count: int, names: Sequence[str], text: str) -> DataError:
    return DataError(
        f"{path}:{number}: {count} fields where {len(names)} were expected ({', '.join(names)}); found {text[:80]!r}. "
        "Mend this line, or check that this is the right file."
    )


def _unreadable(path: Path, error: Exception) -> DataError:
    """The reason in words; a byte that is no UTF-8 is looked up by line."""
    data = content(path)
    try:
        data.decode()
    except UnicodeDecodeError as bad:
        number = data[: bad.start].count(b"\n") + 1
        return DataError(
            f"{path}:{number}: byte 0x{data[bad.start]:02x} is not UTF-8. Expected UTF-8 text; if the file is latin-1, "
            f"convert it: iconv -f latin1 -t utf-8 {path.name}."
        )
    return unreadable(path, error)
