"""Lanes: processes that carry out stages side by side, one stage at a time each, and live on for the next stage.

A lane imports its libraries once; a process for each stage would import them anew each time, which takes longer than
many stages do (docs/log.md). It sends the main process what its stage would print or draw, and how the stage ended.

Ctrl-C reaches the main process alone, which passes it on, so that a stage saves what it has as it does on its own. In
the main process it raises nothing, because a message that is being read, or a lane that is being started, must not be
left half-way; it arrives as one more event. In a lane it interrupts the stage under way and nothing else. A lane ends
with the main process, however that ends.
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
PORTABLE = (DataError, SettingsError, ArtifactError, BackendError, KeyboardInterrupt)


class LaneError(Exception):
    """The cause of an error that arose in a lane: its traceback there, as text."""


@dataclass(frozen=True)
class Ended:
    """The end of stage `number`: its summary, or its error with the traceback as text, which pickle leaves behind."""

    number: int
    outcome: Summary | BaseException
    traceback: str = ""


@dataclass(frozen=True)
class CtrlC:
    """Ctrl-C was pressed."""


Event = Said | Ended | CtrlC


class Lanes:
    """Up to `count` lanes of `threads` threads each, started when they are first needed; for the main thread.

    While the block lasts Ctrl-C is an event, and Ctrl-Z pauses the lanes as well.
    """

    def __init__(self, count: int, threads: int) -> None:
        self.count, self.threads = count, threads
        self._lanes: list[Lane] = []

    def __enter__(self) -> Lanes:
        self._presses, press = multiprocessing.Pipe(duplex=False)
        self._press = press
        handlers = {signal.SIGINT: lambda *_: press.send_bytes(b"!"), signal.SIGTSTP: lambda *_: self._pause()}
        self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(lambda _event: None)  # what an error has left under way
        for lane in self._lanes:
            lane.pipe.close()
        for lane in self._lanes:
            lane.process.join()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._presses.close()
        self._press.close()

    @property
    def busy(self) -> list[Lane]:
        return [lane for lane in self._lanes if lane.number is not None]

    @property
    def free(self) -> int:
        """How many more stages may begin."""
        return self.count - len(self.busy)

    def begin(self, number: int, entry: Entry, stage: StageSettings) -> None:
        """Carry out a stage in a free lane."""
        lane = next((lane for lane in self._lanes if lane.number is None and lane.process.is_alive()), None)
        if lane is None:
            self._lanes.append(lane := Lane(self.threads))
        lane.begin(number, entry, stage)

    def events(self) -> Iterator[Event]:
        """Wait until there is an event, and give all that are there."""
        ready = wait([self._presses, *(lane.pipe for lane in self.busy)])
        for lane in self.busy:
            if lane.pipe in ready:
                yield lane.event()
        if self._presses in ready:
            self._presses.recv_bytes()
            yield CtrlC()

    def stop(self, take: Callable[[Event], None]) -> None:
        """Interrupt the stages under way, and give their events to `take` until they have ended.

        Ctrl-C during that is passed on again, and the next one kills what is left, which then counts as interrupted.
        """
        for how in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):
            self._signal(how)
            pressed, killed = False, how == signal.SIGKILL
            while self.busy and (killed or not pressed):
                for event in self.events():
                    pressed = pressed or isinstance(event, CtrlC)
                    take(Ended(event.number, KeyboardInterrupt()) if killed and isinstance(event, Ended) else event)

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to every stage under way."""
        for lane in self.busy:
            lane.signal(number)

    def _pause(self) -> None:
        """Stop the lanes and this process, until the shell lets it go on."""
        self._signal(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        self._signal(signal.SIGCONT)


class Lane:
    """One process and the pipe to it; `number` is the stage that it carries out, None when it is free."""

    def __init__(self, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, threads))
        self.number: int | None = None
        resource_tracker.ensure_running()  # here, because starting it lets Ctrl-C through again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the lane has its own handler
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def begin(self, number: int, entry: Entry, stage: StageSettings) -> None:
        self.number = number
        self.pipe.send((number, pickle.dumps((entry, stage))))

    def event(self) -> Said | Ended:
        """The next message of the process. A process that is gone ends its stage with a BackendError."""
        assert self.number is not None, "a free lane sends nothing"
        try:
            message = _read(self.pipe.recv_bytes())
        except (EOFError, OSError):
            self.process.join()
            message = BackendError(_gone(self.process.exitcode or 0))
        if isinstance(message, Said):
            return message
        ended = message if isinstance(message, Ended) else Ended(self.number, message)
        if isinstance(ended.outcome, BaseException) and ended.traceback:
            ended.outcome.__cause__ = LaneError(ended.traceback)
        self.number = None
        return ended

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it is still there."""
        if self.process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.process.pid or 0, number)


def _read(sent: bytes) -> Any:
    """A message from the pipe; an error where it can't be read."""
    try:
        return pickle.loads(sent)
    except Exception as error:
        return error


