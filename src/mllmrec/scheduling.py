"""Stages of a recipe side by side: what each of them waits for, and processes that take what is ready.

Training, merging and ranking of one model need nothing of another one's, so they may run at once. Everything else waits
for all that stands before it in the recipe, and all that stands behind it waits for it: nothing is trained before
the audit is through. A stage that failed beside others is run once more by the process that the user sees, which
tells what is wrong.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, TextIO

from mllmrec.artifacts import Workspace
from mllmrec.launch import compute_with
from mllmrec.records import Summary
from mllmrec.settings.base import StageSettings
from mllmrec.stages import entry_point

OF_ONE_MODEL = ("sft", "merge", "grpo", "evaluate")


def needs(stages: Sequence[StageSettings], index: int) -> set[int]:
    """Which earlier stages must be finished before this one."""
    stage = stages[index]
    if stage.verb not in OF_ONE_MODEL:
        return set(range(index))
    read = {getattr(stage, name, "") for name in _READS[stage.verb]}
    return {
        number
        for number, earlier in enumerate(stages[:index])
        if earlier.verb not in OF_ONE_MODEL or _written(earlier) in read
    }


_READS = {
    "sft": ("backbone",),
    "merge": ("tag", "backbone"),
    "grpo": ("sft_tag",),
    "evaluate": ("backbone", "sft_tag", "tag"),
}


def _written(stage: StageSettings) -> str | None:
    """The name of the checkpoint that a stage writes."""
    tag: str = getattr(stage, "tag", "")
    match stage.verb:
        case "sft" | "grpo":
            return tag
        case "merge":
            return getattr(stage, "merged_tag", "") or f"{tag}-merged"
        case _:
            return None


@dataclass(kw_only=True)
class Schedule:
    """Which stages are waiting, running and done. All methods may be called from any thread."""

    stages: Sequence[StageSettings]
    done: set[int] = field(default_factory=set)
    taken: set[int] = field(default_factory=set)
    given_back: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._needs = [needs(self.stages, index) for index in range(len(self.stages))]

    def take(self, *, beside: bool = False) -> int | None:
        """The first stage that is ready, once there is one; None when all are taken. `beside` asks for one that may
        run beside others and hasn't failed there before."""
        with self._changed:
            while len(self.taken) < len(self.stages):
                if (ready := self._ready(beside=beside)) is not None:
                    self.taken.add(ready)
                    return ready
                self._changed.wait()
            return None

    def finish(self, index: int) -> None:
        with self._changed:
            self.done.add(index)
            self._changed.notify_all()

    def give_back(self, index: int) -> None:
        """It failed beside others, and is to be taken again by who isn't beside."""
        with self._changed:
            self.taken.remove(index)
            self.given_back.add(index)
            self._changed.notify_all()

    def wait(self) -> bool:
        """Wait until every stage is done; False as soon as one was given back."""
        with self._changed:
            while len(self.done) < len(self.stages) and len(self.taken) == len(self.stages):
                self._changed.wait()
            return len(self.done) == len(self.stages)

    def shared(self) -> bool:
        """Whether more than one stage is running, or could be."""
        with self._changed:
            return len(self.taken) - len(self.done) > 1 or self._ready(beside=True) is not None

    def _ready(self, *, beside: bool) -> int | None:
        for index, stage in enumerate(self.stages):
            allowed = not beside or (stage.verb in OF_ONE_MODEL and index not in self.given_back)
            if index not in self.taken and allowed and self._needs[index] <= self.done:
                return index
        return None


@dataclass(kw_only=True)
class Companion:
    """A process that runs stages beside this one, and the thread that hands them to it.

    `begins` is told each stage's index, `ends` its index, summary and seconds.
    """

    schedule: Schedule
    threads: int
    begins: Callable[[int], None]
    ends: Callable[[int, Summary, float], None]

    def __enter__(self) -> Companion:
        self._process: Any = None
        threading.Thread(target=self._hand_out, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()

    def _hand_out(self) -> None:
        pipe: Connection | None = None
        while (index := self.schedule.take(beside=True)) is not None:
            pipe = pipe or self._start()
            self.begins(index)
            try:
                pipe.send(self.schedule.stages[index])
                told = pipe.recv()
            except (EOFError, OSError):
                told = None
            if not isinstance(told, tuple):
                self.schedule.give_back(index)
                if told is None:
                    return
                continue
            self.ends(index, *told)
            self.schedule.finish(index)

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        self._process = context.Process(target=_work, args=(there, self.threads), daemon=True)
        self._process.start()
        there.close()
        return here


def _work(pipe: Connection, threads: int) -> None:
    """Run what comes through the pipe; the answer is (summary, seconds), or a sentence where it failed."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a companion has somebody to work for"
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    sys.stderr = Indented(sys.stderr)
    compute_with(threads)
    while True:
        try:
            stage = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        began = time.monotonic()
        try:
            summary = entry_point(stage.verb)(stage, Workspace(stage.root))
        except (Exception, KeyboardInterrupt) as error:
            pipe.send(f"{type(error).__name__}: {error}")
        else:
            pipe.send((summary, time.monotonic() - began) if summary.passed else summary.headline)


def _end_with(parent: Any) -> None:
    """Leave no companion behind, whatever ended the process that it works for."""
    parent.join()
    os._exit(1)


class Indented:
    """A stream whose lines are set off from those of another process."""

    MARK = "    | "

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._at_start = stream, True

    def write(self, text: str) -> int:
        for line in text.splitlines(keepends=True):
            self._stream.write((self.MARK if self._at_start else "") + line)
            self._at_start = line.endswith("\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
