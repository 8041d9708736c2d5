"""Trying foreign work in a process of its own first, so that it can't hang this one or fill its memory.

A chat template is a program that came with a model. Jinja's sandbox keeps it from files and network, not from loops
without end or texts of gigabytes.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

MAX_SECONDS, MAX_MEMORY, MAX_CHARACTERS = 10.0, 1 << 30, 1 << 20
DONE, TOO_LONG, NO_MEMORY = b"d", b"l", b"m"
REASONS = {TOO_LONG: f"writes more than {MAX_CHARACTERS:,} characters", NO_MEMORY: "needs more than 1 GB of memory"}


def excess(work: Callable[[], int]) -> str:
    """What `work`, which returns a number of characters, takes too much of, in words; empty where it stays within.

    It runs in a fork of this process, and what it raises there is left to whoever runs it here. Where processes can't
    be forked (Windows) nothing is tried.

    >>> excess(lambda: 12), excess(lambda: 1 << 30)
    ('', 'writes more than 1,048,576 characters')
    """
    if not hasattr(os, "fork"):
        return ""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # Newer Pythons warn of forks beside threads; this one only computes, and holds no lock that it waits for.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        _carry_out(work, writing)
    os.close(writing)
    try:
        answer = os.read(reading, 1) if select.select([reading], [], [], MAX_SECONDS)[0] else None
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if answer is None:
        return f"takes more than {MAX_SECONDS:g} seconds"
    return REASONS[NO_MEMORY] if answer == b"" else REASONS.get(answer, "")


def _carry_out(work: Callable[[], int], writing: int) -> None:
    """Work in the child, and end it; nothing of the parent's is cleaned up or written."""
    answer = DONE
    try:
        gc.disable()
        _limit_memory()
        answer = TOO_LONG if work() > MAX_CHARACTERS else DONE
    except MemoryError:
        answer = NO_MEMORY
    except BaseException:  # raised again where the work is done for good
        answer = DONE
    finally:
        os.write(writing, answer)
        os._exit(0)


def _limit_memory() -> None:
    """Let this process have so much more than it has, where the system tells how much that is."""
    import resource

    sizes = Path("/proc/self/statm")
    if sizes.exists():
        limit = int(sizes.read_text().split()[0]) * resource.getpagesize() + MAX_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
