"""Long JSON files, read and written one record at a time, so that memory doesn't grow with their length."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mllmrec.artifacts import replacing, require
from mllmrec.errors import DataError

BLOCK_CHARACTERS = 1 << 16
BLANK = " \t\r\n"


def read_list(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON list, whatever its formatting.

    Raises ArtifactError when the file is missing, and a DataError that names the record when it is no list, breaks
    off, isn't UTF-8 or holds anything but objects.
    """
    require(path, "A file of records", "Mend the path, or make the file again.")
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, value in enumerate(_values(iter(lambda: file.read(BLOCK_CHARACTERS), "")), 1):
                if not isinstance(value, dict):
                    raise DataError(f"{path}: record {number} is a {type(value).__name__}. Expected a JSON object.")
                yield value
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text after record {number}: {error}. Save it as UTF-8.") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: record {number + 1} can't be read ({error}). Expected a JSON list of objects. Write the file "
            "again."
        ) from error


def write_list(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write a JSON list, one record a line, and return how many."""
    return _write(path, "[", (_text(row) for row in rows), "]")


def write_object(path: Path, pairs: Iterable[tuple[str, Any]]) -> int:
    """Write a JSON object, one key a line, and return how many."""
    return _write(path, "{", (f"{_text(key)}: {_text(value)}" for key, value in pairs), "}")


def _write(path: Path, begin: str, lines: Iterable[str], end: str) -> int:
    count = 0
    with replacing(path) as file:
        file.write(begin)
        for line in lines:
            file.write(f"{',' if count else ''}\n{line}")
            count += 1
        file.write(f"\n{end}\n")
    return count


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _values(blocks: Iterator[str]) -> Iterator[Any]:
    """The values of a JSON list that comes in blocks of text. Raises ValueError where it isn't one."""
    decoder, text = json.JSONDecoder(), _skip(next(blocks, ""), blocks)
    if not text.startswith("["):
        raise ValueError("the file doesn't begin with [")
    text, at_start = _skip(text[1:], blocks), True
    while not text.startswith("]"):
        if not at_start:
            if not text.startswith(","):
                raise ValueError("a comma or ] is missing" if text else "the file breaks off")
            text = _skip(text[1:], blocks)
        value, text = _first_value(decoder, text, blocks)
        at_start = False
        yield value
        text = _skip(text, blocks)
    if _skip(text[1:], blocks):
        raise ValueError("something follows the list")


def _first_value(decoder: json.JSONDecoder, text: str, blocks: Iterator[str]) -> tuple[Any, str]:
    """The value that `text` begins with, drawing further blocks until it is whole, and what follows it."""
    while True:
        try:
            value, end = decoder.raw_decode(text)
        except json.JSONDecodeError:
            more = next(blocks, "")
            if not more:
                raise
            text += more
            continue
        if end == len(text) and (more := next(blocks, "")):
            text += more
            continue
        return value, text[end:]


def _skip(text: str, blocks: Iterator[str]) -> str:
    """`text` without blanks in front, and at least one character where there is one."""
    while not (text := text.lstrip(BLANK)):
        more = next(blocks, "")
        if not more:
            return ""
        text = more
    return text
