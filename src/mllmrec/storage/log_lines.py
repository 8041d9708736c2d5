"""The files of working logs and their lines: appended whole, each with a checksum, skipped when damaged.

    {"crc":"8f14e45f","key":"12","usage":{"calls":1},"row":{...}}

A process may be killed while it writes, a disk may be full, and after a power cut a file may hold zeros where a line
was. So a line counts only when it is whole and its checksum, the CRC-32 of the line without it, is right. A damaged
line is lost alone: the lines around it count, and the stage that reads the log does the lost work again. Lines of
earlier versions have no checksum and count when they are JSON objects.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mllmrec.progress import note
from mllmrec.storage.workspace import partial

SYNC_SECONDS = 1.0
"""How much work a power cut may cost beyond what a killed process loses."""

_STAMP = re.compile(rb'\{"crc":"([0-9a-f]{8})",')
_RECORD = re.compile(rb'\{"key":("(?:[^"\\]|\\.)*"),"usage":(\{[^{}]*\}),"(row|failure|again)":')

Usage = Mapping[str, float]
"""What a record took, by name: calls, tokens, seconds."""
Kind = Literal["row", "failure", "again"]


class Record(NamedTuple):
    """One record of a long stage: a finished row, the reason of a failure, or the rule that an answer broke.

    `content` is JSON that isn't decoded yet: a reader of keys and offsets never decodes the rows.
    """

    key: str
    usage: Usage
    kind: Kind
    content: bytes

    def value(self) -> Any:
        return json.loads(self.content)


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


def record_line(key: str, usage: Usage, kind: Kind, value: Any, seed: int = 0) -> bytes:
    """The line of a record.

    >>> record_line("12", {"calls": 1}, "row", {"text": "red"})
    b'{"crc":"189d81af","key":"12","usage":{"calls":1},"row":{"text":"red"}}\\n'
    """
    return stamped({"key": key, "usage": dict(usage), kind: value}, seed)


def read_record(line: bytes, seed: int = 0) -> Record | None:
    """The record of a line; None when the line can't be read back with this seed or is no record.

    >>> read_record(record_line("12", {"calls": 1}, "failure", "truncated"))
    Record(key='12', usage={'calls': 1}, kind='failure', content=b'"truncated"')
    >>> read_record(stamped({"step": 3})) is None
    True
    """
    plain = intact(line, seed)
    match = _RECORD.match(plain) if plain is not None else None
    if plain is None or match is None:
        return None
    key, usage, kind = match.groups()
    kinds: dict[bytes, Kind] = {b"row": "row", b"failure": "failure", b"again": "again"}
    return Record(json.loads(key), json.loads(usage), kinds[kind], plain[match.end() : -2])


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


def read_records(path: Path, key: str) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file that can be read back and have a `key`; a note says how many lines can't."""
    dropped = 0
    for _, line in read_lines(path):
        plain = intact(line)
        row = json.loads(plain) if plain is not None else {}
        if key in row:
            yield row
        else:
            dropped += 1
    note_dropped(path, dropped)


def records_in(path: Path, seed: int, with_header: bool) -> Iterator[tuple[int, Record | None]]:
    """(offset, record) of the lines behind the header, None for a line that can't be read back.

    Without a header only lines whose checksum is tied to it count. A log that is gone, because another process has
    joined what it held, holds nothing.
    """
    with suppress(FileNotFoundError):
        for number, (offset, line) in enumerate(read_lines(path)):
            if number == 0 and with_header:
                continue
            counts = with_header or line.startswith(b'{"crc":')
            yield offset, read_record(line, seed) if counts else None


def header_of(settings: Mapping[str, Any], inputs: Mapping[str, str]) -> dict[str, Any]:
    """The header of a log: all that decides what its records hold."""
    return {"settings": dict(settings), "inputs": dict(inputs)}


def header_in(path: Path) -> dict[str, Any] | None:
    """The header of a log; None where it is torn or damaged, or the log is gone."""
    try:
        with path.open("rb") as file:
            plain = intact(file.readline())
    except FileNotFoundError:
        return None
    header = json.loads(plain).get("header") if plain is not None else None
    return header if isinstance(header, dict) else None


def differing(header: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names of the settings and inputs in which two headers differ."""
    return [
        name
        for part in ("settings", "inputs")
        for name in sorted(header[part].keys() | other.get(part, {}).keys())
        if header[part].get(name) != other.get(part, {}).get(name)
    ]


def seed_of(header: Mapping[str, Any]) -> int:
    """What ties the checksums of a log's records to its header."""
    return zlib.crc32(json.dumps(header, sort_keys=True).encode())


def log_of_its_own(artifact: Path, header: Mapping[str, Any]) -> Path:
    """What the logs of an artifact are named after where work of other settings or inputs isn't refused but left alone.

    >>> log_of_its_own(Path("RUN/rankings"), header_of({"score": "id"}, {"titles": "8f14"})).as_posix()
    'RUN/rankings.e9cfac1ffe7a'
    """
    digest = hashlib.sha256(json.dumps([header["settings"], header["inputs"]], sort_keys=True).encode()).hexdigest()
    return artifact.with_name(f"{artifact.name}.{digest[:12]}")


def log_paths(artifact: Path) -> list[Path]:
    """The logs of all processes on one artifact, in the order of their shares, those of earlier versions included."""
    name = re.escape(artifact.name)
    pattern = re.compile(rf"{name}(?:\.(\d+)\.partial|\.partial\.(\d+))\.jsonl")
    others = [
        (int(match[1] or match[2]), path)
        for path in artifact.parent.glob(f"{glob.escape(artifact.name)}.*.jsonl")
        if (match := pattern.fullmatch(path.name)) is not None
    ]
    first = partial(artifact)
    return [path for path in (first, *(path for _, path in sorted(others))) if path.exists()]


def logged_rows(artifact: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, row) of all that interrupted starts have finished, whatever their settings and inputs were."""
    for path in log_paths(artifact):
        if (header := header_in(path)) is not None:
            for _, record in records_in(path, seed_of(header), True):
                if record is not None and record.kind == "row":
                    yield record.key, record.value()


def of_share(artifact: Path, index: int) -> Path:
    """What a process's log and lock are named after."""
    return artifact if index == 0 else artifact.with_name(f"{artifact.name}.{index}")


def note_dropped(path: Path, count: int) -> None:
    """Say how many lines of a log can't be read back; nothing when all can."""
    if count:
        lines = "1 line" if count == 1 else f"{count} lines"
        note(f"{path}: {lines} can't be read back; what they held counts for nothing and is done again.")


def cut_torn_line(path: Path) -> None:
    """Drop what stands behind the last line end, looking from the end of the file."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        end = file.seek(0, 2)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            line_end = file.read(end - start).rfind(b"\n")
            if line_end >= 0:
                file.truncate(start + line_end + 1)
                return
            end = start
        file.truncate(0)
