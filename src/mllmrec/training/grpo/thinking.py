"""GRPO over thoughts: G are sampled for each prompt, and the answer behind each is the whole list, as in exact.py.

With q_nc the candidate policy behind thought n, and r_c what candidate c earns:

    reward of a thought     R_n = sum of q_nc r_c, the expected reward of an answer: nothing is invalid, nothing drawn
    its advantage           A_n = (R_n - mean of the R) / (standard deviation of the R + 1e-4), over the G thoughts
    loss of a prompt        - sum of A_n log p(t) over the thoughts' tokens t / number of these tokens
                            + beta * mean of KL over these tokens + mean of the candidates' objectives

The KL of a token is estimated by exp(d) - d - 1 with d = log p_ref - log p, that of the candidates is exact. Every
thought is used once, for the weights that sampled it, so that there is no ratio and nothing to clip. A thought's tokens
are those of its text, with the mark that closes it where the model wrote that.

Validation thinks too: one thought for each of its users, drawn by the same numbers every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

import torch

from mllmrec.data.draws import generator
from mllmrec.models.base import ScoringTask, Thought
from mllmrec.models.chat import Encoder
from mllmrec.models.huggingface import MarkedDecoder
from mllmrec.models.ranker import scorer_of
from mllmrec.models.thinking import HuggingFaceThinker
from mllmrec.models.tries import Row, make_rows
from mllmrec.settings.training import GrpoSettings
from mllmrec.training.callbacks import Validation
from mllmrec.training.grpo import exact
from mllmrec.training.grpo.candidate_policy import EPSILON, objective
from mllmrec.training.setup import TrainerParts

AT_ONCE = 16
"""Validation users for whom thoughts are sampled at a time."""


@dataclass(frozen=True, kw_only=True)
class ThinkingRollout:
    """A thought with the candidates behind it; `row` scores the thought's first token, its first two, and so on."""

    thought: Thought
    group: exact.CandidateGroup
    row: Row


@dataclass(frozen=True, kw_only=True)
class Thinking:
    """How a trainer samples thoughts: with `count` for a prompt, of at most `max_tokens`."""

    thinker: HuggingFaceThinker
    encoder: Encoder
    count: int
    max_tokens: int
    temperature: float
    seed: int

    def thoughts(self, prompts: Sequence[Sequence[int]], keys: Sequence[str], purpose: str) -> list[list[Thought]]:
        """A thought for each key of a prompt; `keys` are those of all prompts, an equal number for each."""
        each = len(keys) // len(prompts)
        numbers = [iter(generator(self.seed, purpose, key).random, None) for key in keys]
        draws = [numbers[start : start + each] for start in range(0, len(numbers), each)]
        return self.thinker.think(prompts, draws, max_tokens=self.max_tokens, temperature=self.temperature)

    def rollout(self, group: exact.CandidateGroup, thought: Thought) -> ThinkingRollout:
        """The candidates of a group behind a thought, and the thought's own tokens."""
        chat, prompt = self.encoder.chat, group.row.prompt_T
        opening = chat.encode(chat.thought_marks.opening)
        closing = chat.encode(chat.thought_marks.closing.rstrip()) if thought.finished else []
        written = [*chat.encode(thought.text), *closing] or [chat.end_id]
        starts = [written[:stop] for stop in range(1, len(written) + 1)]
        [row] = make_rows([ScoringTask(prompt_T=[*prompt, *opening], answers_C=starts)])
        behind = replace(group.row, prompt_T=[*prompt, *chat.thought_ids(thought.text)])
        return ThinkingRollout(thought=thought, group=replace(group, row=behind), row=row)


