"""The one working log: how long stages append their records, resume after an interruption and join processes.

    {"crc": ..., "header": {"settings": ..., "inputs": ...}}
    {"crc": ..., "key": "12", "usage": {"calls": 1}, "row": {...}}
    {"crc": ..., "key": "13", "usage": {"calls": 1}, "failure": "truncated"}
    {"crc": ..., "key": "14", "usage": {"calls": 1}, "again": "names its title"}

Each record is appended as it finishes, with what it took, so that a crash costs one record or batch and the next start
goes on from there. A record is whatever the stage chooses: a caption, a trace, a chunk of ranked users. Every process
has a log of its own, `<artifact>.partial.jsonl` or `<artifact>.<share>.partial.jsonl`, and works on every n-th key;
whoever joins them reads the logs of all. Only keys and the offsets of records are held in memory, never the rows.

A log belongs to the settings and inputs of its header. The checksum of each record is tied to that header, so that a
record is never taken for one of other settings, even where the header itself is lost. Lines that can't be read back are
skipped, counted and done again. Of several records of one key the last counts; usage is summed over all of them.

`RecordLog` is the log itself. `Work` is a stage that writes one artifact from its log, in the order of its keys and
with a manifest, and that can extend the finished artifact later.
"""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from mllmrec.errors import ArtifactError, BackendError, DataError
from mllmrec.launch import WorkShare, joined, meet
from mllmrec.settings.base import StageSettings
from mllmrec.settings.texts import LongStageSettings
from mllmrec.storage.locks import locked
from mllmrec.storage.log_lines import (
    Kind,
    LogFile,
    Record,
    Usage,
    differing,
    header_in,
    header_of,
    log_paths,
    note_dropped,
    of_share,
    read_record,
    record_line,
    records_in,
    seed_of,
    stamped,
)
from mllmrec.storage.manifests import Manifest, finished, unmark, write_manifest
from mllmrec.storage.workspace import partial, replacing

Rows = Iterable[tuple[str, Mapping[str, Any]]]
Recall = Callable[[], Rows]
NO_USAGE: Usage = {}


class Work:
    """The records of a stage that writes one artifact; made by [`open_work`][mllmrec.storage.record_log.open_work]."""

    def __init__(
        self, log: RecordLog, artifact: Path, settings: StageSettings, inputs: Mapping[str, str], recall: Recall
    ) -> None:
        self.artifact, self.settings, self.inputs, self.log = artifact, settings, dict(inputs), log
        self.size = log.share.count
        self._before, self._recall = _finished(artifact, settings, inputs), recall
        long = settings if isinstance(settings, LongStageSettings) else None
        self._retry_failed, self._max_failure_share = (
            (long.retry_failed, long.max_failure_share) if long else (True, 0.0)
        )
        if self._before is not None and not partial(artifact).exists():
            details = self._before.details
            log.remember((key for key, _ in recall()), details.get("failures", {}), details.get("usage", {}))
        else:
            log.read()

    @property
    def usage(self) -> Counter[str]:
        """What all records took together, those of earlier starts and failed attempts included."""
        return self.log.usage

    def todo(self, keys: Sequence[str]) -> list[str]:
        """The keys of this process that have no record yet; failed ones only with --retry-failed."""
        return self.log.todo(keys, retry_failed=self._retry_failed)

    def nothing_to_do(self, keys: Sequence[str]) -> bool:
        """Whether the artifact was finished before and nothing of `keys` is left to any process."""
        left = self.log.left(keys, retry_failed=self._retry_failed)
        return self._before is not None and not self.log.exists() and not left

    def done(self, key: str, row: Mapping[str, Any], usage: Usage = NO_USAGE) -> None:
        """Append a finished record."""
        self._append(key, "row", row, usage)

    def failed(self, key: str, reason: str, usage: Usage = NO_USAGE) -> None:
        """Append a failure; `reason` is a few words that failures can be counted by."""
        self._append(key, "failure", reason, usage)

    def again(self, key: str, reason: str, usage: Usage = NO_USAGE) -> None:
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
        if self.log.share.index:
            return None
        self._materialise()
        self.log.read()
        asked, recorded = set(keys), self.log.recorded()
        order = known or [*keys, *(key for key in recorded if key not in asked)]
        keys = [key for key in order if key in asked or key in recorded]
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

    def _append(self, key: str, kind: Kind, value: Any, usage: Usage) -> None:
        self._materialise()
        self.log.append(key, kind, value, usage)

    def _materialise(self) -> None:
        """Turn a finished artifact that is being extended back into a log."""
        if self._before is not None and not self.log.path.exists() and self.log.share.index == 0:
            details = self._before.details
            self.log.restore(self._recall(), details.get("failures", {}), details.get("usage", {}))

    def _check(self, keys: Sequence[str], failures: Mapping[str, str]) -> None:
        if missing := self.log.left(keys, retry_failed=False):
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
    header = header_of(settings.result_settings(), inputs)
    with open_log(artifact, header, WorkShare.of(), replacing=settings.overwrite) as log:
        yield Work(log, artifact, settings, inputs, recall)


