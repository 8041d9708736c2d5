"""Progress on standard error: a bar in a terminal, a line a minute elsewhere, silence on every process but the first.

A process that works for another one says nothing itself: `relay` hands what it would tell to the other, whose `Board`
shows it.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TextIO, cast

PAUSE = 0.1
"""Seconds between two states of a bar."""
LINE_PAUSE = 60.0
"""Seconds between two lines where no bar can be drawn; what takes less says nothing."""


@dataclass(frozen=True)
class Said:
    """A note, or the state of a `bar`: `done` of its `total` units, or that it goes, when `total` is None."""

    text: str
    bar: tuple[int, ...] | None = None
    done: int = 0
    total: int | None = None


class Board:
    """Where notes are printed, and in a terminal bars are drawn below them: those of this process, or of several."""

    def __init__(self) -> None:
        self._bars: Any = None
        self._tasks: dict[tuple[int, ...], Any] = {}
        self._told: dict[tuple[int, ...], float] = {}

    def __enter__(self) -> Board:
        if sys.stderr.isatty():
            self._bars = _no_bars()
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, said: Said) -> None:
        if said.bar is None:
            remark(said.text)
        elif self._bars is not None:
            self._draw(said.bar, said)
        else:
            self._tell(said.bar, said)

    def _draw(self, bar: tuple[int, ...], said: Said) -> None:
        if said.total is None:
            self._bars.remove_task(self._tasks.pop(bar))
            return
        if bar not in self._tasks:
            self._tasks[bar] = self._bars.add_task(said.text, total=said.total)
        self._bars.update(self._tasks[bar], completed=said.done)

    def _tell(self, bar: tuple[int, ...], said: Said) -> None:
        now = time.monotonic()
        if said.total is None:
            self._told.pop(bar, None)
        elif now - self._told.setdefault(bar, now) >= LINE_PAUSE:
            self._told[bar] = now
            remark(f"{said.text}: {said.done:,} of {said.total:,}")


_relay: Callable[[Said], None] | None = None
_numbers = itertools.count()


def relay(send: Callable[[Said], None]) -> None:
    """From now on `send` is given all that this process would show itself."""
    global _relay
    _relay = send


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over `total` units; the block calls what it is given with the number of units just done."""
    if os.environ.get("RANK", "0") != "0":
        yield lambda _amount: None
        return
    bar, done, shown = (next(_numbers),), 0, -PAUSE
    with nullcontext() if _relay else Board() as board:
        show = _relay or cast(Board, board).show

        def advance(amount: int) -> None:
            nonlocal done, shown
            done += amount
            if (now := time.monotonic()) - shown >= PAUSE or done >= total:
                shown = now
                show(Said(description, bar, done, total))

        advance(0)
        try:
            yield advance
        finally:
            show(Said(description, bar))


def remark(text: str) -> None:
    """One paragraph on standard error; a reader that has gone (`2>&1 | head`) ends no work."""
    try:
        print(text, file=sys.stderr, flush=True)
    except BrokenPipeError:
        nobody_reads(sys.stderr)


def nobody_reads(stream: TextIO) -> None:
    """Send nowhere what is still written to a stream whose reader has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def note(text: str) -> None:
    """One line on standard error from the first process: what was chosen or noticed on the way."""
    if os.environ.get("RANK", "0") == "0":
        (_relay or Board().show)(Said(text))


def _no_bars() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
