"""`mllmrec grpo`: align a merged SFT model by rewards of its own sampled answers.

TRL's GRPOTrainer does the training, with a new LoRA on the merged model; switched off, that LoRA is the reference
policy of the KL term. Prompts come from the same renderer as everywhere. Beside TRL's own figures (reward, its
standard deviation, KL, entropy, lengths, the share of groups without any advantage) the share of hits and of invalid
answers is logged, and validation ranks by exact scores.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from trl import GRPOConfig, GRPOTrainer

from mllmrec.artifacts import Workspace
from mllmrec.backends.encoding import Encoder
from mllmrec.backends.huggingface import LoadedModel, choose_device, load, portable, resolve
from mllmrec.data.sequences import Interactions
from mllmrec.errors import BackendError, SettingsError
from mllmrec.manifests import finished
from mllmrec.records import RankingExample, Summary
from mllmrec.settings.training import GrpoSettings
from mllmrec.training import checkpoints, replay
from mllmrec.training.datasets import TrainingExamples, training_examples
from mllmrec.training.rewards import REWARDS, for_trainer
from mllmrec.training.session import Session
from mllmrec.training.setup import (
    RowWriter,
    asked_format,
    is_main_process,
    lora,
    row_dataset,
    trainer_arguments,
    training_inputs,
    world_size,
)
from mllmrec.training.start import as_trained, full_model

LORA_ALPHA, LORA_DROPOUT = 32, 0.0


def run(settings: GrpoSettings, workspace: Workspace) -> Summary:
    """Write checkpoints/<dataset>/<tag>/: LoRA adapters on the merged model. With --replay: train nothing."""
    if settings.replay:
        return replay.run(settings, workspace)
    started = time.monotonic()
    check_divisibility(settings)
    base = full_model(settings, workspace)
    folder = workspace.checkpoint(settings.dataset, settings.tag)
    checkpoints.refuse_own_input(folder, base)
    settings = as_trained(settings, base)
    inputs = training_inputs(settings, workspace, resolve(workspace, str(base)))
    if (manifest := finished(folder, settings, inputs)) is not None:
        return Summary(headline=f"{folder} is finished; nothing to do.", artifact=folder, facts=manifest.details)
    chosen, captions = asked_format(settings, workspace)
    interactions = Interactions.load(workspace, settings.dataset)
    on_gpu = choose_device(settings.device).type == "cuda"
    loaded = load(workspace, base, device=settings.device, dtype="bfloat16" if on_gpu else "float32")
    encoder = Encoder.make(loaded.chat, interactions.catalogue, captions, chosen.max_prompt_tokens)
    examples = training_examples(settings, workspace, interactions, chosen.window)
    steps = total_steps(len(examples), settings)
    last = checkpoints.begin(folder, settings, inputs, main=is_main_process())
    trainer = _trainer(settings, folder, loaded, encoder, examples, steps)
    session = Session(settings, folder, inputs, started, chosen, encoder, trainer)
    session.attach_validation(interactions, steps)
    session.attach_monitor(settings)
    return session.train(last, dict(examples.counts), portable(workspace, loaded.names[0]))


def check_divisibility(settings: GrpoSettings) -> None:
    """Refuse, before anything loads, a step that doesn't hold whole groups."""
    answers = world_size() * settings.batch * settings.accum
    if answers % settings.num_generations:
        raise SettingsError(
            f"A step takes {world_size()} process(es) x --batch {settings.batch} x --accum {settings.accum} = "
            f"{answers} answers, which is no multiple of --num-generations {settings.num_generations}. Choose --accum "
            f"so that it is, for example {settings.num_generations}."
        )


def total_steps(num_examples: int, settings: GrpoSettings) -> int:
    """Updates of the whole run: epochs x examples over the prompts of one step."""
    prompts = world_size() * settings.batch * settings.accum // settings.num_generations
    if settings.epochs * num_examples < prompts:
        raise SettingsError(
            f"A step takes {prompts} prompts, and {settings.epochs} epoch(s) of {num_examples} examples hold fewer. "
            "Lower --batch or --accum, or raise --limit or --epochs."
        )
    return settings.epochs * num_examples // prompts


def _trainer(
    settings: GrpoSettings,
    folder: Path,
    loaded: LoadedModel,
    encoder: Encoder,
    examples: TrainingExamples,
    steps: int,
) -> GRPOTrainer:
    def make(example: RankingExample, hint: str | None) -> dict[str, Any]:
        return {
            "prompt": encoder.prompt_text(example, hint),
            "candidates": list(example.candidates),
            "target_id": example.target_id,
        }

    _check_same_tokens(encoder, examples)
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
    trainer = GRPOTrainer(
        model=loaded.model,
        reward_funcs=for_trainer(REWARDS[settings.reward]),
        args=arguments,
        train_dataset=row_dataset(examples, settings.epochs),
        processing_class=loaded.tokenizer,
        peft_config=lora(settings.rank, LORA_ALPHA, LORA_DROPOUT),
    )
    trainer.data_collator = RowWriter(examples=examples, make=make)
    return trainer


def _check_same_tokens(encoder: Encoder, examples: TrainingExamples) -> None:
    """TRL tokenises prompts by itself: make sure that it gets the tokens that SFT and scoring got."""
    example = examples.example(0, 0)
    theirs = encoder.chat.tokenizer(text=[encoder.prompt_text(example)])["input_ids"][0]
    if list(theirs) != encoder.prompt_ids(example):
        raise BackendError(
            f"The tokenizer of {encoder.chat.tokenizer.name_or_path} adds tokens of its own around a prompt, so that "
            "GRPO would train on other prompts than SFT and evaluation use. Set add_bos_token to false in "
            "tokenizer_config.json."
        )
