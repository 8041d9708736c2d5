"""The time that each stage of a recipe takes on this machine's processor: training/speed.py times, this adds up.

A stage is planned with the model that it will have: GRPO and evaluation find the fine-tuning they build on among the
recipe's stages, and take its backbone and prompt format. Stages that differ in nothing but names are timed once.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mllmrec.errors import MllmrecError, SettingsError
from mllmrec.records import Table
from mllmrec.settings.base import StageSettings
from mllmrec.settings.evaluation import EvaluateSettings
from mllmrec.settings.training import GrpoSettings, SftSettings
from mllmrec.stages import STAGES, with_window_of_dataset
from mllmrec.storage.workspace import Workspace

TIMED = ("sft", "grpo", "evaluate")
INHERITED = ("min_inter", "captions", "max_prompt_tokens", "chat_template")
NAMES = {"tag", "sft_tag", "shard", "root", "overwrite", "resume"}


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """The seconds of one stage: of its `work` (in words), of validation, and until it begins; `reason` if unknown."""

    stage: str
    work: str = ""
    working: float = 0.0
    validating: float = 0.0
    starting: float = 0.0
    reason: str = ""

    @property
    def total(self) -> float:
        return self.working + self.validating + self.starting


def time_plan(stages: Sequence[StageSettings], workspace: Workspace) -> list[StageTime]:
    """The time of each stage that computes with a model. Raises SettingsError when none of them can be timed."""
    known: dict[str, Any] = {}
    stages = [with_window_of_dataset(stage, workspace) for stage in stages]
    planned = [_time(stage, stages, workspace, known) for stage in stages if stage.verb in TIMED]
    if not planned:
        raise SettingsError(f"The recipe has none of the stages that can be timed: {', '.join(TIMED)}.")
    if all(stage.reason for stage in planned):
        raise SettingsError(
            "--plan without a GPU times the stages on this machine, and none of them can be timed yet: "
            f"{planned[0].reason} To plan the memory of a GPU, name it: --gpu 24 (in GiB)."
        )
    return planned


def time_table(planned: Sequence[StageTime]) -> Table:
    """All stages with their seconds, and the sum of those that are known."""
    rows = [
        (stage.stage, "not known", "", "", "", "")
        if stage.reason
        else (stage.stage, stage.work, *map(_shown, (stage.working, stage.validating, stage.starting, stage.total)))
        for stage in planned
    ]
    rows.append(("sum", "", "", "", "", _shown(sum(stage.total for stage in planned))))
    return Table(
        title="Time on this machine's processor",
        columns=("stage", "work", "working", "validation", "start", "total"),
        rows=tuple(rows),
        note="timed for a few seconds on few layers with random weights; with other programs beside it, longer",
    )


def unknown(planned: Sequence[StageTime]) -> Iterator[str]:
    """Why stages have no time, each reason once."""
    reasons: dict[str, list[str]] = {}
    for stage in planned:
        if stage.reason:
            reasons.setdefault(stage.reason, []).append(stage.stage)
    for reason, names in reasons.items():
        yield f"The time of {', '.join(names)} isn't known: {reason}"


def _time(
    stage: StageSettings, stages: Sequence[StageSettings], workspace: Workspace, known: dict[str, Any]
) -> StageTime:
    tag = getattr(stage, "tag", "") or getattr(stage, "sft_tag", "") or getattr(stage, "backbone", "")
    name = f"{stage.verb} {tag}".strip()
    try:
        if isinstance(stage, SftSettings | GrpoSettings):
            return _training_time(name, stage, stages, workspace, known)
        assert isinstance(stage, EvaluateSettings)
        return _ranking_time(name, stage, stages, workspace, known)
    except MllmrecError as error:
        return StageTime(stage=name, reason=str(error))


def _training_time(
    name: str,
    stage: SftSettings | GrpoSettings,
    stages: Sequence[StageSettings],
    workspace: Workspace,
    known: dict[str, Any],
) -> StageTime:
    if isinstance(stage, GrpoSettings) and stage.rollouts != "exact":
        raise SettingsError(f"only exact rollouts are timed, not --rollouts {stage.rollouts}.")
    from mllmrec.models.huggingface import resolve

    asked, backbone = _as_trained(stage, stages, workspace)
    source = resolve(workspace, backbone)
    _starts(source, known)
    from mllmrec.training.speed import TrainingTime, time_training

    key = _key(asked, source)
    if key not in known:
        known[key] = time_training(asked, workspace, source)
    timed: TrainingTime = known[key]
    return StageTime(
        stage=name,
        work=f"{timed.steps:,} steps of {timed.step_seconds:.2g} s",
        working=timed.steps * timed.step_seconds,
        validating=timed.readings * timed.reading_seconds,
        starting=known["training"],
    )


def _ranking_time(
    name: str, stage: EvaluateSettings, stages: Sequence[StageSettings], workspace: Workspace, known: dict[str, Any]
) -> StageTime:
    if stage.method != "score":
        raise SettingsError(f"only exact scores are timed, not --method {stage.method}.")
    from mllmrec.data.candidates.drawing import sliced
    from mllmrec.data.candidates.files import ranked_lists
    from mllmrec.data.item_files import read_captions
    from mllmrec.data.sequences import Interactions
    from mllmrec.evaluation.ranking.runs import candidate_file
    from mllmrec.models.huggingface import resolve

    asked, backbone = _as_trained(stage, stages, workspace)
    source, path = resolve(workspace, backbone), candidate_file(asked, workspace)
    _starts(source, known)
    key = _key(asked, source)
    interactions = Interactions.load(workspace, asked.dataset)
    examples = sliced(ranked_lists(path, interactions, asked.min_inter), asked.limit, asked.seed)
    if key not in known:
        from mllmrec.training.speed import time_ranking

        captions = read_captions(workspace, asked.dataset, asked.captions)
        known[key] = time_ranking(asked, source, interactions.catalogue, captions, examples)
    users = len(examples) // int(asked.shard.partition("/")[2] or 1)
    return StageTime(
        stage=f"{name}, part {asked.shard}" if asked.shard else name,
        work=f"{users:,} users of {known[key]:.2g} s",
        working=users * known[key],
        starting=known["ranking"],
    )


def _starts(source: str, known: dict[str, Any]) -> None:
    """The processor time until ranking begins, and training: what this process has taken with their imports done."""
    if "ranking" in known:
        return
    importlib.import_module("mllmrec.evaluation.ranking.stage")
    importlib.import_module("mllmrec.models.suitability").model_class(source)
    known["ranking"] = time.process_time()
    importlib.import_module("mllmrec.training.speed")
    known["training"] = time.process_time()


def _as_trained(stage: Any, stages: Sequence[StageSettings], workspace: Workspace) -> tuple[Any, str]:
    """A stage's settings with the prompt format of the fine-tuning it builds on, and the model whose shape it has."""
    if isinstance(stage, SftSettings):
        return stage, stage.backbone
    origin = _origin(stage, stages)
    if origin is not None:
        given = {name: getattr(origin, name) for name in INHERITED if name not in stage.model_fields_set}
        return stage.model_copy(update=given), origin.backbone
    tag = stage.sft_tag or getattr(stage, "tag", "")
    return stage, str(workspace.checkpoint(stage.dataset, tag)) if tag else stage.backbone


def _origin(stage: Any, stages: Sequence[StageSettings]) -> SftSettings | None:
    """The fine-tuning among the stages that a stage's model comes from."""
    for before in reversed(stages[: stages.index(stage)]):
        tags = (stage.sft_tag,) if isinstance(stage, GrpoSettings) else (stage.tag, getattr(stage, "sft_tag", ""))
        made = STAGES[before.verb].makes(before)
        if any(f"model {tag}" in made for tag in tags if tag):
            return before if isinstance(before, SftSettings) else _origin(before, stages)
    return None


def _key(settings: StageSettings, source: str) -> str:
    return f"{settings.verb} {source} {settings.model_dump(exclude=NAMES | {'backbone', 'fold'})}"


def _shown(seconds: float) -> str:
    return f"{seconds:,.1f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"
