"""What SFT and GRPO need before their trainers: prompts, validation, LoRA, trainer arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig

from mllmrec.artifacts import Workspace
from mllmrec.backends.base import ScoringTask
from mllmrec.backends.huggingface import LoadedModel
from mllmrec.data.captions import read_captions
from mllmrec.data.formats import PromptFormat
from mllmrec.data.prompts import Renderer
from mllmrec.data.sequences import Interactions
from mllmrec.errors import SettingsError
from mllmrec.records import RankingExample
from mllmrec.settings.training import TrainingSettings
from mllmrec.training.callbacks import Validation
from mllmrec.training.datasets import validation_examples

LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VALIDATION_TOKENS = 8192
VALIDATIONS = 10


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Turns examples into token ids: the renderer and the chat of one model."""

    renderer: Renderer[list[int]]
    loaded: LoadedModel

    def prompt_ids(self, example: RankingExample, hint: str | None = None) -> list[int]:
        return self.renderer.fit(example, hint)[1]

    def prompt_text(self, example: RankingExample, hint: str | None = None) -> str:
        """The whole chat prompt as text, for trainers that tokenise by themselves."""
        return self.loaded.chat.prompt(self.renderer.fit(example, hint)[0])

    def answer_ids(self, item_id: str) -> list[int]:
        return self.loaded.chat.answer_ids(self.renderer.answer(item_id))

    def scoring_task(self, example: RankingExample) -> ScoringTask:
        return ScoringTask(
            prompt_T=self.prompt_ids(example), answers_C=[self.answer_ids(item) for item in example.candidates]
        )


def make_encoder(
    loaded: LoadedModel, interactions: Interactions, captions: Mapping[str, str], max_prompt_tokens: int
) -> Encoder:
    renderer = Renderer(
        catalogue=interactions.catalogue,
        encode=loaded.chat.prompt_ids,
        captions=captions,
        max_prompt_tokens=max_prompt_tokens,
    )
    return Encoder(renderer=renderer, loaded=loaded)


def asked_format(settings: TrainingSettings, workspace: Workspace) -> tuple[PromptFormat, dict[str, str]]:
    """The prompt format that the settings name, and the captions it uses."""
    captions = read_captions(workspace, settings.dataset, settings.captions)
    chosen = PromptFormat(
        window=settings.min_inter,
        captions=bool(captions),
        max_prompt_tokens=settings.max_prompt_tokens,
        hint_share=settings.cot_prob if settings.use_cot else 0.0,
    )
    return chosen, captions


def make_validation(
    settings: TrainingSettings, interactions: Interactions, encoder: Encoder, window: int
) -> Validation:
    examples = validation_examples(settings, interactions, window)
    return Validation(examples, [encoder.scoring_task(example) for example in examples], VALIDATION_TOKENS)


def lora(rank: int, alpha: int, dropout: float) -> LoraConfig:
    """LoRA on all linear layers of the blocks."""
    return LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=LORA_TARGETS, task_type="CAUSAL_LM"
    )


def trainer_arguments(settings: TrainingSettings, folder: Path, loaded: LoadedModel, steps: int) -> dict[str, Any]:
    """The arguments that both trainers take; a step is one update of the weights."""
    device = loaded.model.device.type
    checkpointing = settings.gradient_checkpointing == "on" or (
        settings.gradient_checkpointing == "auto" and device == "cuda"
    )
    if settings.track:
        _require_tensorboard()
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "learning_rate": settings.lr,
        "warmup_steps": round(settings.warmup_share * steps),
        "lr_scheduler_type": "linear",
        "bf16": device == "cuda",
        "use_cpu": device == "cpu",
        "activation_checkpointing": checkpointing,
        "logging_steps": settings.logging_steps,
        "save_strategy": "steps",
        "save_steps": settings.save_steps,
        "save_total_limit": 2,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "dataloader_num_workers": settings.workers,
        "remove_unused_columns": False,
        "report_to": ["tensorboard"] if settings.track else [],
        "disable_tqdm": None,
    }


def validation_steps(settings: TrainingSettings, steps: int) -> int:
    """Steps between validations."""
    return settings.eval_steps or max(1, steps // VALIDATIONS)


def _require_tensorboard() -> None:
    import importlib.util

    if importlib.util.find_spec("tensorboard") is None:
        raise SettingsError("--track needs TensorBoard. Install it: pip install 'mllmrec-r1[track]'.")
