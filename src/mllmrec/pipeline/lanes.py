"""Stages side by side: each lane is a process that carries out one stage at a time.

A lane loads its libraries once, and hands to the first process what its stage would say or draw. Ctrl-C reaches the
first process alone, which passes it on: so a stage keeps what it has, as it does on its own. In the first process it
raises nothing, because a message that is being read or a lane that is being started mustn't be left half-way: it is one
more thing to be heard. `Lane` is one end of the pipe, `carry_out` the other.

What the process of a lane does: carry out stages, one after the other, until the first process is gone.

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
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from mllmrec.errors import ArtifactError, BackendError, DataError, SettingsError
from mllmrec.progress import Said, relay
from mllmrec.records import Summary
from mllmrec.settings.base import StageSettings
from mllmrec.stages import Run
from mllmrec.storage.workspace import Workspace

Entry = Callable[[str], Run]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
PLAINER = (DataError, SettingsError, ArtifactError, BackendError, KeyboardInterrupt)


class LaneError(Exception):
    """Where an error arose in a lane: its traceback there, as text."""


@dataclass(frozen=True)
class Ended:
    """What became of a stage: its summary, or the error that it ended with."""

    number: int
    outcome: Summary | BaseException


@dataclass(frozen=True)
class CtrlC:
    """Somebody pressed it."""


class Lane:
    """One process and the pipe to it; `number` is the stage that it carries out, None when it is free."""

    def __init__(self, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=carry_out, args=(theirs, threads))
        self.number: int | None = None
        resource_tracker.ensure_running()  # here, because starting it lets Ctrl-C through again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the lane knows what to do about it
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def begin(self, number: int, entry: Entry, stage: StageSettings) -> None:
        self.number = number
        self.pipe.send_bytes(pickle.dumps((entry, stage)))

    def heard(self) -> Said | Ended:
        """What the process tells next. A process that is gone ends its stage with a BackendError."""
        assert self.number is not None, "a free lane says nothing"
        message: Any
        try:
            sent = self.pipe.recv_bytes()
        except (EOFError, OSError):
            self.process.join()
            message = BackendError(self._gone(self.process.exitcode or 0))
        else:
            message = _read(sent)
        if isinstance(message, Failed):
            message.error.__cause__ = LaneError(message.told)
            message = message.error
        if isinstance(message, Said):
            bar = None if message.bar is None else (self.number, *message.bar)
            return replace(message, text=f"[{self.number}] {message.text}", bar=bar)
        number, self.number = self.number, None
        return Ended(number, message)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it is still there."""
        if self.process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.process.pid or 0, number)

    @staticmethod
    def _gone(code: int) -> str:
        if code >= 0:
            return f"The process of this stage ended without a word (exit code {code}). What it printed may tell why."
        return (
            f"The process of this stage was ended from outside (signal {-code}; 9 mostly means that memory ran out). "
            "Nothing that was finished is lost; --lanes 1 takes less memory at a time."
        )


class Lanes:
    """Up to `count` lanes of `threads` threads each, started when they are first needed; for the main thread.

    While the block lasts Ctrl-C is something to be heard, and Ctrl-Z pauses the lanes as well.
    """

    def __init__(self, count: int, threads: int) -> None:
        self.count, self.threads = count, threads
        self._lanes: list[Lane] = []

    def __enter__(self) -> Lanes:
        self._bell, self._rope = multiprocessing.Pipe(duplex=False)
        handlers = {signal.SIGINT: lambda *_: self._rope.send_bytes(b"!"), signal.SIGTSTP: lambda *_: self._pause()}
        self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(lambda _heard: None)  # what an error has left under way
        for lane in self._lanes:
            lane.pipe.close()
        for lane in self._lanes:
            lane.process.join()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._bell.close()
        self._rope.close()

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

    def listen(self) -> Iterator[Said | Ended | CtrlC]:
        """Wait until a lane tells something, and give all that is there to be heard."""
        ready = wait([self._bell, *(lane.pipe for lane in self.busy)])
        for lane in self.busy:
            if lane.pipe in ready:
                yield lane.heard()
        if self._bell in ready:
            self._bell.recv_bytes()
            yield CtrlC()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every stage under way."""
        for lane in self.busy:
            lane.signal(number)

    def stop(self, take: Callable[[Said | Ended | CtrlC], None]) -> None:
        """Interrupt what is under way, and give what is heard of it to `take` until it has ended.

        Ctrl-C during that is passed on again, and the next one kills what is left, which then counts as interrupted.
        """
        for how in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):
            self.signal(how)
            pressed, killed = False, how == signal.SIGKILL
            while self.busy and (killed or not pressed):
                for heard in self.listen():
                    pressed = pressed or isinstance(heard, CtrlC)
                    take(Ended(heard.number, KeyboardInterrupt()) if killed and isinstance(heard, Ended) else heard)

    def _pause(self) -> None:
        """Stop the lanes and this process, until the shell lets it go on."""
        self.signal(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        self.signal(signal.SIGCONT)


def _read(sent: bytes) -> Any:
    """What came through the pipe; an error where it can't be read."""
    try:
        return pickle.loads(sent)
    except Exception as error:
        return error


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
