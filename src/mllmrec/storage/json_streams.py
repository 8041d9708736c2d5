"""Long JSON files, read and written one record at a time, so that memory doesn't grow with their length.

A file is read in blocks, and a further block only where a record isn't whole yet. Where the parser's error lies before
the end of what was read, the record is broken and the rest of the file isn't read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from mllmrec.errors import DataError
from mllmrec.storage.workspace import replacing, require

BLOCK_CHARACTERS = 1 << 16
LONGEST_RECORD = 64 << 20
BROKEN_OFF = 16
"""How far before the end of a text that breaks off the parser may find it wrong: within a literal or an escape."""

_BLANKS = re.compile(r"[ \t\r\n]*")


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
    text = _Text(blocks)
    if text.next() != "[":
        raise ValueError("the file doesn't begin with [")
    text.at += 1
    at_start = True
    while (character := text.next()) != "]":
        if not at_start:
            if character != ",":
                raise ValueError("a comma or ] is missing" if character else "the file breaks off")
            text.at += 1
            text.next()
        at_start = False
        yield text.value()
    text.at += 1
    if text.next():
        raise ValueError("something follows the list")


class _Text:
    """A text that comes in blocks; `at` is the offset of the first character that isn't parsed yet."""

    def __init__(self, blocks: Iterator[str]) -> None:
        self._blocks, self._decoder = blocks, json.JSONDecoder()
        self._drawn, self.at = "", 0

    def next(self) -> str:
        """The character behind the blanks, where `at` moves; nothing at the end of the text."""
        while True:
            blanks = _BLANKS.match(self._drawn, self.at)
            self.at = blanks.end() if blanks is not None else self.at
            if self.at < len(self._drawn) or not self._draw():
                return self._drawn[self.at : self.at + 1]

    def value(self) -> Any:
        """The value that begins at `at`, drawn until it is whole; `at` moves behind it."""
        while True:
            try:
                value, end = self._decoder.raw_decode(self._drawn, self.at)
            except json.JSONDecodeError as error:
                if self._is_broken(error) or not self._draw():
                    raise ValueError(error.msg) from error
                continue
            if end < len(self._drawn) or not self._draw():
                self.at = end
                return value

    def _is_broken(self, error: json.JSONDecodeError) -> bool:
        """Whether more text would mend nothing."""
        return error.pos < len(self._drawn) - BROKEN_OFF and not error.msg.startswith("Unterminated string")

    def _draw(self) -> bool:
        """Draw as much again as is left, so that long records take no more than twice their time; False at the end."""
        left = self._drawn[self.at :]
        if len(left) > LONGEST_RECORD:
            raise ValueError(f"it is longer than {LONGEST_RECORD:,} characters")
        more = "".join(islice(self._blocks, 1 + len(left) // BLOCK_CHARACTERS))
        self._drawn, self.at = left + more, 0
        return bool(more)
