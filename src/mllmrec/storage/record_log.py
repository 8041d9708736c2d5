"""Long stages over keyed records: what is done, what failed, who is at it.

Each record is appended to `<artifact>.partial.jsonl` as it finishes, with what it took, so that a crash costs one batch
and a second start goes on behind it. When all is done the artifact is written in the order of its keys, whatever the
order of finishing, then the manifest, and the log goes. Only keys and places in the log are held in memory, never the
records. Under a launcher every process has a log of its own and takes every n-th key; the first one writes the
artifact.

The log of a long stage: one line a record, appended as it comes, and where each record lies.

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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from mllmrec.errors import ArtifactError, BackendError, DataError
from mllmrec.launch import joined, meet, rank_and_size
from mllmrec.settings.base import StageSettings
from mllmrec.settings.texts import LongStageSettings
from mllmrec.storage.locks import locked
from mllmrec.storage.log_lines import LogFile, intact, read_lines, stamped, tell_dropped
from mllmrec.storage.manifests import Manifest, finished, unmark, write_manifest
from mllmrec.storage.workspace import partial, replacing

Recall = Callable[[], Iterable[tuple[str, Mapping[str, Any]]]]
NOTHING: Usage = {}

Usage = Mapping[str, float]
Kind = Literal["row", "failure", "again"]

_RECORD = re.compile(rb'\{"key":("(?:[^"\\]|\\.)*"),"usage":(\{[^{}]*\}),"(row|failure|again)":')


class Work:
    """The records of one long stage; made by [`open_work`][mllmrec.storage.record_log.open_work]."""

    def __init__(
        self,
        artifact: Path,
        settings: StageSettings,
        inputs: Mapping[str, str],
        before: Manifest | None,
        recall: Recall,
    ) -> None:
        self.artifact, self.settings, self.inputs = artifact, settings, dict(inputs)
        self.rank, self.size = rank_and_size()
        self._before, self._recall = before, recall
        long = settings if isinstance(settings, LongStageSettings) else None
        self._retry_failed, self._max_failure_share = (
            (long.retry_failed, long.max_failure_share) if long else (True, 0.0)
        )
        header = {"settings": settings.result_settings(), "inputs": dict(inputs)}
        self.log = WorkLog(artifact, self.rank, header, replacing=settings.overwrite)
        if before is not None and not partial(artifact).exists():
            details = before.details
            self.log.remember((key for key, _ in recall()), details.get("failures", {}), details.get("usage", {}))
        else:
            self.log.read()

    @property
    def usage(self) -> Counter[str]:
        """What all records took together, those of earlier starts and failed attempts included."""
        return self.log.usage

    def todo(self, keys: Sequence[str]) -> list[str]:
        """The keys of this process that have no record yet; failed ones only with --retry-failed."""
        return self._left(keys[self.rank :: self.size])

    def nothing_to_do(self, keys: Sequence[str]) -> bool:
        """Whether the artifact was finished before and nothing of `keys` is left to any process."""
        return self._before is not None and not self.log.exists() and not self._left(keys)

    def done(self, key: str, row: Mapping[str, Any], usage: Usage = NOTHING) -> None:
        """Append a finished record."""
        self._append(key, "row", row, usage)

    def failed(self, key: str, reason: str, usage: Usage = NOTHING) -> None:
        """Append a failure; `reason` is a few words that failures can be counted by."""
        self._append(key, "failure", reason, usage)

    def again(self, key: str, reason: str, usage: Usage = NOTHING) -> None:
        """Append that an answer broke a rule and will be asked for once more."""
        self._append(key, "again", reason, usage)

    def reason_again(self, key: str) -> str | None:
        """The rule that the first answer of `key` broke, when there is one and no record yet."""
        return self.log.broken.get(key)

    def rows(self, keys: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """(key, row) of the finished records in the order of `keys`, read back one at a time."""
        return self.log.rows(keys)

    def failures(self, keys: Iterable[str]) -> dict[str, str]:
        """key -> reason of the failed records, in the order of `keys`."""
        return {key: self.log.failed[key] for key in keys if key in self.log.failed}

    def complete(
        self,
        keys: Sequence[str],
        write: Callable[[Iterator[tuple[str, dict[str, Any]]]], object],
        *,
        started: float,
        counts: Mapping[str, Any] | None = None,
        details: Mapping[str, Any] | None = None,
        known: Sequence[str] = (),
    ) -> Manifest | None:
        """Write the artifact from the records of all processes, then its manifest; None for all but the first one.

        `write` takes the finished (key, row) pairs in the order of `known`: all keys that there are, of which a --limit
        takes the first. Records that a larger --limit made before are written too; those of no known key are dropped.
        Without `known` such records stand at the end. Raises ArtifactError when a key has no record because a process
        of the launch has died, and BackendError when more than --max-failure-share of them failed; the records are
        kept then.
        """
        meet()
        if self.rank:
            return None
        self._materialise()
        self.log.read()
        asked, found = set(keys), self.log.places.keys() | self.log.failed.keys()
        order = known or [*keys, *(key for key in (*self.log.places, *self.log.failed) if key not in asked)]
        keys = [key for key in order if key in asked or key in found]
        failures = self.failures(keys)
        self._check(keys, failures)
        unmark(self.artifact)
        write(self.rows(keys))
        manifest = write_manifest(
            self.artifact,
            self.settings,
            self.inputs,
            started=started,
            counts={**_counts(keys, failures), **(counts or {})},
            details={"usage": dict(self.usage), "failures": failures, **(details or {})},
        )
        self.log.remove()
        return manifest

    def _left(self, keys: Sequence[str]) -> list[str]:
        done, failed, retry = self.log.places, self.log.failed, self._retry_failed
        return [key for key in keys if key not in done and (retry or key not in failed)]

    def _append(self, key: str, kind: Kind, value: Any, usage: Usage) -> None:
        self._materialise()
        self.log.append(key, kind, value, usage)

    def _materialise(self) -> None:
        """Turn a finished artifact that is being extended back into a log."""
        if self._before is not None and not self.log.path.exists() and self.rank == 0:
            details = self._before.details
            self.log.restore(self._recall(), details.get("failures", {}), details.get("usage", {}))

    def _check(self, keys: Sequence[str], failures: Mapping[str, str]) -> None:
        missing = [key for key in keys if key not in self.log.places and key not in failures]
        if missing:
            raise ArtifactError(
                f"{self.artifact} lacks {len(missing)} of {len(keys)} records (first: {missing[0]}). What is done is "
                "kept; start the same command again."
            )
        if len(failures) > self._max_failure_share * len(keys):
            reasons = ", ".join(f"{reason} ({count})" for reason, count in Counter(failures.values()).most_common(5))
            raise BackendError(
                f"{self.artifact}: {len(failures)} of {len(keys)} records failed: {reasons}. Expected at most a share "
                f"of {self._max_failure_share:g}. What is done is kept: mend the cause and go on with "
                "--retry-failed, or accept it with a larger --max-failure-share."
            )


@contextmanager
def open_work(artifact: Path, settings: StageSettings, inputs: Mapping[str, str], recall: Recall) -> Iterator[Work]:
    """Take the artifact's lock and the records that there are.

    `recall` yields the (key, row) pairs of the artifact when it is finished, so that a larger --limit or
    --retry-failed extends it. Raises ArtifactError when another process is at it, or when the artifact or its log was
    made with other settings or inputs, or by somebody else, and --overwrite wasn't given.
    """
    rank, _ = rank_and_size()
    with locked(artifact if rank == 0 else artifact.with_name(f"{artifact.name}.{rank}")):
        before = _prepare(artifact, settings, inputs)
        with joined():
            work = Work(artifact, settings, inputs, before, recall)
            try:
                yield work
            finally:
                work.log.close()


def keys_left(
    artifact: Path, settings: StageSettings, inputs: Mapping[str, str], recall: Recall, keys: Sequence[str]
) -> list[str]:
    """The keys that a start would work on, without starting: another process may be at it meanwhile."""
    return Work(artifact, settings, inputs, _prepare(artifact, settings, inputs), recall).todo(keys)


def _prepare(artifact: Path, settings: StageSettings, inputs: Mapping[str, str]) -> Manifest | None:
    """The manifest of the artifact when these settings and inputs finished it; None when it is to be made.

    With --overwrite nothing goes before there is something in its place.
    """
    if not settings.overwrite and artifact.exists() and Manifest.read(artifact) is None and not log_paths(artifact):
        raise ArtifactError(
            f"{artifact} is there and `mllmrec {settings.verb}` didn't make it: it has no manifest. Expected no such "
            "file. Move it away, or replace it with --overwrite."
        )
    return finished(artifact, settings, inputs)


def _counts(keys: Sequence[str], failures: Mapping[str, str]) -> dict[str, Any]:
    counts: dict[str, Any] = {"in": len(keys), "done": len(keys) - len(failures), "failed": len(failures)}
    if failures:
        counts["failed_by_reason"] = dict(Counter(failures.values()).most_common())
    return counts


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
