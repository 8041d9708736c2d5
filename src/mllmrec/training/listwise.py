"""Training by exact scores of whole candidate lists: what the trainers of it share, and the listwise objective.

    list loss = -log( exp(s_target) / sum of exp(s_c) over the candidates ),    s_c the score of candidate c in nats

It is the cross-entropy of the candidate policy, and falls as soon as the target gains on the others. The answer loss,
-s_target / tokens of the answer, teaches the model to write the target out; most of it goes into copying titles. With
`--cot-as answer` a list is scored behind its thought, and the answer loss is that of thought and answer together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from datasets import Dataset
from peft import get_peft_model
from torch import Tensor
from transformers import Trainer, TrainingArguments, set_seed

from mllmrec.models.base import ScoringTask
from mllmrec.models.ranker import scorer_of
from mllmrec.models.scoring import HuggingFaceScorer
from mllmrec.models.tries import Row, make_rows
from mllmrec.records import RankingExample
from mllmrec.settings.training import SftSettings
from mllmrec.training.setup import RowWriter, TrainerParts, row_dataset, trainer_arguments


@dataclass(frozen=True, kw_only=True)
class CandidateList:
    """One prompt with its candidates, ready to be scored; `target` is the place of the right one.

    Where the model thinks first, the prompt of `row` holds the thought, and `thought` has it as what is to be scored.
    """

    row: Row
    target: int
    thought: Row | None = None


class ScoringTrainer(Trainer):
    """A trainer whose model scores candidates, `model(rows=rows)`, and that logs means of its own figures."""

    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        train_dataset: Dataset,
        data_collator: RowWriter,
        scorer: HuggingFaceScorer,
    ) -> None:
        score_through_forward(model, scorer)
        super().__init__(model=model, args=args, train_dataset=train_dataset, data_collator=data_collator)
        self.figures: list[dict[str, float]] = []

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of the figures since the last line, over all processes."""
        if self.figures:
            names = sorted(self.figures[0])
            sums = [fmean(figures[name] for figures in self.figures) for name in names]
            means = self.accelerator.reduce(torch.tensor(sums, device=self.args.device), reduction="mean")
            logs |= dict(zip(names, means.tolist(), strict=True))
            self.figures = []
        super().log(logs, start_time)


class ListTrainer(ScoringTrainer):
    """Minimises the mean of the lists' losses, with `answer_weight` times the answer loss added."""

    answer_weight = 0.0

    def compute_loss(
        self, model: Any, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        lists: list[CandidateList] = inputs["lists"]
        thoughts = [one.thought for one in lists if one.thought is not None]
        scores = model(rows=[*(one.row for one in lists), *thoughts])
        before = iter(scores[len(lists) :])
        scores = scores[: len(lists)]
        losses = [list_loss(scores_C, one.target) for scores_C, one in zip(scores, lists, strict=True)]
        answers = [
            answer_loss(scores_C, one, None if one.thought is None else next(before))
            for scores_C, one in zip(scores, lists, strict=True)
        ]
        hits = [float(scores_C.argmax().item() == one.target) for scores_C, one in zip(scores, lists, strict=True)]
        loss, answer = torch.stack(losses).mean(), torch.stack(answers).mean()
        figures = {"list_loss": loss.item(), "answer_loss": answer.item(), "train_hr_1": fmean(hits)}
        self.figures.append(figures)
        return loss + self.answer_weight * answer if self.answer_weight else loss


def list_loss(scores_C: Tensor, target: int) -> Tensor:
    """-log of the target's share among the candidates, in nats.

    >>> round(list_loss(torch.tensor([0.2, 0.3, 0.5]).log(), 1).exp().item(), 4)  # 1 / .3
    3.3333
    """
    return scores_C.logsumexp(dim=0) - scores_C[target]


def answer_loss(scores_C: Tensor, one: CandidateList, thought: Tensor | None = None) -> Tensor:
    """The mean loss of a token that is to be written: of the target's answer, and of the thought before it."""
    written, count = scores_C[one.target], len(one.row.trie.paths[one.target])
    if one.thought is not None and thought is not None:
        written, count = written + thought[0], count + len(one.thought.trie.paths[0])
    return -written / count


def score_through_forward(model: Any, scorer: HuggingFaceScorer) -> None:
    """Let `model(rows=rows)` score candidates as the scorer of the same model does, for gradients to go through.

    Whatever a trainer wraps a model in (gradients averaged over processes, mixed precision) it wraps around `forward`,
    so scoring has to go through it too.
    """
    plain = model.forward

    def forward(*args: Any, rows: Sequence[Row] | None = None, **kwargs: Any) -> Any:
        if rows is None:
            return plain(*args, **kwargs)
        return scorer.differentiable(rows, model)

    model.forward = forward


def make_trainer(parts: TrainerParts[SftSettings]) -> ListTrainer:
    """The trainer of `--objective list` and `both`."""
    settings, encoder, model, lora = parts.settings, parts.encoder, parts.loaded.model, parts.lora
    scorer = scorer_of(model)

    def make(example: RankingExample, hint: str | None) -> dict[str, Any]:
        trace, thought = hint, None
        if settings.cot_as == "answer" and trace is not None:
            hint, thought = None, encoder.fit_thought(trace, settings.max_thought_tokens)
        tasks = [encoder.scoring_task(example, hint, thought)]
        if thought is not None:
            block = encoder.chat.thought_ids(thought)
            tasks.append(ScoringTask(prompt_T=encoder.thinking_prompt_ids(example), answers_C=[block]))
        row, *before = make_rows(tasks)
        scorer.verify_lengths([row])
        target = example.candidates.index(example.target_id)
        return {"list": CandidateList(row=row, target=target, thought=before[0] if before else None)}

    set_seed(settings.seed)
    trainer = ListTrainer(
        model=model if lora is None else get_peft_model(model, lora),
        args=TrainingArguments(
            **trainer_arguments(parts),
            per_device_train_batch_size=settings.batch,
            gradient_accumulation_steps=settings.accum,
            train_sampling_strategy="sequential",
        ),
        train_dataset=row_dataset(parts.examples, settings.epochs),
        data_collator=RowWriter(examples=parts.examples, make=make, collate=_lists),
        scorer=scorer,
    )
    trainer.answer_weight = settings.answer_weight if settings.objective == "both" else 0.0
    return trainer


def _lists(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"lists": [row["list"] for row in rows]}
