"""GRPO whose group is the whole candidate set: nothing is sampled, so the gradient has no noise but the prompts'.

One differentiable scoring pass gives the score of every candidate of a prompt, and candidate_policy.py the loss in
closed form; a second pass with the adapters off gives the reference policy of the KL term. Rewards are those of the
rendered answers, by the same functions as ever. transformers.Trainer does the rest.

A step holds as many prompts as sampling would with the same settings, --batch x --accum / --num-generations of each
process, and a forward pass at most --batch of them, one row each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from peft import get_peft_model
from transformers import TrainingArguments, set_seed

from mllmrec.errors import SettingsError
from mllmrec.models.chat import Encoder
from mllmrec.models.ranker import scorer_of
from mllmrec.models.scoring import evaluating
from mllmrec.models.tries import Row, make_rows
from mllmrec.records import RankingExample
from mllmrec.settings.training import GrpoSettings
from mllmrec.training.grpo.candidate_policy import Objective, objective
from mllmrec.training.grpo.rewards import REWARDS, Reward, shares
from mllmrec.training.listwise import ScoringTrainer
from mllmrec.training.setup import RowWriter, TrainerParts, row_dataset, trainer_arguments, world_size

EQUAL = 1e-6
"""A standard deviation of rewards below which they are equal, but for rounding."""


@dataclass(frozen=True, kw_only=True)
class CandidateGroup:
    """One prompt with its candidates, ready to be scored; `texts_C` are their answers, `rewards_C` what they earn."""

    example: RankingExample
    row: Row
    texts_C: tuple[str, ...]
    rewards_C: tuple[float, ...]


def make_trainer(parts: TrainerParts[GrpoSettings], kind: type[ExactTrainer] | None = None) -> ExactTrainer:
    """The trainer of `--rollouts exact`, with a new LoRA on the model; `kind` is a trainer that does more."""
    settings, model = parts.settings, parts.loaded.model
    rows, passes = split_step(settings)
    scorer = scorer_of(model, temperature=settings.temperature)
    reward = REWARDS[settings.reward]

    def make(example: RankingExample, hint: str | None) -> dict[str, Any]:
        group = group_of(parts.encoder, reward, example, hint, thinks=settings.think)
        scorer.verify_lengths([group.row])
        return {"group": group}

    set_seed(settings.seed)
    trainer = (kind or ExactTrainer)(
        model=get_peft_model(model, parts.lora),
        args=TrainingArguments(
            **trainer_arguments(parts),
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=passes,
            train_sampling_strategy="sequential",
        ),
        train_dataset=row_dataset(parts.examples, settings.epochs),
        data_collator=RowWriter(examples=parts.examples, make=make, collate=_groups),
        scorer=scorer,
    )
    trainer.beta = settings.beta
    return trainer


def split_step(settings: GrpoSettings) -> tuple[int, int]:
    """(rows of a forward pass, forward passes) that make up one process's prompts of a step.

    >>> split_step(GrpoSettings(dataset="d", sft_tag="s", batch=4, accum=8, num_generations=8))
    (4, 1)
    >>> split_step(GrpoSettings(dataset="d", sft_tag="s", batch=4, accum=12, num_generations=8))
    (3, 2)
    """
    prompts, rest = divmod(settings.batch * settings.accum, settings.num_generations)
    if rest or not prompts:
        raise SettingsError(
            f"With --rollouts exact each of {world_size()} process(es) takes --batch {settings.batch} x --accum "
            f"{settings.accum} / --num-generations {settings.num_generations} prompts in a step, which is no whole "
            f"number. Choose --accum so that it is, for example {settings.num_generations}."
        )
    most = max(1, settings.batch // settings.num_generations) if settings.think else settings.batch
    rows = max(count for count in range(1, min(most, prompts) + 1) if prompts % count == 0)
    return rows, prompts // rows


def group_of(
    encoder: Encoder, reward: Reward, example: RankingExample, hint: str | None = None, *, thinks: bool = False
) -> CandidateGroup:
    """The candidates of an example as one group, with the reward of every candidate's answer.

    The prompt of a model that `thinks` ends where a thought is opened.
    """
    texts = tuple(encoder.renderer.answer(item) for item in example.candidates)
    task = encoder.scoring_task(example, hint)
    if thinks:
        task = replace(task, prompt_T=encoder.thinking_prompt_ids(example, hint=hint))
    [row] = make_rows([task])
    return CandidateGroup(
        example=example, row=row, texts_C=texts, rewards_C=tuple(reward(text, example) for text in texts)
    )


class ExactTrainer(ScoringTrainer):
    """Minimises the mean of the prompts' objectives, and logs of each pass what TRL logs of samples."""

    beta = 0.0

    def compute_loss(
        self, model: Any, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        groups: list[CandidateGroup] = inputs["groups"]
        rows = [group.row for group in groups]
        reference = self._reference(model, rows) if self.beta else [None] * len(rows)
        objectives = [
            objective(scores_C, scores_C.new_tensor(group.rewards_C), reference_C, self.beta)
            for scores_C, reference_C, group in zip(model(rows=rows), reference, groups, strict=True)
        ]
        self.figures.append(figures(groups, objectives))
        return torch.stack([one.loss for one in objectives]).mean()

    def _reference(self, model: Any, rows: Sequence[Row]) -> list[torch.Tensor]:
        """The scores of the model without its adapters."""
        policy = self.accelerator.unwrap_model(model)
        with policy.disable_adapter(), evaluating(policy):
            scores: list[torch.Tensor] = policy(rows=rows)
        return scores


def figures(groups: Sequence[CandidateGroup], objectives: Sequence[Objective]) -> dict[str, float]:
    """What is logged of a pass: the expectations of what TRL logs of samples, by the same names.

    `reward_std` is that of all the answers of the pass; `frac_reward_zero_std` the share of prompts without any.
    """
    chances_BC = [one.chances_C.tolist() for one in objectives]
    weights = [chance / len(objectives) for chances_C in chances_BC for chance in chances_C]
    rewards = [reward for group in groups for reward in group.rewards_C]
    mean = math.fsum(weight * reward for weight, reward in zip(weights, rewards, strict=True))
    variance = math.fsum(weight * (reward - mean) ** 2 for weight, reward in zip(weights, rewards, strict=True))
    texts = [text for group in groups for text in group.texts_C]
    examples = [group.example for group in groups for _ in group.texts_C]
    return {
        "reward": mean,
        "reward_std": math.sqrt(variance),
        "frac_reward_zero_std": fmean([float(one.reward_std.item() < EQUAL) for one in objectives]),
        "kl": fmean([one.kl.item() for one in objectives]),
        "candidate_entropy": fmean([one.entropy.item() for one in objectives]),
        "outside_mass": fmean([one.outside.item() for one in objectives]),
        **shares(texts, examples, weights),
    }


def _groups(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"groups": [row["group"] for row in rows]}
