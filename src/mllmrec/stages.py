"""The registry of stages: one entry for each, in the order in which a recipe runs them.

An entry names the settings of a stage (whose class gives the verb, the flags and their help), how its `run` function is
loaded, what it reads, and what it makes. Everything that lists stages comes from here: the verbs of the command line,
the blocks of a recipe, which stages wait for which, the optional files that `mllmrec doctor` looks for, and the list
that the tests of the pipeline go through. A room is imported only when a stage of it is loaded.

Stages are tied to each other by products (`captions`, `model sft`) rather than by paths, and in doubt by one product
too many: a stage that waits without need costs time, one that doesn't wait costs the result. That the audit has passed
is a product that `sft` and `grpo` read, so neither begins beside an audit, or after one that failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeVar

from mllmrec.errors import ArtifactError
from mllmrec.progress import note
from mllmrec.records import Summary
from mllmrec.settings.base import DatasetSettings, StageSettings
from mllmrec.settings.data import AuditSettings, CandidatesSettings, PrepareSettings, RetrieveSettings
from mllmrec.settings.evaluation import (
    BaselinesSettings,
    BlendSettings,
    EvaluateSettings,
    ProbeSettings,
    ReportSettings,
)
from mllmrec.settings.texts import AssessSettings, CaptionSettings, PseudoCotSettings, RefineSettings
from mllmrec.settings.training import BackboneSettings, GrpoSettings, MergeSettings, SftSettings
from mllmrec.storage.workspace import DatasetFiles, Workspace, read_json

Run = Callable[[Any, Workspace], Summary]
Products = frozenset[str]
ProductsOf = Callable[[Any], Products]
"""From the settings of a stage to the names of what it reads, or of what it makes."""

Settings = TypeVar("Settings", bound=StageSettings)

WRITER_PIXELS = 262_144
POSTER_PIXELS = 72 * 108


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: its settings, how its `run` is loaded, what it reads, and what it makes.

    `block` is the block of a recipe that holds the settings, and `command` what the stage is called on the command
    line. A stage whose `reads` is None reads whatever was made before it. `file` is the optional file of a dataset that
    the stage makes, and `without` says what its absence means.
    """

    block: str
    command: str
    settings: type[StageSettings]
    load: Callable[[], Run]
    reads: ProductsOf | None
    makes: ProductsOf
    file: Callable[[DatasetFiles], Path] | None = None
    without: str = ""

    @property
    def verb(self) -> str:
        return self.settings.verb


STAGES: dict[str, Stage] = {}
"""Every stage by its block of a recipe, in the order of the pipeline."""


def entry_point(verb: str) -> Run:
    """The `run` function of a stage, for windows as `prepare` made them; an ArtifactError for a verb that is none."""
    if verb not in STAGES:
        raise ArtifactError(f"{verb} is no stage of a recipe.")
    run = STAGES[verb].load()
    return lambda settings, workspace: run(with_window_of_dataset(settings, workspace), workspace)


def with_window_of_dataset(settings: Settings, workspace: Workspace) -> Settings:
    """The settings with the --min-inter that the dataset was prepared with, where none was given.

    Another one that was given counts, and a note says so. Files that `prepare` didn't make tell nothing.
    """
    if not isinstance(settings, DatasetSettings) or isinstance(settings, PrepareSettings):
        return settings
    card = workspace.dataset(settings.dataset).card
    window = read_json(card).get("window") if card.exists() else None
    asked = getattr(settings, "min_inter", window)
    if window is None or asked == window:
        return settings
    if "min_inter" in settings.model_fields_set:
        note(f"--min-inter is {asked}, and {settings.dataset} was prepared with {window}: windows of {asked} are used.")
        return settings
    inherited = settings.model_copy(update={"min_inter": window})
    inherited.model_fields_set.discard("min_inter")
    return inherited


