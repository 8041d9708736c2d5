"""What SFT and GRPO need before their trainers: inputs, prompt format, rows, trainer arguments, GRPO's base model."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from datasets import Dataset
from peft import LoraConfig

from mllmrec.data.hints import hint_file
from mllmrec.data.item_files import read_captions
from mllmrec.data.model_folders import is_adapter, lacking
from mllmrec.data.prompts import TEMPLATE_VERSION, PromptFormat, inherited
from mllmrec.errors import ArtifactError, SettingsError, install_command
from mllmrec.models.chat import Encoder
from mllmrec.models.chat_templates import read_template, template_hash
from mllmrec.models.huggingface import LoadedModel
from mllmrec.models.suitability import within_context
from mllmrec.records import RankingExample
from mllmrec.settings.training import GrpoSettings, SftSettings, TrainingSettings
from mllmrec.storage.manifests import Manifest, hash_files, hash_model
from mllmrec.storage.workspace import Workspace
from mllmrec.training import checkpoints
from mllmrec.training.datasets import TrainingExamples, hint_draw

VALIDATIONS = 10
Settings = TypeVar("Settings", bound=TrainingSettings)
MakeRow = Callable[[RankingExample, str | None], dict[str, Any]]


def training_inputs(settings: TrainingSettings, workspace: Workspace, model: str) -> dict[str, str]:
    """Hashes of all that a training run reads."""
    dataset = workspace.dataset(settings.dataset)
    files = hash_files(
        train=dataset.split("train"),
        valid=dataset.split("valid"),
        titles=dataset.titles,
    )
    if settings.captions != "off":
        files |= hash_files(captions=dataset.captions)
    if (draw := hint_draw(settings)) is not None:
        files |= hash_files(traces=hint_file(dataset, draw))
    files |= {"template": TEMPLATE_VERSION} | template_hash(settings.chat_template)
    return files | {"model": hash_model(Path(model)) if Path(model).is_dir() else model}


def asked_format(settings: TrainingSettings, workspace: Workspace) -> tuple[PromptFormat, dict[str, str]]:
    """The prompt format that the settings name, and the captions it uses."""
    captions = read_captions(workspace, settings.dataset, settings.captions)
    share = settings.cot_prob if settings.use_cot else 0.0
    as_thought = isinstance(settings, SftSettings) and settings.cot_as == "answer"
    thinks = isinstance(settings, GrpoSettings) and settings.think
    chosen = PromptFormat(
        window=settings.min_inter,
        captions=bool(captions),
        max_prompt_tokens=settings.max_prompt_tokens,
        hint_share=0.0 if as_thought else share,
        thought_share=1.0 if thinks else share if as_thought else 0.0,
        candidates=settings.num_neg + 1,
    )
    return chosen, captions


def row_dataset(examples: TrainingExamples, epochs: int) -> Dataset:
    """A datasets.Dataset of bare (epoch, index) rows in training order; `RowWriter` gives them content."""
    rows = list(examples.rows(epochs))
    return Dataset.from_dict({"epoch": [epoch for epoch, _ in rows], "index": [index for _, index in rows]})


@dataclass(frozen=True, kw_only=True)
class RowWriter:
    """A collator that writes rows when a batch is asked for, and hands them on to `collate`.

    It is a collator and no transform of the dataset because `datasets` hashes a transform with all that it holds,
    which takes a minute for a million questions.
    """

    examples: TrainingExamples
    make: MakeRow
    collate: Callable[[list[dict[str, Any]]], Any] = list

    def __call__(self, rows: Sequence[Mapping[str, int]]) -> Any:
        drawn = [self.examples.example(row["epoch"], row["index"]) for row in rows]
        hints = self.examples.hints
        return self.collate([self.make(example, hints.get(example.example_id)) for example in drawn])


@dataclass(frozen=True, kw_only=True)
class TrainerParts(Generic[Settings]):
    """What every trainer is put together from.

    `folder` is the checkpoint that is trained, `steps` the updates of the weights in the whole run, `lora` the adapters
    to be put on the model, None where all its weights are trained.
    """

    settings: Settings
    folder: Path
    loaded: LoadedModel
    encoder: Encoder
    examples: TrainingExamples
    steps: int
    lora: LoraConfig | None


def trainer_arguments(parts: TrainerParts[Any]) -> dict[str, Any]:
    """The arguments that all trainers take."""
    settings, folder, steps = parts.settings, parts.folder, parts.steps
    device = parts.loaded.model.device.type
    on_gpu = device == "cuda"
    if settings.track:
        _require_tensorboard()
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "learning_rate": settings.lr,
        "warmup_steps": round(settings.warmup_share * steps),
        "lr_scheduler_type": "linear",
        "bf16": on_gpu,
        "use_cpu": device == "cpu",
        "activation_checkpointing": {"auto": on_gpu, "on": True, "off": False}[settings.gradient_checkpointing],
        "logging_steps": settings.logging_steps,
        "save_strategy": "steps",
        "save_steps": settings.save_steps,
        "save_total_limit": 2,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "dataloader_num_workers": settings.workers,
        "dataloader_pin_memory": on_gpu,
        "ddp_find_unused_parameters": False,
        "remove_unused_columns": False,
        "report_to": ["tensorboard"] if settings.track else [],
    }


def validation_steps(settings: TrainingSettings, steps: int) -> int:
    """Steps between validations."""
    return settings.eval_steps or max(1, steps // VALIDATIONS)


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def full_model(settings: GrpoSettings, workspace: Workspace) -> Path:
    """The checkpoint GRPO starts from: merged, or trained in full."""
    folder = workspace.checkpoint(settings.dataset, settings.sft_tag)
    if is_adapter(folder):
        raise ArtifactError(
            f"{folder} holds adapters, and GRPO starts from a full model. Merge it first: mllmrec merge --dataset "
            f"{settings.dataset} --tag {settings.sft_tag}, then use --sft-tag {settings.sft_tag}-merged."
        )
    if Manifest.read(folder) is None and (lacking(folder) or (folder / checkpoints.UNFINISHED).exists()):
        raise ArtifactError(
            f"{folder} is no finished checkpoint. Train it with `mllmrec sft` and merge it with `mllmrec merge`."
        )
    return folder


def as_trained(settings: GrpoSettings, base: Path) -> GrpoSettings:
    """`settings` with the prompt format of the model that GRPO starts from, so that saying it or not is the same.

    A budget of tokens that is asked for is GRPO's own; where no format is known it is within what the model reads.
    Raises SettingsError for settings that contradict the format.
    """
    asked: dict[str, Any] = {}
    if "min_inter" in settings.model_fields_set:
        asked["window"] = settings.min_inter
    if settings.captions != "auto":
        asked["captions"] = settings.captions == "on"
    if settings.chat_template:
        asked["chat_template"] = read_template(settings.chat_template)
    known = inherited(PromptFormat.of(Manifest.read(base)), asked, str(base))
    if known is None:
        return within_context(settings, str(base))
    update: dict[str, Any] = {"min_inter": known.window, "captions": "on" if known.captions else "off"}
    update["chat_template"] = ""
    if "max_prompt_tokens" not in settings.model_fields_set:
        update["max_prompt_tokens"] = known.max_prompt_tokens
    return settings.model_copy(update=update)


def _require_tensorboard() -> None:
    if importlib.util.find_spec("tensorboard") is None:
        raise SettingsError(f"--track needs TensorBoard. Install it: {install_command('track')}.")
