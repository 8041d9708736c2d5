"""The verbs of the command line.

Flags, bounds and help texts come from the settings; a room is imported when its verb runs.
"""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from mllmrec import __version__
from mllmrec.cli.help import FLAGS, by_task
from mllmrec.cli.screen import finish
from mllmrec.settings.base import StageSettings
from mllmrec.settings.evaluation import CompareSettings, VerifySettings
from mllmrec.settings.pipeline import DemoSettings, RunRecipeSettings
from mllmrec.settings.resources import (
    DoctorSettings,
    FetchBackboneSettings,
    FetchDatasetSettings,
    FetchImagesSettings,
    ImportBackboneSettings,
)
from mllmrec.settings.serving import RecommendSettings, ServeSettings
from mllmrec.stages import STAGES, Stage, entry_point
from mllmrec.storage.workspace import Workspace

FLAT = Parameter(name="*", negative_iterable=())
STAGE_FLAGS = Parameter(name="*", negative_iterable=(), consume_multiple=True)
"""As FLAT, and a flag of several values takes all words up to the next flag: `--on A B`, `--names A B`."""
DEMO_TAGS = ("grpo", "sft-captions", "sft")
"""The demo's checkpoints that `demo --serve` serves."""

app = App(
    name="mllmrec",
    version=__version__,
    suppress_keyboard_interrupt=False,
    group_parameters=FLAGS,
    help="A reasoning recommender from interaction sequences, titles and images, with numbers that can be checked.",
    help_epilogue=(
        "Every verb also takes --config RECIPE (its block gives the defaults) and --debug (show a traceback). "
        "Start with `mllmrec demo`, or with `mllmrec doctor` on your own data."
    ),
)
fetch = App(name="fetch", help="Download public data sets, language models and posters.")
backbone = App(name="backbone", help="Make small language models from scratch, or model folders of GGUF files.")
app.command(fetch)
app.command(backbone)


def add_stage(stage: Stage) -> None:
    """Make a stage a verb: its settings are the flags, the first paragraph of their docstring is the help."""

    def verb(settings: StageSettings) -> None:
        finish(entry_point(stage.block)(settings, Workspace(settings.root)))

    verb.__annotations__ = {"settings": Annotated[stage.settings, STAGE_FLAGS], "return": None}
    *groups, name = stage.command.split()
    parent = app
    for group in groups:
        parent = parent[group]
    parent.command(verb, name=name, help=(stage.settings.__doc__ or "").partition("\n\n")[0])


for entry in STAGES.values():
    if entry.block == entry.verb:
        add_stage(entry)


@fetch.command(name="dataset")
def fetch_dataset(settings: Annotated[FetchDatasetSettings | None, FLAT] = None) -> None:
    """Download a public data set, check it and unpack it: `mllmrec fetch dataset NAME`."""
    from mllmrec.data.fetching.stage import run_dataset

    chosen = settings or FetchDatasetSettings()
    finish(run_dataset(chosen, Workspace(chosen.root)))


@fetch.command(name="backbone")
def fetch_backbone(settings: Annotated[FetchBackboneSettings, FLAT]) -> None:
    """Download a language model into a folder under the root: `mllmrec fetch backbone ID`."""
    from mllmrec.data.fetching.stage import run_backbone

    finish(run_backbone(settings, Workspace(settings.root)))


@fetch.command(name="images")
def fetch_images(*, settings: Annotated[FetchImagesSettings, FLAT]) -> None:
    """Fill a MovieLens dataset's images/ with posters from TMDB."""
    from mllmrec.data.fetching.posters import run_images

    finish(run_images(settings, Workspace(settings.root)))


@backbone.command(name="import")
def import_backbone(settings: Annotated[ImportBackboneSettings, FLAT]) -> None:
    """Make a model folder under the root of a GGUF file: `mllmrec backbone import FILE --out NAME`."""
    from mllmrec.training.backbones import run_import

    finish(run_import(settings, Workspace(settings.root)))


@app.command
def compare(*runs: str, metrics: str = "", root: str = ".", seed: int = 42) -> None:
    """Tell the paired differences of RUN folders from the first one, with intervals and corrected p-values.

    Parameters
    ----------
    runs
        RUN folders; each is compared with the first. Seeds of one configuration: A1,A2,A3 B1,B2,B3.
    metrics
        Metrics to compare, comma-separated; all by default. p-values are corrected for these.
    root
        Folder that holds result/; RUNs may be named relative to it.
    seed
        Seed of the resampling.
    """
    from mllmrec.evaluation.comparison.stage import run

    settings = CompareSettings.model_validate({"runs": runs, "metrics": metrics, "root": root, "seed": seed})
    finish(run(settings, Workspace(root)))


@app.command
def verify(*runs: str, root: str = ".", candidates: str | None = None) -> None:
    """Recompute every figure of RUN folders with a second implementation; exit status 1 where one differs.

    Parameters
    ----------
    runs
        RUN folders to check.
    root
        Folder that holds data/ and result/; RUNs may be named relative to it.
    candidates
        Candidate file they ranked; by default the one their settings name.
    """
    from mllmrec.evaluation.verifying.stage import run

    settings = VerifySettings.model_validate({"runs": runs, "root": root, "candidates": candidates})
    finish(run(settings, Workspace(root)))


@app.command(name="run")
def run_recipe(settings: Annotated[RunRecipeSettings, FLAT]) -> None:
    """Run the stages of a recipe in order, skipping the finished ones: `mllmrec run RECIPE`."""
    from mllmrec.pipeline.stage import run

    finish(run(settings))


@app.command
def demo(*, settings: Annotated[DemoSettings | None, FLAT] = None) -> None:
    """Run the whole pipeline on a small made-up world, in a few minutes on a laptop."""
    from mllmrec.demo.stage import run_demo

    chosen = settings or DemoSettings()
    if not chosen.serve:
        finish(run_demo(chosen))
        return
    from mllmrec.serving.commands import require_libraries, run_serve

    require_libraries()
    finish(run_demo(chosen))
    run_serve(ServeSettings(root=str(chosen.folder), dataset="demo", tag=DEMO_TAGS, port=0))


@app.command
def doctor(*, settings: Annotated[DoctorSettings | None, FLAT] = None) -> None:
    """Tell what is here, what fits, and what is missing with the command that mends it."""
    from mllmrec.doctor.report import run

    chosen = settings or DoctorSettings()
    finish(run(chosen, Workspace(chosen.root)))


@app.command
def recommend(*, settings: Annotated[RecommendSettings, STAGE_FLAGS]) -> None:
    """Recommend items after a history, or rank given ones, with a trained model."""
    from mllmrec.serving.commands import run_recommend

    if (summary := run_recommend(settings)) is not None:
        finish(summary)


@app.command
def serve(*, settings: Annotated[ServeSettings, STAGE_FLAGS]) -> None:
    """Serve trained models over HTTP, with a page to try them: `mllmrec serve --dataset NAME --tag TAG`."""
    from mllmrec.serving.commands import run_serve

    run_serve(settings)


by_task(app)
