"""The output of a verb: tables and a headline on standard output, remarks on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import pairwise

from mllmrec.progress import nobody_reads, remark
from mllmrec.records import Summary, Table

WIDE = 200
BETWEEN, EDGES = 3, 2
"""Blanks between two columns, and at both ends of a row."""


def finish(summary: Summary) -> None:
    """Show a stage's summary, from the first process alone, and exit with 1 when it is a check that failed.

    A reader of a pipe that stops early (`| head`) doesn't change the status.
    """
    if os.environ.get("RANK", "0") == "0":
        show(summary)
    if not summary.passed:
        sys.exit(1)


def show(summary: Summary) -> None:
    """Tables and headline on standard output, as wide as they need to be where that is no terminal."""
    from rich import box, table
    from rich.console import Console
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    for shown in summary.tables:
        with console.capture() as text:
            for number, part in enumerate(parts_of(shown, console.width)):
                drawn = table.Table(
                    title=None if number else shown.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
                )
                for index in part:
                    drawn.add_column(shown.columns[index], justify=shown.justify if index else "left")
                for row in shown.rows:
                    drawn.add_row(*(Text(row[index]) for index in part))
                console.print(drawn)
            if shown.note:
                console.print(Text(shown.note), soft_wrap=not console.is_terminal)
                console.print()
        _write(text.get())
    for warning in summary.warnings:
        remark(f"Note: {warning}")
    _write(f"{summary.headline}\n")


def parts_of(table: Table, width: int) -> list[list[int]]:
    """The columns (by index) of each part of a table of figures that is wider than `width`: no figure is ever cut off.

    The first column comes again in each part. A table of words is left whole, since words wrap.

    >>> figures = Table(title="", columns=("run", "HR@1", "HR@3"), rows=(("markov", "0.480", "0.743"),))
    >>> parts_of(figures, 80), parts_of(figures, 20)
    ([[0, 1, 2]], [[0, 1], [0, 2]])
    """
    columns = range(len(table.columns))
    if table.justify == "left":
        return [list(columns)]
    widths = [_width([table.columns[index], *(row[index] for row in table.rows)]) for index in columns]
    starts, used = [1], widths[0] + EDGES
    for index in columns[1:]:
        if index > starts[-1] and used + BETWEEN + widths[index] > width:
            starts, used = [*starts, index], widths[0] + EDGES
        used += BETWEEN + widths[index]
    return [[0, *range(start, end)] for start, end in pairwise([*starts, len(columns)])]


def _write(text: str) -> None:
    """Write to standard output; not through rich, which ends the program when the reader of a pipe has gone."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        nobody_reads(sys.stdout)


def _width(cells: Sequence[str]) -> int:
    return max(len(line) for cell in cells for line in cell.split("\n"))
