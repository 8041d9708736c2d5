"""One process at a time on one artifact."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mllmrec.errors import ArtifactError


@contextmanager
def locked(artifact: Path) -> Iterator[None]:
    """Hold `<artifact>.lock` for the block; an ArtifactError names the process that holds it already.

    The operating system lets go of the lock when its process dies, however it dies, so none is ever stale.
    """
    path = artifact.with_name(f"{artifact.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise ArtifactError(
                f"{artifact} is being made by {owner}. Expected one process at a time; wait for it, or end it and "
                "start again: nothing it has finished is lost."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()}, started {time.strftime('%Y-%m-%d %H:%M:%S')}")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
