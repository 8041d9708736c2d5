"""The log of a long stage: one line a record, appended as it comes, and where each record lies.

    {"header": {"settings": ..., "inputs": ...}}
    {"key": "12", "usage": {"calls": 1}, "row": {...}}
    {"key": "13", "usage": {"calls": 1}, "failure": "truncated"}
    {"key": "14", "usage": {"calls": 1}, "again": "names its title"}

Reading a log takes in keys and places alone. A torn last line (its process was killed) is passed over, and cut off
before the log's owner appends. Of several records of one key the last counts, and what each of them took is summed.
"""

from __future__ import annotations

import glob
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Literal

from mllmrec.artifacts import partial, replacing
from mllmrec.errors import ArtifactError, DataError

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
        self.places: dict[str, tuple[int, int]] = {}
        self.failed: dict[str, str] = {}
        self.broken: dict[str, str] = {}
        self.usage: Counter[str] = Counter()
        self._logs: list[Path] = []
        self._file: IO[bytes] | None = None

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
            file.write(_line({"header": self.header}))
            file.write(_record("", "again", "what earlier starts took", usage))
            for key, row in rows:
                file.write(_record(key, "row", row, {}))
            for key, reason in failed.items():
                file.write(_record(key, "failure", reason, {}))
        self.read()

    def append(self, key: str, kind: Kind, value: Any, usage: Usage) -> None:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path not in self._paths():
                self.path.unlink(missing_ok=True)
            _cut_torn_line(self.path)
            self._file = self.path.open("ab", buffering=0)
            if self._file.tell() == 0:
                self._file.write(_line({"header": self.header}))
            if self.path not in self._logs:
                self._logs.append(self.path)
        offset = self._file.tell()
        self._file.write(_record(key, kind, value, usage))
        self._take(self._logs.index(self.path), offset, key, kind, value, usage)

    def rows(self, keys: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """(key, row) of the finished records in the order of `keys`, read back one at a time."""
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("rb")) for path in self._logs]
            for key in keys:
                if (place := self.places.get(key)) is not None:
                    index, offset = place
                    files[index].seek(offset)
                    yield key, _row(self._logs[index], files[index].readline())

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
        return [path for path in paths if not self.replacing or _first_line(path) == _line({"header": self.header})]

    def _take_logs(self) -> None:
        self._logs = self._paths()
        for index, path in enumerate(self._logs):
            self._read(index, path)

    def _read(self, index: int, path: Path) -> None:
        with path.open("rb") as file:
            first = file.readline()
            self._check_header(path, first)
            offset = len(first)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                match = _RECORD.match(line)
                if match is None:
                    raise DataError(f"{path}: the line at byte {offset} is no record. Remove the file and start again.")
                key, usage = json.loads((b"[%b,%b]" % (match[1], match[2])).decode())
                kind = match[3].decode()
                value = None if kind == "row" else json.loads(line[match.end() : -2])
                self._take(index, offset, key, kind, value, usage)
                offset += len(line)

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

    def _check_header(self, path: Path, line: bytes) -> None:
        try:
            found = json.loads(line)["header"]
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{path}:1: expected the header of a working log. Remove the file and start again."
            ) from None
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


def log_paths(artifact: Path) -> list[Path]:
    """The logs of all processes on one artifact, in the order of their ranks."""
    first = partial(artifact)
    others = sorted(first.parent.glob(f"{artifact.name}.partial.*.jsonl"))
    return [path for path in (first, *others) if path.exists()]


def _first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline()


def _path(artifact: Path, rank: int) -> Path:
    return partial(artifact) if rank == 0 else artifact.with_name(f"{artifact.name}.partial.{rank:04d}.jsonl")


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _record(key: str, kind: Kind, value: Any, usage: Usage) -> bytes:
    return _line({"key": key, "usage": dict(usage), kind: value})


def _row(path: Path, line: bytes) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(line)["row"]
    except (ValueError, KeyError) as error:
        raise DataError(f"{path}: a record can't be read back ({error}). Remove the file and start again.") from error
    return row


def _cut_torn_line(path: Path) -> None:
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
