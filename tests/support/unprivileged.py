"""Work without the rights of root, to whom nothing is ever refused."""

from __future__ import annotations

import ctypes
import os
import pickle
from collections.abc import Callable
from typing import Any

CAPABILITY_VERSION = 0x20080522
"""Version 3 of Linux's capset call: a header of two words, then two times three words of capabilities."""


def unprivileged(work: Callable[[], Any]) -> Any:
    """What `work` returns, or raises, in a child process for which the modes of files count."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reading)
        try:
            _give_up_rights()
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


def _give_up_rights() -> None:
    if os.geteuid() == 0:
        header, none = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(header, none) == 0, "root keeps its rights"
