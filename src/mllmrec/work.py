"""Long stages over keyed records: what is done, what failed, who is at it.

Each record is appended to `<artifact>.partial.jsonl` as it finishes, with what it took, so that a crash costs one batch
and a second start goes on behind it. When all is done the artifact is written in the order of its keys, whatever the
order of finishing, then the manifest, and the log goes. Only keys and places in the log are held in memory, never the
records. Under a launcher every process has a log of its own and takes every n-th key; the first one writes the
artifact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mllmrec.artifacts import partial
from mllmrec.errors import ArtifactError, BackendError
from mllmrec.launch import joined, meet, rank_and_size
from mllmrec.locks import locked
from mllmrec.manifests import Manifest, finished, unmark, write_manifest
from mllmrec.settings.base import StageSettings
from mllmrec.settings.long import LongStageSettings
from mllmrec.worklogs import Kind, Usage, WorkLog, log_paths

Recall = Callable[[], Iterable[tuple[str, Mapping[str, Any]]]]
NOTHING: Usage = {}


class Work:
    """The records of one long stage; made by [`open_work`][mllmrec.work.open_work]."""

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
