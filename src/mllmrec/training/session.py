"""One training run from its first step to its manifest, the same for SFT and GRPO."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers.trainer_callback import PrinterCallback, ProgressCallback

from mllmrec.data.candidates.negatives import VERSION
from mllmrec.data.prompts import PromptFormat
from mllmrec.data.sequences import Interactions
from mllmrec.errors import SettingsError, advising
from mllmrec.models.chat import Encoder
from mllmrec.models.ranker import BATCH_TOKENS
from mllmrec.records import RankingExample, Summary
from mllmrec.settings.training import LOSS, GrpoSettings, TrainingSettings
from mllmrec.storage.manifests import write_manifest
from mllmrec.training import checkpoints
from mllmrec.training.callbacks import (
    EXPECTED_REWARD,
    WATCHED,
    InterruptCallback,
    LogCallback,
    LossValidation,
    TimedSaveCallback,
    Validation,
    ValidationCallback,
)
from mllmrec.training.compact import answers_only
from mllmrec.training.datasets import validation_examples
from mllmrec.training.grpo.monitor import MonitorCallback, unrewarding
from mllmrec.training.grpo.rewards import Reward
from mllmrec.training.setup import is_main_process, validation_steps

ADVICE = {
    "sft": "Validation reads such scores: train with --validate loss, which reads none, or choose another model.",
    "grpo": "Validation reads such scores, and GRPO has no other one: choose another model.",
}


class Session:
    """Wires a trainer to its folder: log, interrupt, validation; then trains, keeps the best, and marks it finished."""

    def __init__(
        self,
        settings: TrainingSettings,
        folder: Path,
        inputs: dict[str, str],
        started: float,
        chosen: PromptFormat,
        encoder: Encoder,
        trainer: Any,
        draws: int = VERSION,
    ) -> None:
        self.settings, self.folder, self.inputs, self.started = settings, folder, inputs, started
        chat = encoder.chat
        self.chosen = replace(chosen, template=chat.version, chat_template=chat.put_template)
        self.encoder, self.trainer, self.draws = encoder, trainer, draws
        self.resumed_at = 0
        self.interrupt = InterruptCallback()
        self.validated: ValidationCallback | None = None
        self.monitor: MonitorCallback | None = None
        for printer in (ProgressCallback, PrinterCallback):
            trainer.remove_callback(printer)
        self.log = LogCallback(folder, settings.verb)
        trainer.add_callback(self.log)
        trainer.add_callback(self.interrupt)
        trainer.add_callback(TimedSaveCallback())

    def attach_validation(
        self,
        interactions: Interactions,
        steps: int,
        reward: Reward | None = None,
        make: Callable[..., Validation] = Validation,
    ) -> None:
        """Score the validation slice along the way, by what `make` makes; without one the last weights are kept."""
        examples = validation_examples(self.settings, interactions, self.chosen.window, self.draws)
        if examples:
            every, validation = validation_steps(self.settings, steps), self._validation(examples, reward, make)
            self.validated = ValidationCallback(self.folder, validation, every, self.save, self.settings.select_by)
            self.trainer.add_callback(self.validated)

    def attach_monitor(self, settings: GrpoSettings) -> None:
        """Watch for reward inflation at each validation; there is nothing to watch without one."""
        if self.validated is not None:
            self.monitor = MonitorCallback(
                self.folder,
                self.validated,
                window=settings.inflation_window,
                on_inflation=settings.on_inflation,
                track=settings.track,
            )
            self.trainer.add_callback(self.monitor)
        elif settings.on_inflation == "stop":
            raise SettingsError(
                "--on-inflation stop compares the reward with validation, and no validation line is long enough for a "
                "window. Prepare the data with longer sequences, lower --min-inter, or leave the flag out."
            )

    def train(self, resume_from: Path | None, counts: dict[str, Any], model_name: str) -> Summary:
        """Train to the end and finish the folder; KeyboardInterrupt after Ctrl-C, with a checkpoint kept."""
        self.resumed_at = checkpoints.step_of(resume_from) if resume_from else 0
        try:
            with answers_only(), advising(ADVICE[self.settings.verb]):
                self.trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        finally:
            self.interrupt.restore()
            self.log.close()
            if self.monitor is not None:
                self.monitor.close()
        if self.interrupt.interrupted:
            raise KeyboardInterrupt(
                f"stopped at step {self.trainer.state.global_step}; the same command goes on from there"
            )
        details = self._details(model_name)
        self.trainer.accelerator.wait_for_everyone()
        if is_main_process():
            if self.validated is None:
                self.save(self.trainer.accelerator.unwrap_model(self.trainer.model), self.folder / checkpoints.BEST)
            checkpoints.place_best(self.folder)
            write_manifest(
                self.folder,
                self.settings,
                self.inputs,
                started=self.started,
                counts=counts,
                details=details,
                outputs=checkpoints.model_files(self.folder),
            )
            checkpoints.clear(self.folder)
        self.trainer.accelerator.wait_for_everyone()
        warnings = (*self._warnings(details), *(self.monitor.warnings() if self.monitor else ()))
        return Summary(headline=self._headline(details), artifact=self.folder, warnings=warnings, facts=details)

    def save(self, model: Any, folder: Path) -> None:
        """Write weights and tokenizer, as an ordinary model or adapter folder."""
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        self.encoder.chat.tokenizer.save_pretrained(folder)

    def _validation(
        self, examples: list[RankingExample], reward: Reward | None, make: Callable[..., Validation]
    ) -> Validation | LossValidation:
        if getattr(self.settings, "validate_", "exact") == LOSS:
            return LossValidation(
                [(self.encoder.prompt_ids(one), self.encoder.answer_ids(one.target_id)) for one in examples]
            )
        tasks = [self.encoder.scoring_task(example) for example in examples]
        rewards = None if reward is None else [self._rewards(reward, example) for example in examples]
        return make(examples, tasks, BATCH_TOKENS, rewards)

    def _rewards(self, reward: Reward, example: RankingExample) -> list[float]:
        return [reward(self.encoder.renderer.answer(item), example) for item in example.candidates]

    def _details(self, model_name: str) -> dict[str, Any]:
        readings = self.validated.readings if self.validated else {}
        return {
            **self.chosen.to_details(),
            "draws": self.draws,
            "model": model_name,
            "peft": getattr(self.settings, "peft", "lora"),
            "steps": self.trainer.state.global_step,
            "train_seconds": round(time.monotonic() - self.started, 1),
            "best_step": self.validated.best_step if self.validated else None,
            "validation": {str(step): metrics for step, metrics in sorted(readings.items())},
            "budget": dict(self.encoder.renderer.budget),
            **({"budget_since_step": self.resumed_at} if self.resumed_at else {}),
            **(self.monitor.details() if self.monitor else {}),
        }

    def _warnings(self, details: dict[str, Any]) -> tuple[str, ...]:
        """In words: that the sampled answers taught nothing, or that training made nothing better."""
        if sampled := unrewarding(self.settings, self.folder / checkpoints.LOG):
            return (sampled,)
        if details["best_step"] != 0 or len(details["validation"]) < 2:
            return ()
        return (
            f"No validation {self.settings.select_by} came out better than the one before the first step, so "
            f"the weights kept are those that training began with: {self.folder} ranks as {details['model']} does. "
            f"{checkpoints.LOG} in it holds every reading; train longer, or with another --lr.",
        )

    def _headline(self, details: dict[str, Any]) -> str:
        readings = self.validated.readings if self.validated else {}
        if not readings:
            return f"{self.folder}: {details['steps']} steps"
        first, best = readings[min(readings)], readings[details["best_step"]]
        names = dict.fromkeys((WATCHED, "HR@1", EXPECTED_REWARD, self.settings.select_by))
        shown = [name for name in names if name in first]
        changes = ", ".join(f"{name} {first[name]:.3f} -> {best[name]:.3f}" for name in shown)
        kept = f"best {self.settings.select_by} at step {details['best_step']}"
        return f"{self.folder}: {details['steps']} steps; validation {changes} ({kept})"
