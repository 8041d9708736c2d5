"""GRPO on sampled answers, by TRL's GRPOTrainer: the model writes them, or they are drawn among the candidates.

Either way the tokens of a prompt are those that fine-tuning and scoring read. TRL would tokenise the text by itself,
with whatever the tokenizer adds on its own, such as a second <bos>.

Drawing needs no generation. One scoring pass for each prompt gives the probability of every candidate's answer, and G
answers are drawn from the candidate policy (`candidate_policy.py`): no decoding, and no answer that isn't a
candidate's. A draw depends on the seed, the step, the example and its slot in the group alone.

TRL takes answers as if the model had sampled them freely, and nothing has to be corrected for that. With q = pi / Z
the candidate policy and pi the model's, grad log pi = grad log q + grad log Z, where log Z is the same for all answers
of a prompt; the advantages of a group sum to zero, so the second term drops out of the group's gradient. What is lost
is what only free answers could teach: to put more of the model's mass on the candidates at all. How much lies elsewhere
is logged as `outside_mass`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl import GRPOConfig, GRPOTrainer

from mllmrec.data.draws import uniform
from mllmrec.models.base import ScoringTask
from mllmrec.models.chat import Encoder
from mllmrec.models.huggingface import MarkedDecoder
from mllmrec.models.positions import verify_scaling
from mllmrec.models.private_names import GENERATE, read, require
from mllmrec.models.ranker import scorer_of
from mllmrec.records import RankingExample
from mllmrec.settings.training import GrpoSettings
from mllmrec.training.grpo.candidate_policy import distribution, draw, entropy, outside_mass
from mllmrec.training.grpo.rewards import REWARDS, for_trainer
from mllmrec.training.setup import RowWriter, TrainerParts, row_dataset, trainer_arguments

PURPOSE = "grpo/rollouts"


def make_trainer(parts: TrainerParts[GrpoSettings]) -> GRPOTrainer:
    """The trainer of `--rollouts generate` and `candidates`, with a new LoRA on the model."""
    settings, loaded, encoder = parts.settings, parts.loaded, parts.encoder

    def make(example: RankingExample, hint: str | None) -> dict[str, Any]:
        return {
            "prompt": RolloutPrompt.of(encoder.prompt_text(example, hint), example, hint),
            "candidates": list(example.candidates),
            "target_id": example.target_id,
        }

    arguments = GRPOConfig(
        **trainer_arguments(parts),
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
            train_dataset=row_dataset(parts.examples, settings.epochs),
            processing_class=loaded.tokenizer,
            peft_config=parts.lora,
            rollout_func=_rollouts(settings, encoder),
        )
    trainer.data_collator = RowWriter(examples=parts.examples, make=make)
    return trainer


class RolloutPrompt(str):
    """A prompt that knows its example: TRL hands a rollout nothing but prompts, and copies them on the way."""

    example: RankingExample
    hint: str | None

    @classmethod
    def of(cls, prompt: str, example: RankingExample, hint: str | None) -> RolloutPrompt:
        made = cls(prompt)
        made.example, made.hint = example, hint
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> RolloutPrompt:
        return self


@dataclass(frozen=True, kw_only=True)
class WrittenRollouts:
    """TRL's `rollout_func` for answers that the model writes, by TRL's own generation."""

    encoder: Encoder

    def __call__(self, prompts: Sequence[RolloutPrompt], trainer: Any) -> dict[str, Any]:
        ids = {prompt: self.encoder.chat.encode(prompt) for prompt in dict.fromkeys(prompts)}
        verify_scaling(trainer.model, max(map(len, ids.values())) + trainer.max_completion_length)
        prompt_ids = [list(ids[prompt]) for prompt in prompts]
        completion_ids, _ = read(GENERATE)(trainer, prompt_ids, None, {}, trainer.num_generations)
        return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "logprobs": None}


@dataclass(frozen=True, kw_only=True)
class CandidateRollouts:
    """TRL's `rollout_func`: prompts, each `num_generations` times in a row, to one answer each."""

    encoder: Encoder
    num_generations: int
    temperature: float
    seed: int

    def __call__(self, prompts: Sequence[RolloutPrompt], trainer: Any) -> dict[str, Any]:
        distinct = list(dict.fromkeys(prompts))
        tasks = [self._task(prompt) for prompt in distinct]
        scorer = scorer_of(trainer.accelerator.unwrap_model(trainer.model), temperature=self.temperature)
        scores = {distinct[index]: scores_C for index, scores_C in scorer.score(tasks)}
        chances = {prompt: distribution(scores_C) for prompt, scores_C in scores.items()}
        task_of = dict(zip(distinct, tasks, strict=True))
        first = trainer.accelerator.process_index * len(prompts)
        drawn = [
            draw(chances[prompt], self._number(trainer.state.global_step, prompt, (first + row) % self.num_generations))
            for row, prompt in enumerate(prompts)
        ]
        return {
            "prompt_ids": [list(task_of[prompt].prompt_T) for prompt in prompts],
            "completion_ids": [
                list(task_of[prompt].answers_C[slot]) for prompt, slot in zip(prompts, drawn, strict=True)
            ],
            "logprobs": None,
            "outside_mass": [outside_mass(torch.tensor(scores[prompt])).item() for prompt in prompts],
            "candidate_entropy": [entropy(chances[prompt]) for prompt in prompts],
        }

    def _task(self, prompt: RolloutPrompt) -> ScoringTask:
        answers = [self.encoder.answer_ids(item) for item in prompt.example.candidates]
        return ScoringTask(prompt_T=self.encoder.chat.encode(prompt), answers_C=answers)

    def _number(self, step: int, prompt: RolloutPrompt, slot: int) -> float:
        return uniform(self.seed, f"{PURPOSE}/step-{step}", f"{prompt.example.example_id}/{slot}")


def _rollouts(settings: GrpoSettings, encoder: Encoder) -> CandidateRollouts | WrittenRollouts:
    if settings.rollouts == "generate":
        require(GENERATE)
        return WrittenRollouts(encoder=encoder)
    return CandidateRollouts(
        encoder=encoder,
        num_generations=settings.num_generations,
        temperature=settings.temperature,
        seed=settings.seed,
    )