def tied(before: StageSettings, after: StageSettings) -> bool:
    """Whether a stage waits for an earlier one.

    It does when that one makes what it reads, or reads or makes what it makes anew.

    >>> tied(MergeSettings(dataset="shop"), GrpoSettings(dataset="shop", sft_tag="sft-merged"))
    True
    >>> tied(MergeSettings(dataset="shop"), GrpoSettings(dataset="shop", sft_tag="other"))
    False
    """
    first, second = STAGES[before.verb], STAGES[after.verb]
    if first.reads is None or second.reads is None:
        return True
    made, anew = first.makes(before), second.makes(after)
    return bool(made & (second.reads(after) | anew) or first.reads(before) & anew)


def always(*products: str) -> ProductsOf:
    """The same products whatever the settings."""
    return lambda _settings: frozenset(products)


def models(*names: str) -> Products:
    """A model may be named by its tag, by its folder or by a path: the last part is the same.

    >>> models("checkpoints/shop/base", "")
    frozenset({'model base'})
    """
    return frozenset(f"model {PurePath(name).name}" for name in names if name)


def stage(
    settings: type[StageSettings],
    *,
    reads: ProductsOf | None,
    makes: ProductsOf,
    block: str = "",
    command: str = "",
    file: Callable[[DatasetFiles], Path] | None = None,
    without: str = "",
) -> Callable[[Callable[[], Run]], Stage]:
    """Enter a stage in the registry; decorates the function that imports its room and returns its `run`.

    `block` and `command` are the verb unless they are given.
    """

    def enter(load: Callable[[], Run]) -> Stage:
        entry = Stage(
            block=block or settings.verb,
            command=command or settings.verb,
            settings=settings,
            load=load,
            reads=reads,
            makes=makes,
            file=file,
            without=without,
        )
        STAGES[entry.block] = entry
        return entry

    return enter


def _training_reads(settings: SftSettings | GrpoSettings) -> Products:
    start = settings.backbone if isinstance(settings, SftSettings) else settings.sft_tag
    hints = {"traces"} if settings.use_cot else set()
    return frozenset({"lines", "captions", "audit"}) | hints | models(start)


def _grpo_makes(settings: GrpoSettings) -> Products:
    check = {f"replay {settings.sft_tag}"} if settings.replay else set()
    return models(settings.tag) | check


def _ranking_reads(settings: EvaluateSettings | ProbeSettings) -> Products:
    hints = {"traces"} if isinstance(settings, ProbeSettings) else set()
    asked = settings.tag, settings.sft_tag, settings.backbone
    return frozenset({"lines", "captions", "candidates"}) | hints | models(*asked)


def _ranking_makes(settings: EvaluateSettings | ProbeSettings) -> Products:
    """Rankings differ by model and part, so that models, and the parts of one ranking, may be ranked side by side."""
    model = PurePath(settings.tag or settings.sft_tag or settings.backbone).name
    return frozenset({f"{settings.verb} {model} {getattr(settings, 'shard', '')}"})


@stage(PrepareSettings, reads=always(), makes=always("lines"))
def prepare() -> Run:
    from mllmrec.data.prepare import run

    return run


@stage(
    CaptionSettings,
    reads=always("lines"),
    makes=always("captions"),
    file=lambda files: files.captions,
    without="prompts hold titles alone",
)
def caption() -> Run:
    from mllmrec.vision.captions import run

    return run


@stage(
    PseudoCotSettings,
    reads=always("lines", "captions"),
    makes=always("traces"),
    file=lambda files: files.pseudo_cot,
    without="--use-cot has nothing to show",
)
def pseudo_cot() -> Run:
    return run_pseudo_cot


@stage(
    RefineSettings,
    reads=always("lines", "captions", "traces"),
    makes=always("traces"),
    file=lambda files: files.refined_cot,
    without="drafts are all there is",
)
def refine() -> Run:
    from mllmrec.reasoning.writing.refine import run

    return run


