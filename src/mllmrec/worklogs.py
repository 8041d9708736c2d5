"""The log of a long stage: one line a record, appended as it comes, and where each record lies.

    {"crc": ..., "header": {"settings": ..., "inputs": ...}}
    {"crc": ..., "key": "12", "usage": {"calls": 1}, "row": {...}}
    {"crc": ..., "key": "13", "usage": {"calls": 1}, "failure": "truncated"}
    {"crc": ..., "key": "14", "usage": {"calls": 1}, "again": "names its title"}

Reading a log takes in keys and places alone. Lines that can't be read back are passed over, counted and told; what they
held is asked for again. A record's checksum is tied to the header, so that records stay known for what they are where
the header itself is lost. Of several records of one key the last counts, and what each of them took is summed.
"""

from __future__ import annotations

import glob
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from mllmrec.artifacts import partial, replacing
from mllmrec.errors import ArtifactError, DataError
from mllmrec.loglines import LogFile, intact, read_lines, stamped, tell_dropped

Usage = Mapping[str, float]
Kind = Literal["row", "failure", "again"]

_RECORD = re.compile(rb'\{"key":("(?:[^"\\]|\\.)*"),"usage":(\{[^{}]*\}),"(row|failure|again)":')


class WorkLog:
    """The logs of all processes that work on one artifact; this process appends to the one of its rank.

    `places` maps the key of each finished record to (log, offset), `failed` to its reason, and `broken` the key of an
    answer that is to be asked for again to the rule it broke. With `replacing`, logs of other settings or inputs are
    as if they weren't there, and go when the first record comes.
    """

    def __init__(self, artifact: Path, rank: int, header: Mapping[str, Any], *, replacing: bool = False) -> None:
        self.artifact, self.header, self.replacing = artifact, dict(header), replacing
        self.path = _path(artifact, rank)
        self._seed = zlib.crc32(json.dumps(self.header, sort_keys=True).encode())
        self.places: dict[str, tuple[int, int]] = {}
        self.failed: dict[str, str] = {}
        self.broken: dict[str, str] = {}
        self.usage: Counter[str] = Counter()
        self._logs: list[Path] = []
        self._dropped: dict[Path, int] = {}
        self._file: LogFile | None = None

    def exists(self) -> bool:
        return bool(self._paths())

    def read(self) -> None:
        """Take in all logs. Raises ArtifactError when one was made with other settings or inputs."""
        self.places, self.failed, self.broken, self.usage = {}, {}, {}, Counter()
        self._take_logs()

    def remember(self, keys: Iterable[str], failed: Mapping[str, str], usage: Usage) -> None:
        """Take in the keys of a finished artifact, whose records lie in no log, what they took, and all logs since."""
        self.places, self.failed, self.broken = dict.fromkeys(keys, (-1, 0)), dict(failed), {}
        self.usage = Counter()
        totals: dict[str, Any] = self.usage
        totals.update(usage)
        self._take_logs()

    def restore(self, rows: Iterable[tuple[str, Mapping[str, Any]]], failed: Mapping[str, str], usage: Usage) -> None:
        """Write the log of a finished artifact anew, so that it can be extended."""
        with replacing(self.path, "wb") as file:
            file.write(stamped({"header": self.header}))
            file.write(self._record("", "again", "what earlier starts took", usage))
            for key, row in rows:
                file.write(self._record(key, "row", row, {}))
            for key, reason in failed.items():
                file.write(self._record(key, "failure", reason, {}))
        self.read()

    def append(self, key: str, kind: Kind, value: Any, usage: Usage) -> None:
        if self._file is None:
            if self.path not in self._paths():
                self.path.unlink(missing_ok=True)
            self._file = LogFile(self.path)
            if self._file.end() == 0:
                self._file.append(stamped({"header": self.header}))
            if self.path not in self._logs:
                self._logs.append(self.path)
        offset = self._file.end()
        self._file.append(self._record(key, kind, value, usage))
        self._take(self._logs.index(self.path), offset, key, kind, value, usage)

    def rows(self, keys: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """(key, row) of the finished records in the order of `keys`, read back one at a time."""
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("rb")) for path in self._logs]
            for key in keys:
                if (place := self.places.get(key)) is not None:
                    index, offset = place
                    files[index].seek(offset)
                    yield key, self._row(self._logs[index], files[index].readline())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Drop the logs, and drafts of the artifact or its manifest that a killed process left."""
        self.close()
        drafts = self.artifact.parent.glob(f".{glob.escape(self.artifact.name)}*.tmp")
        for path in (*log_paths(self.artifact), *drafts):
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        paths = log_paths(self.artifact)
        return [path for path in paths if not self.replacing or _header(path) == self.header]

    def _take_logs(self) -> None:
        self._logs = self._paths()
        for index, path in enumerate(self._logs):
            self._read(index, path)

    def _read(self, index: int, path: Path) -> None:
        header = _header(path)
        if header is not None:
            self._check_header(path, header)
        dropped = 0
        for number, (offset, line) in enumerate(read_lines(path)):
            if number == 0 and header is not None:
                continue
            plain = intact(line, self._seed) if header is not None or line.startswith(b'{"crc":') else None
            match = _RECORD.match(plain) if plain is not None else None
            if plain is None or match is None:
                dropped += 1
                continue
            key, usage = json.loads((b"[%b,%b]" % (match[1], match[2])).decode())
            kind = match[3].decode()
            value = None if kind == "row" else json.loads(plain[match.end() : -2])
            self._take(index, offset, key, kind, value, usage)
        if self._dropped.get(path, 0) != dropped:
            self._dropped[path] = dropped
            tell_dropped(path, dropped)

    def _take(self, index: int, offset: int, key: str, kind: str, value: Any, usage: Usage) -> None:
        totals: dict[str, Any] = self.usage
        for name, amount in usage.items():
            totals[name] = totals.get(name, 0) + amount
        if not key:
            return
        for table in (self.places, self.failed, self.broken):
            table.pop(key, None)
        if kind == "row":
            self.places[key] = (index, offset)
        else:
            (self.failed if kind == "failure" else self.broken)[key] = value

    def _check_header(self, path: Path, found: Mapping[str, Any]) -> None:
        if found != self.header:
            names = [
                name
                for part in ("settings", "inputs")
                for name in sorted(found.get(part, {}).keys() | self.header[part].keys())
                if found.get(part, {}).get(name) != self.header[part].get(name)
            ]
            raise ArtifactError(
                f"{path} holds the work of an interrupted start that differs in {', '.join(names)}. Expected the same "
                "settings and inputs. Give the same ones to go on, or drop what was done with --overwrite."
            )

    def _record(self, key: str, kind: Kind, value: Any, usage: Usage) -> bytes:
        return stamped({"key": key, "usage": dict(usage), kind: value}, self._seed)

    def _row(self, path: Path, line: bytes) -> dict[str, Any]:
        plain = intact(line, self._seed)
        if plain is None:
            raise DataError(
                f"{path}: a record that was read before can't be read again. Expected that nobody else writes to the "
                "file. Start the same command again: it asks anew for what is lost."
            )
        row: dict[str, Any] = json.loads(plain)["row"]
        return row


def log_paths(artifact: Path) -> list[Path]:
    """The logs of all processes on one artifact, in the order of their ranks."""
    first = partial(artifact)
    others = sorted(first.parent.glob(f"{artifact.name}.partial.*.jsonl"))
    return [path for path in (first, *others) if path.exists()]


def _header(path: Path) -> dict[str, Any] | None:
    """The header of a log; None where it is torn or damaged."""
    with path.open("rb") as file:
        plain = intact(file.readline())
    header = json.loads(plain).get("header") if plain is not None else None
    return header if isinstance(header, dict) else None


def _path(artifact: Path, rank: int) -> Path:
    return partial(artifact) if rank == 0 else artifact.with_name(f"{artifact.name}.partial.{rank:04d}.jsonl")
