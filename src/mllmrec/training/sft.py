"""`mllmrec sft`: fine-tune a backbone to answer `[ITEM_<id>] <title>` with the item that comes next.

TRL's SFTTrainer does the training. Rows are tokenised by our own renderer, the loss is on the answer and its end
token alone, and nothing is ever cut: the prompt budget shortens captions and old history instead. Each epoch has
fresh negatives, because its rows are other rows. Validation ranks by exact scores, and the best reading is kept.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from mllmrec.artifacts import Workspace
from mllmrec.backends.huggingface import LoadedModel, choose_device, load, resolve
from mllmrec.data.formats import PromptFormat
from mllmrec.data.sequences import Interactions
from mllmrec.manifests import finished, hash_files, hash_model, write_manifest
from mllmrec.records import Summary
from mllmrec.settings.training import SftSettings, TrainingSettings
from mllmrec.training import checkpoints
from mllmrec.training.callbacks import InterruptCallback, LogCallback, ValidationCallback
from mllmrec.training.datasets import TrainingExamples, training_examples
from mllmrec.training.setup import (
    Encoder,
    asked_format,
    lora,
    make_encoder,
    make_validation,
    trainer_arguments,
    validation_steps,
)

LORA_ALPHA, LORA_DROPOUT = 16, 0.05


def run(settings: SftSettings, workspace: Workspace) -> Summary:
    """Write checkpoints/<dataset>/<tag>/: LoRA adapters, or a whole model with `--peft none`."""
    started = time.monotonic()
    folder = workspace.checkpoint(settings.dataset, settings.tag)
    inputs = training_inputs(settings, workspace, resolve(workspace, settings.backbone))
    if (manifest := finished(folder, settings, inputs)) is not None:
        return Summary(headline=f"{folder} is finished; nothing to do.", artifact=folder, facts=manifest.details)
    last = checkpoints.begin(folder, settings, inputs, main=is_main_process())
    interactions = Interactions.load(workspace, settings.dataset)
    chosen, captions = asked_format(settings, workspace)
    loaded = load(workspace, settings.backbone, device=settings.device, dtype=weights_dtype(settings))
    encoder = make_encoder(loaded, interactions, captions, chosen.max_prompt_tokens)
    examples = training_examples(settings, workspace, interactions, chosen.window)
    steps = total_steps(len(examples), settings)
    trainer = _trainer(settings, folder, loaded, encoder, examples, steps)
    interrupt, validated = InterruptCallback(), None
    validation = make_validation(settings, interactions, encoder, chosen.window)
    trainer.add_callback(LogCallback(folder))
    trainer.add_callback(interrupt)
    if validation.examples:
        every = validation_steps(settings, steps)
        validated = ValidationCallback(folder, validation, every, _saver(encoder))
        trainer.add_callback(validated)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    if interrupt.interrupted:
        raise KeyboardInterrupt
    return conclude(
        settings, folder, inputs, started, chosen, encoder, trainer, validated, dict(examples.counts), loaded.names[0]
    )


def training_inputs(settings: TrainingSettings, workspace: Workspace, model: str) -> dict[str, str]:
    """Hashes of all that a training run reads."""
    files = hash_files(
        train=workspace.split(settings.dataset, "train"),
        valid=workspace.split(settings.dataset, "valid"),
        titles=workspace.titles(settings.dataset),
    )
    if settings.captions != "off":
        files |= hash_files(captions=workspace.captions(settings.dataset))
    if settings.use_cot:
        files |= hash_files(
            assessed=workspace.assessed_cot(settings.dataset), refined=workspace.refined_cot(settings.dataset)
        )
    return files | {"model": hash_model(Path(model)) if Path(model).is_dir() else model}


def total_steps(num_examples: int, settings: SftSettings) -> int:
    """Updates of the whole run: epochs x examples over what one step of all processes takes."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    return max(1, math.ceil(settings.epochs * num_examples / (settings.batch * settings.accum * world_size)))


