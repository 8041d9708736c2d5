"""Progress on standard error: a bar in a terminal, silence in a pipe and on every process but the first."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over `total` units; the block calls what it is given with the number of units just done."""
    if not sys.stderr.isatty() or os.environ.get("RANK", "0") != "0":
        yield lambda _amount: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(description, total=total)
        yield lambda amount: bars.advance(task, amount)


def note(text: str) -> None:
    """One line on standard error from the first process: what was chosen or noticed on the way."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)
