"""What a verb shows: tables and a headline on standard output, remarks and errors on standard error.

An error is one paragraph, and has its exit status.
"""

from __future__ import annotations

import difflib
import errno
import os
import sys
from collections.abc import Sequence
from itertools import pairwise

from cyclopts import App, CycloptsError, MissingArgumentError, UnusedCliTokensError
from pydantic import ValidationError

from mllmrec.errors import MllmrecError
from mllmrec.progress import nobody_reads, remark
from mllmrec.records import Summary, Table
from mllmrec.settings.base import explain

WIDE = 200
BETWEEN, EDGES = 3, 2
"""Blanks between two columns, and at both ends of a row."""
FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_WORDS = ("no space left on device", "os error 28", "disk quota exceeded", "pytorchstreamwriter failed writing")
WEIGHTS = "A file of weights can't be read as safetensors", "Fetch the model again, or make it again with --overwrite"
PACKED = "A compressed file is broken or cut off", "Fetch it again, and compare its checksum"
TEMPLATE = "The chat template of the model can't be rendered", "Give the model its own template again"
BROKEN_INPUTS = {
    ("safetensors", "SafetensorError"): WEIGHTS,
    ("_lzma", "LZMAError"): PACKED,
    ("zlib", "error"): PACKED,
    ("gzip", "BadGzipFile"): PACKED,
    ("zipfile", "BadZipFile"): PACKED,
    ("tarfile", "ReadError"): PACKED,
    ("builtins", "EOFError"): PACKED,
    ("jinja2", "SecurityError"): TEMPLATE,
    ("jinja2", "TemplateError"): TEMPLATE,
    ("jinja2", "TemplateSyntaxError"): TEMPLATE,
    ("jinja2", "UndefinedError"): TEMPLATE,
}
"""Errors of libraries by module and name, as importing a library for its errors takes long: message and remedy."""


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
                    name, figures = shown.columns[index], shown.justify == "right"
                    if index or not figures:
                        drawn.add_column(
                            name, justify=shown.justify if index else "left", no_wrap=index > 0 and figures
                        )
                    else:
                        drawn.add_column(name, max_width=_names(console.width), overflow="fold")
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

    The first column comes again in each part, and names that are longer than it is wide wrap. A table of words is left
    whole, since words wrap.

    >>> figures = Table(title="", columns=("run", "HR@1", "HR@3"), rows=(("markov", "0.480", "0.743"),))
    >>> parts_of(figures, 80), parts_of(figures, 20)
    ([[0, 1, 2]], [[0, 1], [0, 2]])
    """
    columns = range(len(table.columns))
    if table.justify == "left":
        return [list(columns)]
    widths = [_width([table.columns[index], *(row[index] for row in table.rows)]) for index in columns]
    widths[0] = min(widths[0], _names(width))
    starts, used = [1], widths[0] + EDGES
    for index in columns[1:]:
        if index > starts[-1] and used + BETWEEN + widths[index] > width:
            starts, used = [*starts, index], widths[0] + EDGES
        used += BETWEEN + widths[index]
    return [[0, *range(start, end)] for start, end in pairwise([*starts, len(columns)])]


def _names(width: int) -> int:
    """The most that the first column of a table of figures takes of `width`."""
    return max(12, width // 3)


def _write(text: str) -> None:
    """Write to standard output; not through rich, which ends the program when the reader of a pipe has gone."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        nobody_reads(sys.stdout)


def _width(cells: Sequence[str]) -> int:
    return max(len(line) for cell in cells for line in cell.split("\n"))


def describe(error: BaseException, app: App) -> str:
    """One paragraph for an error of any kind, with the notes that were added on its way."""
    return " ".join([_reason(error, app), *getattr(error, "__notes__", ())])


def status_of(error: Exception) -> int:
    """2 for wrong use or input, 3 for a stage that failed."""
    if isinstance(error, MllmrecError):
        return error.exit_status
    if _is_full(error):
        return 3
    return 2 if isinstance(error, (CycloptsError, ValidationError)) or _broken_input(error) else 3


def misuse(error: CycloptsError, app: App) -> str:
    """Everything that is wrong with a command line: flags that don't exist, missing ones, wrong values."""
    verb = tuple(error.command_chain or ())
    help_command = f"`{' '.join(['mllmrec', *verb])} --help`"
    known = flags(app, verb)
    given = [word.split("=")[0].replace("_", "-") for word in error.root_input_tokens or [] if word.startswith("--")]
    faults = [f"there is no {word}{nearest(word, known)}" for word in given if known and word not in known]
    if isinstance(error, MissingArgumentError) and error.argument and error.argument.name not in given:
        missing = [name for name, required in known.items() if required and name not in given]
        faults += [f"{name} is required{_examples(verb, name)}" for name in missing]
    elif isinstance(error.__cause__, ValidationError):
        faults.append(explain(error.__cause__, as_flags=True).rstrip("."))
    elif isinstance(error, UnusedCliTokensError):
        faults.append(f"nothing is expected where {' '.join(error.unused_tokens or [])} stands")
    elif not faults:
        return f"{str(error).strip()} See {help_command}."
    return f"Wrong command: {'; '.join(faults)}. See {help_command}."


def flags(app: App, verb: tuple[str, ...]) -> dict[str, bool]:
    """The flags of a verb, and whether each is required."""
    for name in verb:
        app = app[name]
    arguments = app.assemble_argument_collection() if app.default_command else ()
    return {name: argument.required for argument in arguments for name in argument.names if name.startswith("--")}


def nearest(word: str, known: dict[str, bool]) -> str:
    """` (did you mean --dataset?)`, or nothing where no known flag is similar."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    return f" (did you mean {close[0]}?)" if close else ""


def _reason(error: BaseException, app: App) -> str:
    if isinstance(error, KeyboardInterrupt):
        return f"Interrupted{f': {error}' if str(error) else ''}."
    if isinstance(error, CycloptsError):
        return misuse(error, app)
    if isinstance(error, ValidationError):
        return f"Wrong settings: {explain(error)}"
    if isinstance(error, MllmrecError):
        return str(error)
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    if _is_full(error):
        where = f" while {error.filename} was written" if isinstance(error, OSError) and error.filename else ""
        return (
            f"The disk is full{where} ({reason}). Nothing that was finished is lost: free some space on the disk of "
            "--root, or of the folder for temporary files, and start the same command again."
        )
    if (known := _broken_input(error)) is not None:
        wrong, remedy = known
        return f"{wrong} ({reason}). {remedy}, and start the same command again; --debug shows where it was read."
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}. Nothing that was finished is lost; mend this and start again."
    return f"The stage failed unexpectedly: {reason}. Run it with --debug to see where."


def _broken_input(error: BaseException) -> tuple[str, str] | None:
    kind = type(error)
    return BROKEN_INPUTS.get((kind.__module__.partition(".")[0], kind.__name__))


def _is_full(error: BaseException) -> bool:
    """Whether a disk or quota is used up; some libraries report it only in the text of an error."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    return any(words in str(error).lower() for words in FULL_WORDS)


def _examples(verb: tuple[str, ...], flag: str) -> str:
    """What a missing flag may be, where that can be listed."""
    if (verb, flag) != (("run",), "--recipe"):
        return ""
    from mllmrec.pipeline.recipe import shipped_recipes

    return f", a file or one of the shipped recipes: {', '.join(shipped_recipes())}"
