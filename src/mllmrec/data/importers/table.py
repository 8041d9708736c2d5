"""Delimited text as a table of strings that keeps its line numbers, so that every error names a line.

Files are read as lines and split afterwards. That is as fast as a CSV parser, takes separators of several characters
(`::`), and makes a line with too few fields an error at that line instead of a shifted column.

`parse_times` reads the time column: numbers as they stand, dates of any common form as seconds since 1970. A date
without a zone is UTC. Within a column precision and zone may vary, the order of day and month may not, and a column
that doesn't show that order is refused.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import polars as pl

from mllmrec.data.importers.contents import content, refuse_parquet, text_source, unreadable
from mllmrec.data.quoting import Delimited, quoted_rows
from mllmrec.errors import DataError
from mllmrec.progress import note
from mllmrec.settings.data import PrepareSettings, Quoting

MISSING = ("", "na", "n/a", "nan", "nat", "none", "null", "\\n", "<na>")
CLOCK = r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
ZONE = r"(?P<zone>[Zz]|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?"
YEAR_FIRST = rf"^(?P<year>\d{{4}})[-/.](?P<month>\d{{1,2}})[-/.](?P<day>\d{{1,2}})(?:[Tt ] *{CLOCK})? *{ZONE}$"
YEAR_LAST = (
    r"^(?P<first>\d{1,2})(?P<mark>[-/.])(?P<other>\d{1,2})[-/.](?P<year>\d{4})"
    rf"(?:,?[Tt ] *{CLOCK} *(?P<half>[AaPp]\.?[Mm]\.?)?)? *{ZONE}$"
)
ISO = ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S")
"""Common formats, which are parsed faster in this way than by `YEAR_FIRST`; it matches them too."""
NAMED_MONTHS = ("%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z", "%a %b %d %H:%M:%S %Y")
UNITS = (("seconds", 10**8), ("milliseconds", 10**11), ("microseconds", 10**14), ("nanoseconds", 10**17))
"""Units of time since 1970, each with the smallest number that is read in it: a day in 1973."""


def read_table(
    path: Path,
    *,
    separator: str,
    columns: Sequence[str] | None = None,
    quoting: Quoting = "none",
    encoding: str = "utf-8",
) -> pl.DataFrame:
    """The fields of a file as strings, with their 1-based `line`; without `columns` the first line names them.

    `quoting` says how quotation marks are read (`quoting.py`); with "none" they are characters like any other.
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

    With `encoding` "latin-1" text that isn't UTF-8 is read as latin-1.
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
    """The columns user, item, timestamp of a table; with `time` None the timestamp is the number of the row.

    Ids stay as they are, empty ones too. A missing time is null where the settings allow such rows to be dropped, and
    a DataError otherwise.
    """
    require_columns(table, path, [name for name in (user, item, time) if name])
    times = parse_times(table, path, time, settings.time_format) if time else pl.int_range(table.height, eager=True)
    if not settings.drop_missing_times:
        require_times(times, table["line"], path)
    return table.select(pl.col(user).alias("user"), pl.col(item).alias("item"), times.alias("timestamp"))


def require_columns(table: pl.DataFrame, path: Path, names: Sequence[str]) -> None:
    """Raise DataError, with the columns that there are, unless every name is a column."""
    missing = [name for name in names if name not in table.columns]
    if missing:
        there = ", ".join(name for name in table.columns if name != "line")
        raise DataError(
            f"{path}:1: no column named {', '.join(missing)}. The header has {there}. Name the right ones with "
            "--source pairs (--user-column, --item-column, --time-column, --title-column, and "
            "--titles-item-column for --titles), or mend the header."
        )


def parse_times(table: pl.DataFrame, path: Path, column: str, form: str = "") -> pl.Series:
    """A column of times as numbers, null where it is missing; `form` is a strftime format that all dates have."""
    missing = table[column].str.to_lowercase().is_in(MISSING)
    text = table.select(pl.when(~missing).then(pl.col(column)).alias(column)).to_series()
    if missing.all():
        raise DataError(
            f"{path}: column {column} holds no time at all. Expected numbers or dates; name another with "
            "--time-column, or take the order of rows with --time-column none."
        )
    readers: list[Callable[[pl.Series], pl.Series]] = [partial(_formatted, form=form)]
    if not form:
        iso, named = ([partial(_formatted, form=known) for known in forms] for forms in (ISO, NAMED_MONTHS))
        readers = [_whole, _fractional, *iso, _year_first, partial(_year_last, path=path), *named]
    readings = []
    for read in readers:
        readings.append(read(text))
        if readings[-1].null_count() == text.null_count():
            return _in_one_unit(readings[-1], table["line"], path)
    closest = min(readings, key=lambda reading: reading.null_count())
    index = (closest.is_null() & ~missing).arg_max() or 0
    expected = f"not of the form {form} (--time-format)" if form else "no number and no date of a form known here"
    raise DataError(
        f"{path}:{table['line'][index]}: the timestamp {text[index]!r} in column {column} is {expected}, or is unlike "
        "the others. Expected numbers, or dates such as 2005-09-06, 2005-09-06T12:30:00.5+02:00 or Tue Sep 06 12:30:00 "
        "+0000 2005. Mend this line, or say how dates are written: --source pairs --time-format '%d.%m.%Y %H:%M'."
    )


