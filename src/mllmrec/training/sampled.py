"""GRPO on sampled answers, by TRL: the model writes them, or they are drawn among the candidates (rollouts.py)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer

from mllmrec.backends.decoding import MarkedDecoder
from mllmrec.backends.encoding import Encoder
from mllmrec.backends.huggingface import LoadedModel
from mllmrec.records import RankingExample
from mllmrec.settings.training import GrpoSettings
from mllmrec.training.datasets import TrainingExamples
from mllmrec.training.rewards import REWARDS, for_trainer
from mllmrec.training.rollouts import CandidateRollouts, Question, WrittenRollouts
from mllmrec.training.setup import RowWriter, row_dataset, trainer_arguments


def make_trainer(
    settings: GrpoSettings,
    folder: Path,
    loaded: LoadedModel,
    encoder: Encoder,
    examples: TrainingExamples,
    steps: int,
    lora: LoraConfig,
) -> GRPOTrainer:
    """The trainer of `--rollouts generate` and `candidates`, with a new LoRA on the model."""

    def make(example: RankingExample, hint: str | None) -> dict[str, Any]:
        return {
            "prompt": Question.of(encoder.prompt_text(example, hint), example, hint),
            "candidates": list(example.candidates),
            "target_id": example.target_id,
        }

    arguments = GRPOConfig(
        **trainer_arguments(settings, folder, loaded, steps),
        per_device_train_batch_size=settings.batch,
        gradient_accumulation_steps=settings.accum,
        num_generations=settings.num_generations,
        max_completion_length=settings.max_completion_length,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=0,
        beta=settings.beta,
        shuffle_dataset=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are using 'rollout_func'", UserWarning)
        trainer = GRPOTrainer(
            model=loaded.model,
            reward_funcs=for_trainer(REWARDS[settings.reward], MarkedDecoder(loaded.tokenizer).decode),
            args=arguments,
            train_dataset=row_dataset(examples, settings.epochs),
            processing_class=loaded.tokenizer,
            peft_config=lora,
            rollout_func=_rollouts(settings, encoder),
        )
    trainer.data_collator = RowWriter(examples=examples, make=make)
    return trainer


def _rollouts(settings: GrpoSettings, encoder: Encoder) -> CandidateRollouts | WrittenRollouts:
    if settings.rollouts == "generate":
        return WrittenRollouts(encoder=encoder)
    return CandidateRollouts(
        encoder=encoder,
        num_generations=settings.num_generations,
        temperature=settings.temperature,
        seed=settings.seed,
    )
