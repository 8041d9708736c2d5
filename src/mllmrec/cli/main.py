"""The command line: runs a verb, takes --config and --debug, and prints errors.

Exit status: 0 done, 1 a check failed, 2 wrong use or input, 3 a stage failed, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

from cyclopts import App

from mllmrec.cli.screen import describe, status_of
from mllmrec.cli.verbs import app
from mllmrec.progress import nobody_reads, remark


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    open_closed_streams()
    words, recipe, debug = take_globals(sys.argv[1:] if arguments is None else arguments)
    try:
        app.config = () if recipe is None else recipe_defaults(recipe)
        app(words, exit_on_error=False, print_error=False, console=_help_console(words))
    except KeyboardInterrupt as error:
        remark(describe(error, app))
        sys.exit(130)
    except Exception as error:
        if debug:
            traceback.print_exc()
        remark(describe(error, app))
        sys.exit(status_of(error))
    finally:
        app.config = ()


def open_closed_streams() -> None:
    """Give a program that was started without standard output or error (`>&-`) one that goes nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))


def take_globals(arguments: list[str]) -> tuple[list[str], str | None, bool]:
    """The words without --config FILE and --debug, which belong to every verb."""
    words: list[str] = []
    recipe, rest = None, iter(arguments)
    for word in rest:
        if word == "--config":
            recipe = next(rest, "")
        elif word.startswith("--config="):
            recipe = word.removeprefix("--config=")
        elif word != "--debug":
            words.append(word)
    return words, recipe, "--debug" in arguments


def recipe_defaults(name: str) -> Any:
    """A cyclopts configuration that fills the flags nobody gave from the verb's block of a recipe."""
    from cyclopts import Token

    from mllmrec.pipeline.recipe import load_recipe

    def fill(_app: App, commands: tuple[str, ...], collection: Any) -> None:
        block = load_recipe(name).block(commands[0]) if commands else {}
        for argument in collection:
            key = argument.keys[-1] if argument.keys else argument.field_info.name
            if key in block and block[key] is not None and not argument.tokens:
                argument.append(Token(keyword=f"--{key}", value=as_text(block[key]), source=name))

    return fill


def as_text(value: Any) -> str:
    """A YAML value as it is written on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _help_console(words: list[str]) -> Any:
    """The console for help: rich's own would exit with 1, a failed check, when the reader of a pipe has gone."""
    if words and not {"--help", "-h", "--version"} & set(words):
        return None
    from rich.console import Console

    class HelpConsole(Console):
        def on_broken_pipe(self) -> None:
            nobody_reads(sys.stdout)
            sys.exit(0)

    return HelpConsole()
