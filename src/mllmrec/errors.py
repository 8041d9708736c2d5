"""The exceptions this package raises on purpose.

    MllmrecError
    ├── DataError      (ValueError)    a file or record is not what it should be
    ├── SettingsError  (ValueError)    a flag, a recipe key or a combination of them is wrong
    ├── ArtifactError  (RuntimeError)  an artifact is missing, unfinished, or was made with other settings
    └── BackendError   (RuntimeError)  a model, a device or a server can't do what was asked
        └── UnscorableError            a model's answers can't be scored exactly

Each message is one paragraph: what happened, where, what was expected, what to do next. The command line
prints it without a traceback; `exit_status` is what the process then returns.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class MllmrecError(Exception):
    """Base of all errors that name a mistake the reader can mend."""

    exit_status = 2


class DataError(MllmrecError, ValueError):
    """A file or a record is not what it should be; the message carries file:line where there is one."""


class SettingsError(MllmrecError, ValueError):
    """A flag, a recipe key or a combination of settings is wrong."""


class ArtifactError(MllmrecError, RuntimeError):
    """An artifact is missing, unfinished, or was made with other settings."""


class BackendError(MllmrecError, RuntimeError):
    """A model, a device or a server can't do what was asked."""

    exit_status = 3


class UnscorableError(BackendError):
    """A model's answers can't be scored exactly; a verb that needs scores adds what it offers in their place."""


@contextmanager
def advising(advice: str) -> Iterator[None]:
    """For the block, an UnscorableError ends with what its verb offers in place of exact scores."""
    try:
        yield
    except UnscorableError as error:
        raise BackendError(f"{error} {advice}") from error


def install_command(extra: str = "") -> str:
    """The command that installs this package, with an extra of it, from the folder of its sources.

    >>> install_command("track")
    "pip install -c requirements.lock -e '.[track]'"
    """
    return "pip install -c requirements.lock -e " + (f"'.[{extra}]'" if extra else ".")
