"""Locks: one process at a time works on an artifact.

    @locking(lambda settings, workspace: workspace.checkpoint(settings.dataset, settings.tag))
    def run(settings, workspace): ...

A stage holds `<artifact>.lock` from before it checks whether the artifact is finished until its manifest is written,
and `write_manifest` refuses when the lock file was removed meanwhile. The operating system releases a lock when its
process dies, however it dies, so no lock is ever stale. Taking a lock removes the drafts of writers that died.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Concatenate, ParamSpec, TypeVar

from mllmrec.errors import ArtifactError
from mllmrec.launch import rank_and_size
from mllmrec.storage.workspace import Workspace, sweep_drafts, unlink_dead_draft

Rest = ParamSpec("Rest")
Settings = TypeVar("Settings")
Result = TypeVar("Result")
Stage = Callable[Concatenate[Settings, Workspace, Rest], Result]

CANT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS)
_held: dict[Path, IO[str]] = {}


def locking(
    artifact: Callable[[Any, Workspace], Path],
) -> Callable[[Stage[Settings, Rest, Result]], Stage[Settings, Rest, Result]]:
    """Let a stage run under the lock of the artifact that `artifact` names; of a launch the first process holds it."""

    def decorate(run: Stage[Settings, Rest, Result]) -> Stage[Settings, Rest, Result]:
        @functools.wraps(run)
        def under_lock(settings: Settings, workspace: Workspace, /, *args: Rest.args, **kwargs: Rest.kwargs) -> Result:
            if rank_and_size()[0]:
                return run(settings, workspace, *args, **kwargs)
            with locked(artifact(settings, workspace)):
                return run(settings, workspace, *args, **kwargs)

        return under_lock

    return decorate


@contextmanager
def locked(artifact: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold `<artifact>.lock` for the block; an ArtifactError names the process that holds it already, unless `wait`.

    Where nothing can be written no lock is needed: a finished artifact is read without one. A folder that was made
    for the lock alone is removed with it.
    """
    path = lock_path(artifact)
    added = [folder for folder in path.parents if not folder.exists()]
    try:
        file = _take(path, wait)
    except OSError as error:
        if error.errno not in CANT_WRITE:
            raise
        file = None
    if file is None:
        yield
        return
    with file:
        file.truncate(0)
        file.write(f"process {os.getpid()}, started {time.strftime('%Y-%m-%d %H:%M:%S')}")
        file.flush()
        _held[path.absolute()] = file
        try:
            sweep(artifact)
            yield
        finally:
            del _held[path.absolute()]
            if _is_at(path, file):
                path.unlink(missing_ok=True)
            with suppress(OSError):
                for folder in added:
                    folder.rmdir()


@contextmanager
def holding(artifact: Path) -> Iterator[None]:
    """Make sure of the artifact's lock for the block, which this process has or takes.

    Raises ArtifactError when another process holds it, or when its file was removed while this one held it.
    """
    path = lock_path(artifact)
    file = _held.get(path.absolute())
    if file is None:
        with locked(artifact):
            yield
        return
    if not _is_at(path, file):
        raise ArtifactError(
            f"{path} was removed while this process made {artifact}, so that another one may be at it too. Expected "
            "the lock to stay until the end. Start the same command again."
        )
    yield


def owner_of(artifact: Path) -> str | None:
    """The process that holds the artifact's lock at this moment, as its lock file describes it; None without one."""
    try:
        with lock_path(artifact).open("r+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "another process"
    except FileNotFoundError:
        pass
    return None


def lock_path(artifact: Path) -> Path:
    return artifact.with_name(f"{artifact.name}.lock")


def sweep(artifact: Path) -> None:
    """Remove the drafts and locks that dead processes left of a file or in a folder."""
    sweep_drafts([artifact, artifact.with_name(f"{artifact.name}.manifest.json")])
    if artifact.is_dir():
        for path in artifact.iterdir():
            unlink_dead_draft(path, None)
            if path.suffix == ".lock":
                _unlink_dead_lock(path)


def _unlink_dead_lock(path: Path) -> None:
    with suppress(BlockingIOError, FileNotFoundError), path.open("r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(path, file):
            path.unlink()


def _take(path: Path, wait: bool) -> IO[str]:
    """The locked file at `path`.

    An owner removes the file before it releases the lock, so a lock on a file that is no longer at `path` protects
    nothing and is taken again.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a+", encoding="utf-8")
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            file.close()
            raise ArtifactError(
                f"{path.with_suffix('')} is being made by {owner}. Expected one process at a time; wait for it, or end "
                "it and start again: nothing it has finished is lost."
            ) from None
        except BaseException:
            file.close()
            raise
        if _is_at(path, file):
            return file
        file.close()


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