@stage(
    BackboneSettings,
    reads=always("lines", "captions", "traces"),
    makes=lambda settings: models(settings.out),
    command="backbone tiny",
)
def backbone() -> Run:
    from mllmrec.training.backbones import run

    return run


@stage(CandidatesSettings, reads=always("lines"), makes=always("candidates"))
def candidates() -> Run:
    from mllmrec.data.candidates.stage import run

    return run


@stage(RetrieveSettings, reads=always("lines", "captions"), makes=always("candidates", "fitted baselines"))
def retrieve() -> Run:
    from mllmrec.evaluation.retrieval.stage import run

    return run


@stage(BaselinesSettings, reads=always("lines", "captions", "candidates"), makes=always("fitted baselines"))
def baselines() -> Run:
    from mllmrec.evaluation.baselines.stage import run

    return run


@stage(SftSettings, reads=_training_reads, makes=lambda settings: models(settings.tag), block="scorers")
def scorers() -> Run:
    """The models that measure what a trace is worth: `sft`, before `assess`."""
    return sft.load()


@stage(
    AssessSettings,
    reads=lambda settings: frozenset({"lines", "captions", "traces"}) | models(*settings.scorer),
    makes=always("traces"),
    file=lambda files: files.assessed_cot,
    without="no trace is checked",
)
def assess() -> Run:
    from mllmrec.reasoning.assessment.stage import run

    return run


@stage(AuditSettings, reads=always("lines", "captions", "traces", "candidates"), makes=always("audit"))
def audit() -> Run:
    from mllmrec.data.auditing.stage import run

    return run


@stage(SftSettings, reads=_training_reads, makes=lambda settings: models(settings.tag))
def sft() -> Run:
    from mllmrec.training.sft import run

    return run


@stage(
    MergeSettings,
    reads=lambda settings: frozenset({"lines"}) | models(settings.tag, settings.backbone),
    makes=lambda settings: models(settings.merged_tag or f"{settings.tag}-merged"),
)
def merge() -> Run:
    from mllmrec.training.merge import run

    return run


@stage(GrpoSettings, reads=_training_reads, makes=_grpo_makes)
def grpo() -> Run:
    from mllmrec.training.grpo.stage import run

    return run


@stage(EvaluateSettings, reads=_ranking_reads, makes=_ranking_makes)
def evaluate() -> Run:
    from mllmrec.evaluation.ranking.stage import run

    return run


@stage(BlendSettings, reads=None, makes=always())
def blend() -> Run:
    """It reads RUNs by their paths, whichever stages made them."""
    from mllmrec.evaluation.blending.stage import run

    return run


@stage(ProbeSettings, reads=_ranking_reads, makes=_ranking_makes)
def probe() -> Run:
    from mllmrec.evaluation.probing.stage import run

    return run


@stage(ReportSettings, reads=None, makes=always())
def report() -> Run:
    return run_report


def run_pseudo_cot(settings: PseudoCotSettings, workspace: Workspace) -> Summary:
    """Write traces; a vision model is handed the history's images, which reasoning can't open by itself."""
    from mllmrec.reasoning.writing.pseudo_cot import run
    from mllmrec.vision.images import ImageFolder

    images = ImageFolder(workspace.dataset(settings.dataset).images)
    if not len(images):
        if settings.backend != "profile" and settings.images == "on":
            note(f"{images.folder} holds no images: the writer is shown titles, and captions where there are any.")
        return run(settings, workspace)
    return run(
        settings,
        workspace,
        load_picture=lambda item: images.picture(item, WRITER_PIXELS),
        picture_version=images.version,
    )


def run_report(settings: ReportSettings, workspace: Workspace) -> Summary:
    """Write the report; it is handed the items' images, small, which evaluation can't open by itself."""
    from mllmrec.evaluation.reporting.stage import run
    from mllmrec.vision.images import ImageFolder

    images = ImageFolder(workspace.dataset(settings.dataset).images)
    return run(settings, workspace, load_picture=lambda item: images.picture(item, POSTER_PIXELS))
