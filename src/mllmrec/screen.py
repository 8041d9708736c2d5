"""What the reader of a terminal sees: tables and a headline on standard output, remarks on standard error."""

from __future__ import annotations

import os
import sys

from mllmrec.records import Summary

WIDE = 200


def finish(summary: Summary) -> None:
    """Show a stage's summary, from the first process alone, and exit with 1 when it is a check that failed."""
    if os.environ.get("RANK", "0") == "0":
        show(summary)
    if not summary.passed:
        sys.exit(1)


def show(summary: Summary) -> None:
    """Tables and headline on standard output, as wide as they need to be where that is no terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    for each in summary.tables:
        table = Table(title=each.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for number, column in enumerate(each.columns):
            table.add_column(column, justify="left" if number == 0 else each.justify)
        for row in each.rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
        if each.note:
            console.print(Text(each.note), soft_wrap=True)
            console.print()
    for warning in summary.warnings:
        tell(f"Note: {warning}")
    print(summary.headline)


def tell(text: str) -> None:
    """One paragraph on standard error, wrapped only by a terminal."""
    print(text, file=sys.stderr, flush=True)