class ThinkingTrainer(exact.ExactTrainer):
    """Minimises the mean of the prompts' losses over thoughts and candidates."""

    thinking: Thinking

    def compute_loss(
        self, model: Any, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        groups: list[exact.CandidateGroup] = inputs["groups"]
        rollouts, count = self._rollouts(groups), self.thinking.count
        rows = [rollout.group.row for rollout in rollouts] + [rollout.row for rollout in rollouts]
        reference = self._reference(model, rows) if self.beta else [None] * len(rows)
        scores = model(rows=rows)
        objectives = [
            objective(scores_C, scores_C.new_tensor(rollout.group.rewards_C), reference_C, self.beta)
            for scores_C, reference_C, rollout in zip(scores, reference, rollouts, strict=False)
        ]
        sums, theirs = scores[len(rollouts) :], reference[len(rollouts) :]
        losses, figures = [], []
        for start in range(0, len(rollouts), count):
            part = slice(start, start + count)
            rewards_G = torch.stack([one.reward for one in objectives[part]])
            loss, kl = thought_loss(sums[part], rewards_G, theirs[part], self.beta)
            losses.append(loss + torch.stack([one.loss for one in objectives[part]]).mean())
            figures.append((rewards_G.std(unbiased=False).item(), kl))
        self.figures.append(
            exact.figures([rollout.group for rollout in rollouts], objectives)
            | {
                "thought_tokens": fmean([rollout.thought.tokens for rollout in rollouts]),
                "thought_unfinished": fmean([not rollout.thought.finished for rollout in rollouts]),
                "thought_reward_std": fmean([deviation for deviation, _ in figures]),
                "thought_kl": fmean([kl for _, kl in figures]),
            }
        )
        return torch.stack(losses).mean()

    def _rollouts(self, groups: Sequence[exact.CandidateGroup]) -> list[ThinkingRollout]:
        """The thoughts of all prompts, by numbers of the step, the example and the thought."""
        keys = [f"{group.example.example_id}/{number}" for group in groups for number in range(self.thinking.count)]
        purpose = f"grpo/thought/{self.state.global_step}"
        thoughts = self.thinking.thoughts([group.row.prompt_T for group in groups], keys, purpose)
        return [
            self.thinking.rollout(group, thought)
            for group, own in zip(groups, thoughts, strict=True)
            for thought in own
        ]


class ThinkingValidation(Validation):
    """Exact metrics behind one thought for each user."""

    def __init__(self, thinking: Thinking, *args: Any) -> None:
        super().__init__(*args)
        self.thinking = thinking
        self.prompts = [thinking.encoder.thinking_prompt_ids(example) for example in self.examples]

    def scored(self, model: Any, indices: Sequence[int]) -> Iterator[tuple[int, list[float]]]:
        thoughts: list[Thought] = []
        for start in range(0, len(indices), AT_ONCE):
            part = indices[start : start + AT_ONCE]
            keys = [self.examples[index].example_id for index in part]
            prompts = [self.prompts[index] for index in part]
            thoughts += [own[0] for own in self.thinking.thoughts(prompts, keys, "valid/thought")]
        tasks = [
            replace(
                self.tasks[index],
                prompt_T=[*self.prompts[index], *self.thinking.encoder.chat.thought_ids(thought.text)],
            )
            for index, thought in zip(indices, thoughts, strict=True)
        ]
        for row, scores in scorer_of(model, self.max_tokens).score(tasks):
            yield indices[row], scores


def thought_loss(
    sums: Sequence[torch.Tensor], rewards_G: torch.Tensor, reference: Sequence[torch.Tensor | None], beta: float
) -> tuple[torch.Tensor, float]:
    """The loss over the tokens of one prompt's thoughts, and their mean KL; `sums` of log-probabilities by length.

    >>> sums = [torch.tensor([-1.0, -3.0]), torch.tensor([-2.0])]  # three tokens: -1, -2 and -2 nats
    >>> round(thought_loss(sums, torch.tensor([1.0, 0.0]), [None, None], 0.0)[0].item(), 3)  # advantages 1 and -1
    0.333
    """
    advantages_G = (rewards_G - rewards_G.mean()) / (rewards_G.std(unbiased=False) + EPSILON)
    total = sum(len(sums_T) for sums_T in sums)
    loss, divergence = rewards_G.new_zeros(()), rewards_G.new_zeros(())
    for sums_T, advantage, theirs_T in zip(sums, advantages_G, reference, strict=True):
        logp_T = sums_T.diff(prepend=sums_T.new_zeros(1))
        loss = loss - advantage * logp_T.sum()
        if theirs_T is not None:
            away_T = theirs_T.diff(prepend=theirs_T.new_zeros(1)) - logp_T
            divergence = divergence + (away_T.exp() - away_T - 1).sum()
    return (loss + beta * divergence) / total, divergence.item() / total


def make_trainer(parts: TrainerParts[GrpoSettings]) -> ThinkingTrainer:
    """The trainer of `--rollouts exact --think`, with a new LoRA on the model."""
    settings, loaded, encoder = parts.settings, parts.loaded, parts.encoder
    trainer = exact.make_trainer(parts, kind=ThinkingTrainer)
    assert isinstance(trainer, ThinkingTrainer)
    trainer.thinking = Thinking(
        thinker=HuggingFaceThinker(scorer_of(loaded.model), encoder.chat, MarkedDecoder(loaded.tokenizer).decode),
        encoder=encoder,
        count=settings.num_generations,
        max_tokens=settings.max_thought_tokens,
        temperature=settings.temperature,
        seed=settings.seed,
    )
    return trainer


def validation_of(trainer: ThinkingTrainer) -> Any:
    """What makes the validation of a trainer that thinks."""
    return partial(ThinkingValidation, trainer.thinking)
