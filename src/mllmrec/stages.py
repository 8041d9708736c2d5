"""The `run` function of every verb that a recipe may hold; a room is imported only when its verb is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mllmrec.errors import ArtifactError
from mllmrec.progress import note
from mllmrec.records import Summary
from mllmrec.settings.evaluation import ReportSettings
from mllmrec.settings.texts import PseudoCotSettings
from mllmrec.storage.workspace import Workspace

Run = Callable[[Any, Workspace], Summary]
WRITER_PIXELS = 262_144
POSTER_PIXELS = 72 * 108


def entry_point(verb: str) -> Run:
    """The `run` function of a verb."""
    for stages in (_data_stage, _reasoning_stage, _model_stage):
        if (run := stages(verb)) is not None:
            return run
    raise ArtifactError(f"{verb} is no stage of a recipe.")


def run_pseudo_cot(settings: PseudoCotSettings, workspace: Workspace) -> Summary:
    """Write traces; a vision model is handed the history's images, which reasoning can't open by itself."""
    from mllmrec.reasoning.writing.pseudo_cot import run
    from mllmrec.vision.images import ImageFolder

    images = ImageFolder(workspace.images(settings.dataset))
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

    images = ImageFolder(workspace.images(settings.dataset))
    return run(settings, workspace, load_picture=lambda item: images.picture(item, POSTER_PIXELS))


def _data_stage(verb: str) -> Run | None:
    match verb:
        case "prepare":
            from mllmrec.data.prepare import run as prepare

            return prepare
        case "candidates":
            from mllmrec.data.candidates.stage import run as candidates

            return candidates
        case "audit":
            from mllmrec.data.auditing.stage import run as audit

            return audit
    return None


def _reasoning_stage(verb: str) -> Run | None:
    match verb:
        case "caption":
            from mllmrec.vision.captions import run as caption

            return caption
        case "pseudo-cot":
            return run_pseudo_cot
        case "refine":
            from mllmrec.reasoning.writing.refine import run as refine

            return refine
        case "assess":
            from mllmrec.reasoning.assessment.stage import run as assess

            return assess
    return None


def _model_stage(verb: str) -> Run | None:
    match verb:
        case "backbone":
            from mllmrec.training.backbones import run as backbone

            return backbone
        case "retrieve":
            from mllmrec.evaluation.retrieval.stage import run as retrieve

            return retrieve
        case "baselines":
            from mllmrec.evaluation.baselines.stage import run as baselines

            return baselines
        case "sft":
            from mllmrec.training.sft import run as sft

            return sft
        case "merge":
            from mllmrec.training.merge import run as merge

            return merge
        case "grpo":
            from mllmrec.training.grpo.stage import run as grpo

            return grpo
        case "evaluate":
            from mllmrec.evaluation.ranking.stage import run as evaluate

            return evaluate
        case "probe":
            from mllmrec.evaluation.probing.stage import run as probe

            return probe
        case "report":
            return run_report
    return None
