"""What went wrong, as the command line tells it: one paragraph, and the exit status that goes with it."""

from __future__ import annotations

import difflib

from cyclopts import App, CycloptsError, MissingArgumentError, UnusedCliTokensError
from pydantic import ValidationError

from mllmrec.errors import MllmrecError
from mllmrec.settings.base import explain


def describe(error: BaseException, app: App) -> str:
    """One paragraph for an error of any kind, with the notes that were added on its way."""
    return " ".join([_reason(error, app), *getattr(error, "__notes__", ())])


def _reason(error: BaseException, app: App) -> str:
    if isinstance(error, KeyboardInterrupt):
        return f"Interrupted{f': {error}' if str(error) else ''}."
    if isinstance(error, CycloptsError):
        return misuse(error, app)
    if isinstance(error, ValidationError):
        return f"Wrong settings: {explain(error)}"
    if isinstance(error, MllmrecError):
        return str(error)
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}. Nothing that was finished is lost; mend this and start again."
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return f"The stage failed unexpectedly: {reason}. Run it with --debug to see where."


def status_of(error: Exception) -> int:
    """2 for wrong use or input, 3 for a stage that failed."""
    if isinstance(error, MllmrecError):
        return error.exit_status
    return 2 if isinstance(error, (CycloptsError, ValidationError)) else 3


def misuse(error: CycloptsError, app: App) -> str:
    """Everything that is wrong with a command line: flags that don't exist, missing ones, wrong values."""
    verb = tuple(error.command_chain or ())
    help_command = f"`{' '.join(['mllmrec', *verb])} --help`"
    known = flags(app, verb)
    given = [word.split("=")[0].replace("_", "-") for word in error.root_input_tokens or [] if word.startswith("--")]
    told = [f"there is no {word}{nearest(word, known)}" for word in given if known and word not in known]
    if isinstance(error, MissingArgumentError) and error.argument and error.argument.name not in given:
        missing = [name for name, required in known.items() if required and name not in given]
        told += [f"{name} is required" for name in missing]
    elif isinstance(error.__cause__, ValidationError):
        told.append(explain(error.__cause__, as_flags=True).rstrip("."))
    elif isinstance(error, UnusedCliTokensError):
        told.append(f"nothing is expected where {' '.join(error.unused_tokens or [])} stands")
    elif not told:
        return f"{str(error).strip()} See {help_command}."
    return f"Wrong command: {'; '.join(told)}. See {help_command}."


def flags(app: App, verb: tuple[str, ...]) -> dict[str, bool]:
    """The flags of a verb, and whether each is required."""
    for name in verb:
        app = app[name]
    arguments = app.assemble_argument_collection() if app.default_command else ()
    return {name: each.required for each in arguments for name in each.names if name.startswith("--")}


def nearest(word: str, known: dict[str, bool]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    return f" (did you mean {close[0]}?)" if close else ""
