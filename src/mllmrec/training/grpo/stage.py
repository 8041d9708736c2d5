"""`mllmrec grpo`: align a merged SFT model by rewards of its answers.

Where the answers come from is `--rollouts`: the model writes them, they are drawn among the candidates by their exact
probabilities (both by TRL's GRPOTrainer, sampled.py), or all candidates are the group (exact.py), behind thoughts that
the model writes first with --think (thinking.py). Each trains a new
LoRA on the merged model; switched off, that LoRA is the reference policy of the KL term. Prompts come from the same
renderer as everywhere. Reward, its standard deviation, KL, entropy, and the shares of hits, of invalid answers and of
groups without any advantage are logged, and validation ranks by exact scores.
"""

from __future__ import annotations

import time
from typing import Any

from mllmrec.data.sequences import Interactions, require_dataset
from mllmrec.errors import SettingsError, advising
from mllmrec.models.huggingface import choose_device, load, portable, resolve
from mllmrec.models.ranker import ranker_of
from mllmrec.models.suitability import require_context
from mllmrec.records import Summary
from mllmrec.settings.training import GrpoSettings
from mllmrec.storage.locks import locking
from mllmrec.storage.manifests import finished
from mllmrec.storage.workspace import Workspace
from mllmrec.training import checkpoints
from mllmrec.training.datasets import training_examples
from mllmrec.training.grpo import exact, rollout_check, sampled, thinking
from mllmrec.training.grpo.rewards import REWARDS
from mllmrec.training.lora_targets import lora_for
from mllmrec.training.session import Session
from mllmrec.training.setup import (
    TrainerParts,
    as_trained,
    asked_format,
    full_model,
    is_main_process,
    training_inputs,
    world_size,
)

LORA_ALPHA = 32


def run(settings: GrpoSettings, workspace: Workspace) -> Summary:
    """Write checkpoints/<dataset>/<tag>/: LoRA adapters on the merged model. With --replay: train nothing."""
    return rollout_check.run(settings, workspace) if settings.replay else _train(settings, workspace)


def check_divisibility(settings: GrpoSettings) -> None:
    """Refuse, before anything loads, a step that doesn't hold whole groups."""
    answers = world_size() * settings.batch * settings.accum
    if answers % settings.num_generations:
        raise SettingsError(
            f"A step takes {world_size()} process(es) x --batch {settings.batch} x --accum {settings.accum} = "
            f"{answers} answers, which is no multiple of --num-generations {settings.num_generations}. Choose --accum "
            f"so that it is, for example {settings.num_generations}."
        )
    if settings.rollouts == "exact":
        exact.split_step(settings)


def total_steps(num_examples: int, settings: GrpoSettings) -> int:
    """Updates of the whole run: epochs x examples over the prompts of one step."""
    prompts = world_size() * settings.batch * settings.accum // settings.num_generations
    if settings.epochs * num_examples < prompts:
        raise SettingsError(
            f"A step takes {prompts} prompts, and {settings.epochs} epoch(s) of {num_examples} examples hold fewer. "
            "Lower --batch or --accum, or raise --limit or --epochs."
        )
    return settings.epochs * num_examples // prompts


@locking(lambda settings, workspace: workspace.checkpoint(settings.dataset, settings.tag))
def _train(settings: GrpoSettings, workspace: Workspace) -> Summary:
    started = time.monotonic()
    check_divisibility(settings)
    require_dataset(workspace, settings.dataset)
    base = full_model(settings, workspace)
    folder = workspace.checkpoint(settings.dataset, settings.tag)
    checkpoints.refuse_own_input(folder, base)
    settings = as_trained(settings, base)
    inputs = training_inputs(settings, workspace, resolve(workspace, str(base)))
    if (manifest := finished(folder, settings, inputs)) is not None:
        checkpoints.clear(folder)
        return Summary(headline=f"{folder} is finished; nothing to do.", artifact=folder, facts=manifest.details)
    require_context(str(base), settings.max_prompt_tokens)
    chosen, captions = asked_format(settings, workspace)
    interactions = Interactions.load(workspace, settings.dataset)
    on_gpu = choose_device(settings.device).type == "cuda"
    lora = lora_for(str(base), rank=settings.rank, alpha=LORA_ALPHA, dropout=0.0, choice=settings.lora_targets)
    loaded = load(
        workspace,
        base,
        device=settings.device,
        dtype="bfloat16" if on_gpu else "float32",
        chat_template=settings.chat_template,
    )
    encoder = ranker_of(loaded, interactions.catalogue, captions, chosen.max_prompt_tokens).encoder
    draws = checkpoints.draws_of(folder, settings)
    examples = training_examples(settings, workspace, interactions, chosen.window, draws)
    steps = total_steps(len(examples), settings)
    last = checkpoints.begin(folder, settings, inputs, draws, main=is_main_process())
    parts = TrainerParts(
        settings=settings, folder=folder, loaded=loaded, encoder=encoder, examples=examples, steps=steps, lora=lora
    )
    trainer = make_trainer(parts)
    session = Session(settings, folder, inputs, started, chosen, encoder, trainer, draws)
    validates = {"make": thinking.validation_of(trainer)} if settings.think else {}
    session.attach_validation(interactions, steps, REWARDS[settings.reward], **validates)
    session.attach_monitor(settings)
    return session.train(last, dict(examples.counts), portable(workspace, loaded.names[0]))


def make_trainer(parts: TrainerParts[GrpoSettings]) -> Any:
    """The trainer of the rollouts that the settings name; BackendError for a model that can't be scored exactly."""
    settings = parts.settings
    make: Any = exact.make_trainer if settings.rollouts == "exact" else sampled.make_trainer
    if settings.think:
        make = thinking.make_trainer
    with advising(f"--rollouts {settings.rollouts} and validation read such scores: choose another model."):
        return make(parts)