def _gone(code: int) -> str:
    if code >= 0:
        return f"The process of this stage ended without a word (exit code {code}). What it printed may tell why."
    return (
        f"The process of this stage was ended from outside (signal {-code}; 9 mostly means that memory ran out). "
        "Nothing that was finished is lost; --lanes 1 takes less memory at a time."
    )


# From here on, what runs in the process of a lane.


class Gate:
    """Ctrl-C gets through while a stage is under way; one that comes before it begins waits for it."""

    def __init__(self) -> None:
        self._pressed = False

    def __call__(self, *_: object) -> None:
        self._pressed = True

    def open(self) -> None:
        """Let Ctrl-C through from now on; raises KeyboardInterrupt when one came before."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._pressed:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Keep the next one for the stage that comes."""
        signal.signal(signal.SIGINT, self)
        self._pressed = False


def serve(pipe: Connection, threads: int) -> None:
    """Carry out the stages that come through the pipe, one after the other, until the main process closes it."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, gate := Gate())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.environ.update(dict.fromkeys(THREADS, str(threads)))
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()  # sent by a thread, which Ctrl-C never interrupts
    for task in (lambda: _send(messages, pipe), _end_with_the_main_process):
        threading.Thread(target=task, daemon=True).start()
    number = 0

    def show(said: Said) -> None:
        bar = None if said.bar is None else (number, *said.bar)
        messages.put(pickle.dumps(replace(said, text=f"[{number}] {said.text}", bar=bar)))

    relay(show)
    while True:
        try:
            number, stage = pipe.recv()
        except EOFError:
            return
        messages.put(_outcome(number, stage, gate))


def _send(messages: queue.SimpleQueue[bytes], pipe: Connection) -> None:
    while True:
        message = messages.get()
        try:
            pipe.send_bytes(message)
        except OSError:
            os._exit(1)


def _end_with_the_main_process() -> None:
    main = multiprocessing.parent_process()
    assert main is not None, "a lane is started by another process"
    main.join()
    os._exit(1)


def _outcome(number: int, pickled: bytes, gate: Gate) -> bytes:
    """Carry out a stage; how it ended, as it goes through the pipe."""
    try:
        try:
            gate.open()
            entry, stage = pickle.loads(pickled)
            return pickle.dumps(Ended(number, entry(stage.verb)(stage, Workspace(stage.root))))
        finally:
            gate.close()
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        gate.close()  # the first time it may have been this that was interrupted
        return pickle.dumps(Ended(number, _portable(error), "".join(traceback.format_exception(error))))


def _portable(error: BaseException) -> BaseException:
    """The error, or one with the same message where pickle can't restore it."""
    with suppress(Exception):
        restored: Any = pickle.loads(pickle.dumps(error))
        if type(restored) is type(error) and str(restored) == str(error):
            return error
    for kind in PORTABLE:
        if isinstance(error, kind):
            return kind(str(error))
    return RuntimeError(f"{type(error).__name__}: {error}")
