"""Work by a user who isn't root: root may read and write everything, so that nothing is ever refused to it."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

NOBODY = 65534


def unprivileged(work: Callable[[], Any]) -> Any:
    """What `work` returns, or raises, in a child process of a user without rights."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reading)
        if os.geteuid() == 0:
            os.setuid(NOBODY)
        try:
            outcome: Any = work()
        except BaseException as error:
            outcome = error
        with os.fdopen(writing, "wb") as file:
            pickle.dump(outcome, file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        outcome = pickle.load(file)
    os.waitpid(child, 0)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


@contextmanager
def readable_folder() -> Iterator[Path]:
    """A temporary folder that everybody may look into, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="mllmrec-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        rmtree(folder)