def weights_dtype(settings: SftSettings) -> Any:
    """Frozen weights may be bfloat16 on a GPU; weights that are trained stay float32 (autocast computes in bf16)."""
    on_gpu = choose_device(settings.device).type == "cuda"
    return "bfloat16" if on_gpu and settings.peft == "lora" else "float32"


def is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def row_dataset(examples: TrainingExamples, epochs: int, make: Any) -> Dataset:
    """A datasets.Dataset of (epoch, index) rows whose content `make(example, hint)` writes when it is asked for."""
    rows = list(examples.rows(epochs))
    dataset = Dataset.from_dict({"epoch": [epoch for epoch, _ in rows], "index": [index for _, index in rows]})

    def write(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        drawn = [examples.example(*row) for row in zip(batch["epoch"], batch["index"], strict=True)]
        made = [make(example, examples.hints.get(example.example_id)) for example in drawn]
        return {column: [row[column] for row in made] for column in made[0]}

    return dataset.with_transform(write)


def conclude(
    settings: TrainingSettings,
    folder: Path,
    inputs: dict[str, str],
    started: float,
    chosen: PromptFormat,
    encoder: Encoder,
    trainer: Any,
    validated: ValidationCallback | None,
    counts: dict[str, Any],
    model_name: str,
) -> Summary:
    """Put the best weights in place, write the manifest, and tell what validation saw."""
    readings = validated.readings if validated else {}
    details = {
        **chosen.to_details(),
        "model": model_name,
        "peft": getattr(settings, "peft", "lora"),
        "steps": trainer.state.global_step,
        "best_step": validated.best_step if validated else None,
        "validation": {str(step): metrics for step, metrics in sorted(readings.items())},
        "budget": dict(encoder.renderer.budget),
    }
    trainer.accelerator.wait_for_everyone()
    if is_main_process():
        if validated is None:
            _saver(encoder)(trainer.accelerator.unwrap_model(trainer.model), folder / checkpoints.BEST)
        checkpoints.finish(folder)
        write_manifest(folder, settings, inputs, started=started, counts=counts, details=details)
    trainer.accelerator.wait_for_everyone()
    return Summary(headline=_headline(folder, readings, details), artifact=folder, facts=details)


def _headline(folder: Path, readings: dict[int, dict[str, float]], details: dict[str, Any]) -> str:
    if not readings:
        return f"{folder}: {details['steps']} steps"
    first, best = readings[min(readings)], readings[details["best_step"]]
    return (
        f"{folder}: {details['steps']} steps; validation NDCG@3 {first['NDCG@3']:.3f} -> {best['NDCG@3']:.3f}, "
        f"HR@1 {first['HR@1']:.3f} -> {best['HR@1']:.3f} (best at step {details['best_step']})"
    )


def _trainer(
    settings: SftSettings,
    folder: Path,
    loaded: LoadedModel,
    encoder: Encoder,
    examples: TrainingExamples,
    steps: int,
) -> SFTTrainer:
    def make(example: Any, hint: str | None) -> dict[str, list[int]]:
        prompt, answer = encoder.prompt_ids(example, hint), encoder.answer_ids(example.target_id)
        return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}

    arguments = SFTConfig(
        **trainer_arguments(settings, folder, loaded, steps),
        per_device_train_batch_size=settings.batch,
        gradient_accumulation_steps=settings.accum,
        train_sampling_strategy="sequential",
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    return SFTTrainer(
        model=loaded.model,
        args=arguments,
        train_dataset=row_dataset(examples, settings.epochs, make),
        processing_class=loaded.tokenizer,
        peft_config=lora(settings.rank, LORA_ALPHA, LORA_DROPOUT) if settings.peft == "lora" else None,
    )


def _saver(encoder: Encoder) -> Any:
    """Writes weights and tokenizer, as an ordinary model or adapter folder."""

    def save(model: Any, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        encoder.loaded.tokenizer.save_pretrained(folder)

    return save