def keys_left(
    artifact: Path, settings: StageSettings, inputs: Mapping[str, str], recall: Recall, keys: Sequence[str]
) -> list[str]:
    """The keys that a start would work on, without starting: another process may be at it meanwhile."""
    header = header_of(settings.result_settings(), inputs)
    log = RecordLog(artifact, header, WorkShare.of(), replacing=settings.overwrite)
    return Work(log, artifact, settings, inputs, recall).todo(keys)


def _finished(artifact: Path, settings: StageSettings, inputs: Mapping[str, str]) -> Manifest | None:
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


class RecordLog:
    """The logs of all processes that work on one artifact; this process appends to the one of its share.

    `failed` maps the key of a failed record to its reason, `broken` the key of an answer that is to be asked for again
    to the rule it broke, and `usage` sums what all records took. Nothing is read before `read` or `remember`. With
    `replacing`, logs of other settings or inputs are as if they weren't there, and go when the first record comes.
    """

    def __init__(
        self, artifact: Path, header: Mapping[str, Any], share: WorkShare | None = None, *, replacing: bool = False
    ) -> None:
        self.artifact, self.header, self.share, self.replacing = artifact, dict(header), share or WorkShare(), replacing
        self.path = partial(of_share(artifact, self.share.index))
        self._seed = seed_of(self.header)
        self._logs: list[Path] = []
        self._dropped: dict[Path, int] = {}
        self._file: LogFile | None = None
        self._clear()

    def exists(self) -> bool:
        """Whether there is a log of any process."""
        return bool(self._paths())

    def read(self) -> None:
        """Take in all logs. Raises ArtifactError when one was made with other settings or inputs."""
        self._clear()
        self._take_logs()

    def remember(self, keys: Iterable[str], failed: Mapping[str, str], usage: Usage) -> None:
        """Take in the keys of a finished artifact, whose records lie in no log, what they took, and all logs since."""
        self._clear()
        self._offsets.update(dict.fromkeys(keys, (-1, 0)))
        self.failed.update(failed)
        self._count(usage)
        self._take_logs()

    def restore(self, rows: Rows, failed: Mapping[str, str], usage: Usage) -> None:
        """Write the log of a finished artifact anew, so that it can be extended."""
        with replacing(self.path, "wb") as file:
            file.write(stamped({"header": self.header}))
            file.write(record_line("", usage, "again", "what earlier starts took", self._seed))
            for key, row in rows:
                file.write(record_line(key, {}, "row", row, self._seed))
            for key, reason in failed.items():
                file.write(record_line(key, {}, "failure", reason, self._seed))
        self.read()

    def recorded(self) -> dict[str, None]:
        """The keys that have a finished or a failed record, finished ones first, in the order of the logs."""
        return dict.fromkeys((*self._offsets, *self.failed))

    def left(self, keys: Iterable[str], *, retry_failed: bool = True) -> list[str]:
        """Those of `keys` that no process has finished; failed ones among them with `retry_failed`."""
        return [key for key in keys if key not in self._offsets and (retry_failed or key not in self.failed)]

    def todo(self, keys: Sequence[str], *, retry_failed: bool = True) -> list[str]:
        """Those of `keys` that are left to this process."""
        return self.left(self.share.take(keys), retry_failed=retry_failed)

    def append(self, key: str, kind: Kind, value: Any, usage: Usage = NO_USAGE) -> None:
        """Append one record to the log of this process; it is on the disk when this returns, but for a power cut."""
        if self._file is None:
            if self.path not in self._paths():
                self.path.unlink(missing_ok=True)
            self._file = LogFile(self.path)
            if self._file.end() == 0:
                self._file.append(stamped({"header": self.header}))
            if self.path not in self._logs:
                self._logs.append(self.path)
        offset, line = self._file.end(), record_line(key, usage, kind, value, self._seed)
        self._file.append(line)
        self._take(self._logs.index(self.path), offset, Record(key, usage, kind, b""), value)

    def rows(self, keys: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """(key, row) of the finished records in the order of `keys`, read back one at a time.

        Raises DataError when a record is no longer what it was when the log was read.
        """
        with ExitStack() as stack:
            files: dict[int, IO[bytes]] = {}
            for key in keys:
                if (position := self._offsets.get(key)) is not None:
                    index, offset = position
                    if index not in files:
                        files[index] = stack.enter_context(self._logs[index].open("rb"))
                    files[index].seek(offset)
                    yield key, self._row(self._logs[index], files[index].readline())

    def close(self) -> None:
        """Finish the log of this process on the disk."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Drop the logs, and drafts of the artifact or its manifest that a killed process left."""
        self.close()
        drafts = self.artifact.parent.glob(f".{glob.escape(self.artifact.name)}*.tmp")
        for path in (*log_paths(self.artifact), *drafts):
            path.unlink(missing_ok=True)

    def _clear(self) -> None:
        self._offsets: dict[str, tuple[int, int]] = {}
        self.failed: dict[str, str] = {}
        self.broken: dict[str, str] = {}
        self.usage: Counter[str] = Counter()

    def _paths(self) -> list[Path]:
        paths = log_paths(self.artifact)
        return [path for path in paths if not self.replacing or header_in(path) == self.header]

    def _take_logs(self) -> None:
        self._logs = self._paths()
        for index, path in enumerate(self._logs):
            self._read(index, path)

    def _read(self, index: int, path: Path) -> None:
        if (header := header_in(path)) is not None:
            self._check_header(path, header)
        dropped = 0
        for offset, record in records_in(path, self._seed, header is not None):
            if record is None:
                dropped += 1
            else:
                self._take(index, offset, record, None if record.kind == "row" else record.value())
        if self._dropped.get(path, 0) != dropped:
            self._dropped[path] = dropped
            note_dropped(path, dropped)

    def _take(self, index: int, offset: int, record: Record, value: Any) -> None:
        self._count(record.usage)
        if not record.key:
            return
        for table in (self._offsets, self.failed, self.broken):
            table.pop(record.key, None)
        if record.kind == "row":
            self._offsets[record.key] = (index, offset)
        else:
            (self.failed if record.kind == "failure" else self.broken)[record.key] = value

    def _count(self, usage: Usage) -> None:
        totals: Any = self.usage  # a Counter adds, and its amounts may be fractions
        totals.update(usage)

    def _check_header(self, path: Path, header: Mapping[str, Any]) -> None:
        if header != self.header:
            names = ", ".join(differing(self.header, header))
            raise ArtifactError(
                f"{path} holds the work of an interrupted start that differs in {names}. Expected the same settings "
                "and inputs. Give the same ones to go on, or drop what was done with --overwrite."
            )

    def _row(self, path: Path, line: bytes) -> dict[str, Any]:
        if (record := read_record(line, self._seed)) is None:
            raise DataError(
                f"{path}: a record that was read before can't be read again. Expected that nobody else writes to the "
                "file. Start the same command again: it asks anew for what is lost."
            )
        row: dict[str, Any] = record.value()
        return row


@contextmanager
def open_log(
    artifact: Path, header: Mapping[str, Any], share: WorkShare, *, replacing: bool = False
) -> Iterator[RecordLog]:
    """Take the lock of this process's share and meet the other processes of the launch; closes the log at the end.

    Raises ArtifactError when another process is at the same share.
    """
    with locked(of_share(artifact, share.index)), joined():
        log = RecordLog(artifact, header, share, replacing=replacing)
        try:
            yield log
        finally:
            log.close()
