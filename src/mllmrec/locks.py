"""One process at a time on one artifact."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mllmrec.errors import ArtifactError


@contextmanager
def locked(artifact: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold `<artifact>.lock` for the block; an ArtifactError names the process that holds it already, unless `wait`.

    The operating system lets go of the lock when its process dies, however it dies, so none is ever stale.
    """
    path = artifact.with_name(f"{artifact.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _taken(path, wait) as file:
        if file is None:
            owner = path.read_text(encoding="utf-8").strip() if path.exists() else ""
            raise ArtifactError(
                f"{artifact} is being made by {owner or 'another process'}. Expected one process at a time; wait for "
                "it, or end it and start again: nothing it has finished is lost."
            )
        file.truncate(0)
        file.write(f"process {os.getpid()}, started {time.strftime('%Y-%m-%d %H:%M:%S')}")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _taken(path: Path, wait: bool) -> Iterator[IO[str] | None]:
    """The locked file for the block, None when another process holds it.

    An owner removes the file before it lets go, so a lock on a file that is no longer at `path` keeps nobody out and
    is asked for again.
    """
    while True:
        with path.open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            if _is_at(path, file):
                yield file
                return


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
