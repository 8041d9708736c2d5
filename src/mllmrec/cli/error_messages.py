"""Errors as the command line prints them: one paragraph each, and the exit status that goes with it."""

from __future__ import annotations

import difflib
import errno

from cyclopts import App, CycloptsError, MissingArgumentError, UnusedCliTokensError
from pydantic import ValidationError

from mllmrec.errors import MllmrecError
from mllmrec.settings.base import explain

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
