"""Fields in quotation marks: which rows a delimited text has, so that no row is lost inside the quotes of another.

In files with commas or semicolons a quotation mark opens a field, which may run over line ends. In other files (tabs,
bars) it is a character of the text unless a field is quoted whole on its own line, because their writers rarely quote.
Lines that were read as one row are counted, and refused where each of them looks like a row of its own.

`read_text` reads text files that others wrote: UTF-8, or an error that names the line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mllmrec.errors import DataError
from mllmrec.progress import note
from mllmrec.settings.data import Quoting

STANDARD = (",", ";")
EITHER_WAY = (
    "If the quotation mark is part of the text, double it and quote the field; `mllmrec prepare --source pairs` also "
    "reads all marks as characters with --quoting none, and fields that run over lines with --quoting csv."
)


@dataclass(frozen=True, kw_only=True)
class Delimited:
    """How a text is to be split: its separator, how many fields a row has, and where line `index` lies for errors."""

    path: Path
    separator: str
    width: int
    line_number: Callable[[int], int]
    quoting: Quoting = "auto"

    def where(self, index: int) -> str:
        return f"{self.path}:{self.line_number(index)}"


def quoted_rows(lines: Sequence[str], text: Delimited) -> Iterator[tuple[int, list[str]]]:
    """The rows of `lines` (each with its line end), with the index of their first line; rows over several are noted.

    A row may have another number of fields than `text.width`, which is the caller's to judge. Raises DataError where a
    quotation is never closed, or where it takes in lines that look like rows.
    """
    standard = text.quoting == "csv" or text.separator in STANDARD
    num_rows, num_lines = 0, 0
    for start, end, fields in (_standard_rows if standard else _rows_by_line)(lines, text):
        if end - start > 1:
            num_rows, num_lines = num_rows + 1, num_lines + end - start
        yield start, fields
    if num_rows:
        note(f"{text.path}: {num_rows} rows run over line ends inside quotation marks and take {num_lines} lines.")


def fields_of_line(line: str, text: Delimited) -> list[str]:
    """The fields of one line: without its quotation marks where that gives the right number, else as they stand."""
    if '"' in line and (row := _closed_row([line], 0, text)) is not None:
        return row[1]
    return line.split(text.separator)


def csv_rows(content: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV text, header first and blank lines as empty rows, each with the line it begins on."""
    lines = list(io.StringIO(content, newline=""))
    header = next(csv.reader(lines), [])
    text = Delimited(path=path, separator=",", width=len(header), line_number=lambda index: index + 1)
    for start, fields in quoted_rows(lines, text):
        yield start + 1, fields


def read_text(path: Path) -> str:
    """A UTF-8 text file, with or without a byte order mark. Raises DataError with the line of the first bad byte."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}:{number}: byte 0x{data[error.start]:02x} is not UTF-8. Expected UTF-8 text; if the file is "
            f"latin-1, convert it: iconv -f latin1 -t utf-8 {path.name}."
        ) from error


def _standard_rows(lines: Sequence[str], text: Delimited) -> Iterator[tuple[int, int, list[str]]]:
    reader = csv.reader(lines, delimiter=text.separator, strict=True)
    start = 0
    try:
        for fields in reader:
            end = reader.line_num
            if end - start > 1 and text.quoting == "auto":
                _refuse_swallowed_rows(lines, start, end, text)
            yield start, end, fields
            start = end
    except csv.Error as error:
        raise DataError(
            f"{text.where(min(start, len(lines) - 1))}: not valid CSV ({error}). Expected a field that begins with a "
            f"quotation mark to end with one, and those inside it to be doubled. {EITHER_WAY}"
        ) from error


def _rows_by_line(lines: Sequence[str], text: Delimited) -> Iterator[tuple[int, int, list[str]]]:
    start = 0
    while start < len(lines):
        end, fields = start + 1, fields_of_line(lines[start], text)
        if len(fields) != text.width and '"' in lines[start] and (row := _closed_row(lines, start, text)) is not None:
            end, fields = row
            if any(_is_whole(line, text) for line in lines[start + 1 : end]):
                raise _swallowed(start, end, text)
        yield start, end, fields
        start = end


def _closed_row(lines: Sequence[str], start: int, text: Delimited) -> tuple[int, list[str]] | None:
    """The row of the right number of fields that CSV reads from line `start` on, and the line after it."""
    reader = csv.reader((lines[at] for at in range(start, len(lines))), delimiter=text.separator, strict=True)
    try:
        fields = next(reader)
    except csv.Error:
        return None
    return (start + reader.line_num, fields) if len(fields) == text.width else None


def _refuse_swallowed_rows(lines: Sequence[str], start: int, end: int, text: Delimited) -> None:
    whole = sum(_is_whole(line, text) for line in lines[start:end])
    if 3 * whole >= 2 * (end - start):
        raise _swallowed(start, end, text)


def _is_whole(line: str, text: Delimited) -> bool:
    return line.count(text.separator) + 1 == text.width


def _swallowed(start: int, end: int, text: Delimited) -> DataError:
    return DataError(
        f"{text.where(start)}: a quotation mark opens a field that ends on line {text.line_number(end - 1)}, and the "
        f"lines between look like rows of their own with {text.width} fields each. Expected a quotation to end on its "
        f"own line. {EITHER_WAY}"
    )
