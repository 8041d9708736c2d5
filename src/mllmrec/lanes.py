"""Stages side by side: each lane is a process that carries out one stage at a time.

A lane loads its libraries once. What its stage would say or draw it hands to the first process, and Ctrl-C reaches
that one alone, which passes it on: so a stage that is interrupted keeps what it has, as it does on its own, and nothing
is said twice. A lane ends with the first process, however that ends.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import cast

from mllmrec.artifacts import Workspace
from mllmrec.errors import BackendError
from mllmrec.progress import Said, relay
from mllmrec.records import Summary
from mllmrec.settings.base import StageSettings
from mllmrec.stages import Run

Entry = Callable[[str], Run]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class LaneError(Exception):
    """Where an error arose in a lane: its traceback there, as text."""


@dataclass(frozen=True)
class Ended:
    """What became of a stage: its summary, or the error that it ended with."""

    number: int
    outcome: Summary | BaseException


@dataclass(frozen=True)
class _Failed:
    """An error on its way through the pipe, which takes no cause along."""

    error: BaseException
    told: str


class Lane:
    """One process and the pipe to it; `number` is the stage that it carries out, None when it is free."""

    def __init__(self, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_carry_out, args=(theirs, threads))
        resource_tracker.ensure_running()  # here, because starting it lets Ctrl-C through again
        with undisturbed():
            self.process.start()
        theirs.close()
        self.number: int | None = None

    def begin(self, number: int, entry: Entry, stage: StageSettings) -> None:
        self.pipe.send((entry, stage))
        self.number = number

    def heard(self) -> Said | Ended:
        """What the process tells next. A process that is gone ends its stage with a BackendError."""
        assert self.number is not None, "a free lane says nothing"
        try:
            with undisturbed():
                message = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            message = BackendError(
                f"The process of this stage was ended from outside (exit code {self.process.exitcode}; -9 mostly "
                "means that memory ran out). Nothing that was finished is lost; --lanes 1 takes less memory at a time."
            )
        if isinstance(message, _Failed):
            message.error.__cause__ = LaneError(message.told)
            message = message.error
        if isinstance(message, Said):
            bar = None if message.bar is None else (self.number, *message.bar)
            return replace(message, text=f"[{self.number}] {message.text}", bar=bar)
        number, self.number = self.number, None
        return Ended(number, message)


class Lanes:
    """Up to `count` lanes of `threads` threads each, started when they are first needed."""

    def __init__(self, count: int, threads: int) -> None:
        self.count, self.threads = count, threads
        self._lanes: list[Lane] = []

    def __enter__(self) -> Lanes:
        return self

    def __exit__(self, *_: object) -> None:
        for lane in self._lanes:
            lane.pipe.close()
            lane.process.join()

    @property
    def busy(self) -> list[Lane]:
        return [lane for lane in self._lanes if lane.number is not None]

    @property
    def free(self) -> int:
        return self.count - len(self.busy)

    def begin(self, number: int, entry: Entry, stage: StageSettings) -> None:
        """Carry out a stage in a lane that is free."""
        lane = next((lane for lane in self._lanes if lane.number is None and lane.process.is_alive()), None)
        if lane is None:
            self._lanes.append(lane := Lane(self.threads))
        lane.begin(number, entry, stage)

    def listen(self) -> Iterator[Said | Ended]:
        """Wait until a lane tells something, and give all that is there to be heard."""
        ready = wait([lane.pipe for lane in self.busy])
        for lane in self.busy:
            if lane.pipe in ready:
                yield lane.heard()

    def interrupt(self) -> None:
        """Ctrl-C for every stage under way."""
        for lane in self.busy:
            assert lane.process.pid is not None, "the process was started"
            os.kill(lane.process.pid, signal.SIGINT)


@contextmanager
def undisturbed(how: int = signal.SIG_BLOCK) -> Iterator[None]:
    """Ctrl-C waits until the block is left, in a process that is started in it as well; SIG_UNBLOCK lets it through."""
    before = signal.pthread_sigmask(how, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _carry_out(pipe: Connection, threads: int) -> None:
    """What a lane does until the first process closes the pipe: stages, one after the other."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(dict.fromkeys(THREADS, str(threads)))

    one_at_a_time = threading.Lock()

    def tell(message: Said | Summary | _Failed) -> None:
        try:
            with one_at_a_time, undisturbed():
                pipe.send(message)
        except OSError:  # the first process is gone, and nobody waits for what is done here
            os._exit(1)

    relay(tell)
    while True:
        try:
            entry, stage = pipe.recv()
        except EOFError:
            return
        tell(_outcome(entry, stage))


def _outcome(entry: Entry, stage: StageSettings) -> Summary | _Failed:
    """What becomes of a stage, the only place where Ctrl-C gets through."""
    try:
        with undisturbed(signal.SIG_UNBLOCK):
            return entry(stage.verb)(stage, Workspace(stage.root))
    except (Exception, KeyboardInterrupt) as error:
        return _Failed(_portable(error), "".join(traceback.format_exception(error)))


def _portable(error: BaseException) -> BaseException:
    """The error, or one that says the same where it can't be taken apart and put together again."""
    try:
        return cast(BaseException, pickle.loads(pickle.dumps(error)))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
