"""The verbs. Flags, bounds and help texts come from the settings; a room loads when its verb runs."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from mllmrec import __version__
from mllmrec.cli.screen import finish
from mllmrec.settings.data import AuditSettings, CandidatesSettings, PrepareSettings, RetrieveSettings
from mllmrec.settings.evaluation import (
    BaselinesSettings,
    CompareSettings,
    EvaluateSettings,
    ProbeSettings,
    ReportSettings,
    VerifySettings,
)
from mllmrec.settings.pipeline import DemoSettings, RunRecipeSettings
from mllmrec.settings.resources import DoctorSettings, FetchBackboneSettings, FetchDatasetSettings, FetchImagesSettings
from mllmrec.settings.texts import AssessSettings, CaptionSettings, PseudoCotSettings, RefineSettings
from mllmrec.settings.training import BackboneSettings, GrpoSettings, MergeSettings, SftSettings
from mllmrec.storage.workspace import Workspace

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
fetch = App(name="fetch", help="Download public data sets, language models and posters.")
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


@backbone.command(name="tiny")
def backbone_tiny(*, settings: Annotated[BackboneSettings, FLAT]) -> None:
    """Make a small Qwen3 for a dataset, so that everything runs where no weights are."""
    from mllmrec.training.backbones import run

    finish(run(settings, Workspace(settings.root)))


@app.command
def caption(*, settings: Annotated[CaptionSettings, FLAT]) -> None:
    """Turn each item's image into one sentence: from the image itself, by a vision model, or behind a server."""
    from mllmrec.vision.captions import run

    finish(run(settings, Workspace(settings.root)))


@app.command(name="pseudo-cot")
def pseudo_cot(*, settings: Annotated[PseudoCotSettings, FLAT]) -> None:
    """Write a first chain of thought about each training history, blind to what came next."""
    from mllmrec.stages import run_pseudo_cot

    finish(run_pseudo_cot(settings, Workspace(settings.root)))


@app.command
def refine(*, settings: Annotated[RefineSettings, FLAT]) -> None:
    """Have a reasoning model rewrite the first chains of thought as four checked steps."""
    from mllmrec.reasoning.writing.refine import run

    finish(run(settings, Workspace(settings.root)))


@app.command
def assess(*, settings: Annotated[AssessSettings, FLAT]) -> None:
    """Score every chain of thought for trust, reject those that leak, keep the best."""
    from mllmrec.reasoning.assessment.stage import run

    finish(run(settings, Workspace(settings.root)))


@app.command
def audit(*, settings: Annotated[AuditSettings, FLAT]) -> None:
    """Look for leaks in all files of a dataset; exit status 1 when there is one."""
    from mllmrec.data.auditing.stage import run

    finish(run(settings, Workspace(settings.root)))


@app.command
def candidates(*, settings: Annotated[CandidatesSettings, FLAT]) -> None:
    """Draw the candidate lists of a split once and freeze them in a hashed file."""
    from mllmrec.data.candidates.stage import run

    finish(run(settings, Workspace(settings.root)))


@app.command
def retrieve(*, settings: Annotated[RetrieveSettings, FLAT]) -> None:
    """Let a recommender choose the negatives, or the whole list that is to be ranked better, and freeze them."""
    from mllmrec.evaluation.retrieval.stage import run

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
    """Align a merged SFT model by rewards: of answers it writes, of drawn candidates, or of whole lists."""
    from mllmrec.training.grpo.stage import run

    finish(run(settings, Workspace(settings.root)))


@app.command
def evaluate(*, settings: Annotated[EvaluateSettings, FLAT]) -> None:
    """Rank frozen candidates with a model; HR, NDCG and MRR with intervals."""
    from mllmrec.evaluation.ranking.stage import run

    finish(run(settings, Workspace(settings.root)))


@app.command
def baselines(*, settings: Annotated[BaselinesSettings, FLAT]) -> None:
    """Rank the same candidates with models that know no language."""
    from mllmrec.evaluation.baselines.stage import run

    finish(run(settings, Workspace(settings.root)))


@app.command
def probe(*, settings: Annotated[ProbeSettings, FLAT]) -> None:
    """Ask a model the same questions in other words: does it go by position, popularity, history, order, captions?"""
    from mllmrec.evaluation.probing.stage import run

    finish(run(settings, Workspace(settings.root)))


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


@app.command
def report(*, settings: Annotated[ReportSettings, FLAT]) -> None:
    """Write one page that shows all that is known: ladder, differences, curves, probes, audit, costs, cases."""
    from mllmrec.stages import run_report

    finish(run_report(settings, Workspace(settings.root)))


@app.command(name="run")
def run_recipe(settings: Annotated[RunRecipeSettings, FLAT]) -> None:
    """Run the stages of a recipe in order, skipping the finished ones: `mllmrec run RECIPE`."""
    from mllmrec.pipeline.stage import run

    finish(run(settings))


@app.command
def demo(*, settings: Annotated[DemoSettings | None, FLAT] = None) -> None:
    """Run the whole pipeline on a small made-up world, in a few minutes on a laptop."""
    from mllmrec.demo.stage import run_demo

    finish(run_demo(settings or DemoSettings()))


@app.command
def doctor(*, settings: Annotated[DoctorSettings | None, FLAT] = None) -> None:
    """Tell what is here, what fits, and what is missing with the command that mends it."""
    from mllmrec.doctor.report import run

    chosen = settings or DoctorSettings()
    finish(run(chosen, Workspace(chosen.root)))


ORDER = (
    *("prepare", "fetch", "caption", "pseudo-cot", "refine", "assess", "audit", "backbone", "candidates", "retrieve"),
    *("baselines", "sft", "merge", "grpo", "evaluate", "compare", "verify", "probe", "report", "run", "demo", "doctor"),
)
"""The verbs in the order in which they are used, which is that of --help."""
for place, verb in enumerate(ORDER):
    app[verb].sort_key = place
