"""What the process of a lane does: carry out stages, one after the other, until the first process is gone.

Ctrl-C interrupts a stage and nothing else. A lane ends with the first process, however that ends.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from mllmrec.artifacts import Workspace
from mllmrec.errors import ArtifactError, BackendError, DataError, SettingsError
from mllmrec.progress import relay
from mllmrec.stages import Run

Entry = Callable[[str], Run]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
PLAINER = (DataError, SettingsError, ArtifactError, BackendError, KeyboardInterrupt)


@dataclass(frozen=True)
class Failed:
    """An error on its way through the pipe, and as text its traceback, which doesn't come along."""

    error: BaseException
    told: str


class Gate:
    """Ctrl-C gets through while a stage is under way; one that comes before it begins waits for it."""

    def __init__(self) -> None:
        self._asked = False

    def __call__(self, *_: object) -> None:
        self._asked = True

    def open(self) -> None:
        """Let Ctrl-C through from now on; raises KeyboardInterrupt when one came before."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._asked:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Keep the next one for the stage that comes."""
        signal.signal(signal.SIGINT, self)
        self._asked = False


def carry_out(pipe: Connection, threads: int) -> None:
    """What a lane does until the first process closes the pipe: stages, one after the other."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, gate := Gate())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.environ.update(dict.fromkeys(THREADS, str(threads)))
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()  # nothing that Ctrl-C does in mid-stage can be in its way
    for task in (lambda: _send(messages, pipe), _end_with_the_first):
        threading.Thread(target=task, daemon=True).start()
    relay(lambda said: messages.put(pickle.dumps(said)))
    while True:
        try:
            job = pipe.recv_bytes()
        except EOFError:
            return
        messages.put(_outcome(job, gate))


def _send(messages: queue.SimpleQueue[bytes], pipe: Connection) -> None:
    while True:
        message = messages.get()
        try:
            pipe.send_bytes(message)
        except OSError:
            os._exit(1)


def _end_with_the_first() -> None:
    first = multiprocessing.parent_process()
    assert first is not None, "a lane is started by another process"
    first.join()
    os._exit(1)


def _outcome(job: bytes, gate: Gate) -> bytes:
    """Carry out a stage; its Summary, or what it failed with, as it goes through the pipe."""
    try:
        try:
            gate.open()
            entry, stage = pickle.loads(job)
            return pickle.dumps(entry(stage.verb)(stage, Workspace(stage.root)))
        finally:
            gate.close()
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        gate.close()  # the first time it may have been this that was interrupted
        return pickle.dumps(Failed(_portable(error), "".join(traceback.format_exception(error))))


def _portable(error: BaseException) -> BaseException:
    """The error, or one that says the same where it can't be taken apart and put together again."""
    with suppress(Exception):
        again: Any = pickle.loads(pickle.dumps(error))
        if type(again) is type(error) and str(again) == str(error):
            return error
    for kind in PLAINER:
        if isinstance(error, kind):
            return kind(str(error))
    return RuntimeError(f"{type(error).__name__}: {error}")
