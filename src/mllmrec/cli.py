"""The command line: verbs only. Flags, bounds and help texts come from the settings; a room loads when its verb runs.

Exit status: 0 done, 1 a check failed, 2 wrong use or input, 3 a stage failed, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, Any

from cyclopts import App, Parameter

from mllmrec import __version__
from mllmrec.artifacts import Workspace
from mllmrec.mistakes import describe, status_of
from mllmrec.records import Summary
from mllmrec.settings.backbone import BackboneSettings
from mllmrec.settings.candidates import CandidatesSettings
from mllmrec.settings.evaluation import BaselinesSettings, CompareSettings
from mllmrec.settings.pipeline import DemoSettings, RunRecipeSettings
from mllmrec.settings.prepare import PrepareSettings
from mllmrec.settings.ranking import EvaluateSettings
from mllmrec.settings.resources import DoctorSettings, FetchBackboneSettings, FetchDatasetSettings
from mllmrec.settings.training import GrpoSettings, MergeSettings, SftSettings

WIDE = 200
FLAT = Parameter(name="*", negative_iterable=())

app = App(
    name="mllmrec",
    version=__version__,
    suppress_keyboard_interrupt=False,
    help="A reasoning recommender from interaction sequences, titles and images, with numbers that can be checked.",
    help_epilogue=(
        "Every verb also takes --config RECIPE (its block gives the defaults) and --debug (show a traceback). "
        "Start with `mllmrec demo`, or with `mllmrec doctor` on your own data."
    ),
)
fetch = App(name="fetch", help="Download public data sets and language models.")
backbone = App(name="backbone", help="Make small language models from scratch.")
app.command(fetch)
app.command(backbone)


@app.command
def prepare(*, settings: Annotated[PrepareSettings, FLAT]) -> None:
    """Turn raw interaction files into a dataset: sequences, splits, titles, a data card."""
    from mllmrec.data.prepare import run

    finish(run(settings, Workspace(settings.root)))


@fetch.command(name="dataset")
def fetch_dataset(settings: Annotated[FetchDatasetSettings | None, FLAT] = None) -> None:
    """Download a public data set, check it and unpack it: `mllmrec fetch dataset NAME`."""
    from mllmrec.data.fetch import run_dataset

    chosen = settings or FetchDatasetSettings()
    finish(run_dataset(chosen, Workspace(chosen.root)))


@fetch.command(name="backbone")
def fetch_backbone(settings: Annotated[FetchBackboneSettings, FLAT]) -> None:
    """Download a language model into a folder under the root: `mllmrec fetch backbone ID`."""
    from mllmrec.data.fetch import run_backbone

    finish(run_backbone(settings, Workspace(settings.root)))


@backbone.command(name="tiny")
def backbone_tiny(*, settings: Annotated[BackboneSettings, FLAT]) -> None:
    """Make a small Qwen3 for a dataset, so that everything runs where no weights are."""
    from mllmrec.training.backbones import run

    finish(run(settings, Workspace(settings.root)))


@app.command
def candidates(*, settings: Annotated[CandidatesSettings, FLAT]) -> None:
    """Draw the candidate lists of a split once and freeze them in a hashed file."""
    from mllmrec.data.candidates_stage import run

    finish(run(settings, Workspace(settings.root)))


@app.command
def sft(*, settings: Annotated[SftSettings, FLAT]) -> None:
    """Fine-tune a backbone to answer with the next item."""
    from mllmrec.training.sft import run

    finish(run(settings, Workspace(settings.root)))


@app.command
def merge(*, settings: Annotated[MergeSettings, FLAT]) -> None:
    """Merge LoRA adapters into their backbone, checked to give the same log-probabilities."""
    from mllmrec.training.merge import run

    finish(run(settings, Workspace(settings.root)))


@app.command
def grpo(*, settings: Annotated[GrpoSettings, FLAT]) -> None:
    """Align a merged SFT model by rewards of its own sampled answers."""
    from mllmrec.training.grpo import run

    finish(run(settings, Workspace(settings.root)))


@app.command
def evaluate(*, settings: Annotated[EvaluateSettings, FLAT]) -> None:
    """Rank frozen candidates with a model; HR, NDCG and MRR with intervals."""
    from mllmrec.evaluation.ranking import run

    finish(run(settings, Workspace(settings.root)))


@app.command
def baselines(*, settings: Annotated[BaselinesSettings, FLAT]) -> None:
    """Rank the same candidates with models that know no language."""
    from mllmrec.evaluation.baselines_stage import run

    finish(run(settings, Workspace(settings.root)))


@app.command
def compare(*runs: str, root: str = ".", seed: int = 42) -> None:
    """Tell the paired differences of RUN folders from the first one, with intervals.

    Parameters
    ----------
    runs
        RUN folders; each is compared with the first.
    root
        Folder that holds result/; RUNs may be named relative to it.
    seed
        Seed of the resampling.
    """
    from mllmrec.evaluation.compare import run

    settings = CompareSettings.model_validate({"runs": runs, "root": root, "seed": seed})
    finish(run(settings, Workspace(root)))


@app.command(name="run")
def run_recipe(settings: Annotated[RunRecipeSettings, FLAT]) -> None:
    """Run the stages of a recipe in order, skipping the finished ones: `mllmrec run RECIPE`."""
    from mllmrec.pipeline import run

    finish(run(settings))


@app.command
def demo(*, settings: Annotated[DemoSettings | None, FLAT] = None) -> None:
    """Run the whole pipeline on a small made-up dataset, in about two minutes on a laptop."""
    from mllmrec.pipeline import run_demo

    finish(run_demo(settings or DemoSettings()))


@app.command
def doctor(*, settings: Annotated[DoctorSettings | None, FLAT] = None) -> None:
    """Tell what is here, what fits, and what is missing with the command that mends it."""
    from mllmrec.doctor import run

    chosen = settings or DoctorSettings()
    finish(run(chosen, Workspace(chosen.root)))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    words, recipe, debug = take_globals(sys.argv[1:] if arguments is None else arguments)
    try:
        app.config = () if recipe is None else recipe_defaults(recipe)
        app(words, exit_on_error=False, print_error=False)
    except KeyboardInterrupt as error:
        tell(f"Interrupted{f': {error}' if str(error) else ''}.")
        sys.exit(130)
    except Exception as error:
        if debug:
            traceback.print_exc()
        tell(describe(error, app))
        sys.exit(status_of(error))


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

    from mllmrec.settings.recipe import load_recipe

    def fill(_app: App, commands: tuple[str, ...], collection: Any) -> None:
        block = load_recipe(name).block(commands[0]) if commands else {}
        for argument in collection:
            key = argument.keys[-1] if argument.keys else argument.field_info.name
            if key in block and block[key] is not None and not argument.tokens:
                argument.append(Token(keyword=f"--{key}", value=as_text(block[key]), source=name))

    return fill


def as_text(value: Any) -> str:
    """A YAML value the way it would stand on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def finish(summary: Summary) -> None:
    """Show a stage's summary, from the first process alone."""
    if os.environ.get("RANK", "0") == "0":
        show(summary)


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
