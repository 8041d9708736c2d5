"""The lines of working logs: appended whole, each with a checksum, and passed over when they can't be read back.

    {"crc":"8f14e45f","key":"12","usage":{"calls":1},"row":{...}}

A process may be killed while it writes, a disk may be full, and after a power cut a file may hold zeros where a line
was. So a line counts only when it is whole and its checksum, the CRC-32 of the line without it, is right. What doesn't
count is lost alone: the lines around it stay, and whoever reads the log does the lost work again. Lines of earlier
versions have no checksum and count when they are JSON objects.
"""

from __future__ import annotations

import json
import os
import re
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mllmrec.progress import note

SYNC_SECONDS = 1.0
"""How much work a power cut may cost beyond what a killed process loses."""

_STAMP = re.compile(rb'\{"crc":"([0-9a-f]{8})",')


def stamped(value: Mapping[str, Any], seed: int = 0) -> bytes:
    """The line of a value. `seed` ties it to something that readers must know too, such as the log's header.

    >>> stamped({"key": "12"})
    b'{"crc":"c4b28d39","key":"12"}\\n'
    """
    plain = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    return b'{"crc":"%08x",' % zlib.crc32(plain, seed) + plain[1:]


def intact(line: bytes, seed: int = 0) -> bytes | None:
    """The line without its checksum; None when it is torn or damaged, or was written with another seed.

    >>> intact(stamped({"key": "12"}))
    b'{"key":"12"}\\n'
    >>> intact(stamped({"key": "12"}).replace(b"1", b"3")), intact(stamped({"key": "12"}, seed=5))
    (None, None)
    """
    if not line.endswith(b"\n"):
        return None
    if (stamp := _STAMP.match(line)) is not None:
        plain = b"{" + line[stamp.end() :]
        return plain if zlib.crc32(plain, seed) == int(stamp[1], 16) else None
    try:
        return line if isinstance(json.loads(line), dict) else None
    except (ValueError, RecursionError):
        return None


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of every line that has an end; the last one may still be in the making.

    Zeros before a line are what a power cut left of others.
    """
    offset = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                content = line.lstrip(b"\0")
                yield offset + len(line) - len(content), content
            offset += len(line)


def tell_dropped(path: Path, count: int) -> None:
    if count:
        lines = "1 line" if count == 1 else f"{count} lines"
        note(f"{path}: {lines} can't be read back; what they held counts for nothing and is done again.")


class LogFile:
    """A log that this process alone appends to; a torn last line is cut off on opening."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        cut_torn_line(path)
        self.path = path
        self._file = path.open("ab", buffering=0)
        self._synced = time.monotonic()

    def end(self) -> int:
        """The offset of the line that comes next."""
        return os.fstat(self._file.fileno()).st_size

    def append(self, line: bytes) -> None:
        """Write the whole line, or nothing of it."""
        begin, left = self.end(), memoryview(line)
        try:
            while left:
                left = left[self._file.write(left) :]
        except BaseException as error:
            with suppress(OSError):
                self._file.truncate(begin)
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(self.path)
            raise
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self._sync()

    def close(self) -> None:
        if not self._file.closed:
            self._sync()
            self._file.close()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


class RecordLog:
    """A working log of keyed records, appended as they come, so that a crash costs one of them.

    Records of the same key replace earlier ones in what `rows` returns.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self._rows = {row[key]: row for row in read_records(path, key)} if path.exists() else {}
        self._file = LogFile(path)

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self) -> dict[str, dict[str, Any]]:
        return self._rows

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        for row in rows:
            self._file.append(stamped(row))
            self._rows[row[self.key]] = row

    def close(self, *, delete: bool = False) -> None:
        self._file.close()
        if delete:
            self.path.unlink(missing_ok=True)


def read_records(path: Path, key: str) -> Iterator[dict[str, Any]]:
    """The records that can be read back and have a `key`, in the order of the file; the others are counted and told."""
    dropped = 0
    for _, line in read_lines(path):
        plain = intact(line)
        row = json.loads(plain) if plain is not None else {}
        if key in row:
            yield row
        else:
            dropped += 1
    tell_dropped(path, dropped)


def cut_torn_line(path: Path) -> None:
    """Drop what stands behind the last line end, looking from the end of the file."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        end = file.seek(0, 2)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            place = file.read(end - start).rfind(b"\n")
            if place >= 0:
                file.truncate(start + place + 1)
                return
            end = start
        file.truncate(0)