def require_times(times: pl.Series, lines: pl.Series, path: Path) -> None:
    """Raise DataError, with their number, where times are missing."""
    if count := times.null_count():
        raise DataError(
            f"{path}:{lines[times.is_null().arg_max() or 0]}: the time is empty, as on {count:,} of {len(times):,} "
            "rows. Expected a time for each interaction. Fill them in, leave these rows out with --drop-missing-times, "
            "or take the order of rows with --source pairs --time-column none."
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
    """The error of a file that polars can't read; it names the line of a byte that isn't UTF-8."""
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


def _whole(text: pl.Series) -> pl.Series:
    return text.cast(pl.Int64, strict=False)


def _fractional(text: pl.Series) -> pl.Series:
    numbers = text.cast(pl.Float64, strict=False).to_frame("number")
    return numbers.select(pl.when(pl.col("number").is_finite()).then("number")).to_series()


def _year_first(text: pl.Series) -> pl.Series:
    return _seconds(_groups(text, YEAR_FIRST))


def _year_last(text: pl.Series, path: Path) -> pl.Series:
    """Seconds; the order of day and month is the one that a number over 12 shows, or dots, which mean the day first."""
    groups = _groups(text, YEAR_LAST)
    first, other = (groups[name].cast(pl.Int64) for name in ("first", "other"))
    day_first = (first > 12).any() or (groups["mark"] == ".").any()
    if groups["year"].null_count() == text.null_count() and not day_first and not (other > 12).any():
        raise DataError(
            f"{path}: dates such as {text.drop_nulls()[0]!r} may have the day or the month first, and no row shows "
            "which. Say so with --time-format '%d/%m/%Y' or '%m/%d/%Y' (--source pairs), with %H:%M:%S where they have "
            "a time."
        )
    return _seconds(
        groups.with_columns(
            (first if day_first else other).alias("day"), (other if day_first else first).alias("month")
        )
    )


def _formatted(text: pl.Series, form: str) -> pl.Series:
    try:
        times = text.str.to_datetime(form, strict=False, time_unit="us")
    except pl.exceptions.PolarsError as error:
        raise DataError(f"--time-format {form!r} can't be used: {error}. Expected codes such as %Y-%m-%d.") from error
    return _of_microseconds(times.dt.epoch("us"))


def _groups(text: pl.Series, pattern: str) -> pl.DataFrame:
    return text.to_frame("text").select(pl.col("text").str.extract_groups(pattern)).unnest("text")


def _seconds(groups: pl.DataFrame) -> pl.Series:
    """Seconds since 1970 of dates in parts; null where a part is missing or out of range."""
    parts = {name: pl.col(name).cast(pl.Int64) for name in ("year", "month", "day")}
    parts |= {name: pl.col(name).cast(pl.Int64).fill_null(0) for name in ("hour", "minute", "second")}
    if "half" in groups.columns:
        after_noon = pl.col("half").str.to_lowercase().str.starts_with("p")
        in_half = pl.when(parts["hour"].is_between(1, 12)).then(parts["hour"] % 12 + 12 * after_noon.cast(pl.Int64))
        parts["hour"] = pl.when(pl.col("half").is_null()).then(parts["hour"]).otherwise(in_half)
    written = pl.format("{}-{}-{} {}:{}:{}", *(part.cast(pl.String).str.zfill(2) for part in parts.values()))
    whole = written.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="us").dt.epoch("us")
    fraction = pl.col("fraction").str.pad_end(6, "0").str.slice(0, 6).cast(pl.Int64).fill_null(0)
    digits = pl.col("zone").str.replace_all(":", "").str.extract(r"([+-]\d+)").str.pad_end(5, "0")
    minutes = digits.str.slice(1, 2).cast(pl.Int64) * 60 + digits.str.slice(3, 2).cast(pl.Int64)
    offset = pl.when(digits.str.starts_with("-")).then(-minutes).otherwise(minutes).fill_null(0)
    return _of_microseconds(groups.select(whole + fraction - offset * 60_000_000).to_series())


def _of_microseconds(times: pl.Series) -> pl.Series:
    """Microseconds as seconds: integers where all are whole."""
    return times // 1_000_000 if (times % 1_000_000 == 0).all() else times / 1_000_000


def _in_one_unit(times: pl.Series, lines: pl.Series, path: Path) -> pl.Series:
    """Times in the finest unit that occurs; only their size shows it, so a note says where there are several."""
    floors: Sequence[int] = [floor for _, floor in UNITS]
    size = pl.Series("unit", [0] * len(times), dtype=pl.Int64)
    for floor in floors:
        size = size + (times >= floor).fill_null(False).cast(pl.Int64)
    present = sorted(set(size.unique()) - {0})
    if len(present) < 2:
        return times
    finest = present[-1]
    factors = size.replace_strict(
        {unit: 1000 ** (finest - unit) for unit in present}, default=1000 ** (finest - present[0])
    )
    counts = ", ".join(f"{(size == unit).sum():,} in {UNITS[unit - 1][0]}" for unit in present)
    line = lines[(size == finest).arg_max() or 0]
    note(
        f"{path}: by their size, times are written in several units: {counts} (the first of these on line {line}). All "
        f"were taken to {UNITS[finest - 1][0]}."
    )
    return times * factors
