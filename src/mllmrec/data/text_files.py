"""Text files that others wrote: UTF-8, or an error that names the line."""

from __future__ import annotations

from pathlib import Path

from mllmrec.errors import DataError


def read_text(path: Path) -> str:
    """A UTF-8 text file, with or without a byte order mark; a DataError names the line of the first bad byte."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}:{number}: byte 0x{data[error.start]:02x} is not UTF-8. Expected UTF-8 text; if the file is "
            f"latin-1, convert it: iconv -f latin1 -t utf-8 {path.name}."
        ) from error
