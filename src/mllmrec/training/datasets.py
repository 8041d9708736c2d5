"""The examples a stage trains on, drawn lazily: one row is (epoch, example), and its negatives are drawn when asked.

SFT and GRPO name different purposes, so that neither sees the other's lists, and each epoch draws anew. Nothing is
kept but the questions themselves, so memory doesn't grow with epochs or negatives, and a resumed run sees exactly
the rows it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from mllmrec.data.candidates.drawing import freeze, make_sampler, questions, with_candidates
from mllmrec.data.candidates.negatives import VERSION, Sampler
from mllmrec.data.draws import generator, in_fold, uniform
from mllmrec.data.hints import HintDraw, Hints, read_hints
from mllmrec.data.sequences import Interactions, Line
from mllmrec.errors import DataError
from mllmrec.progress import note
from mllmrec.records import RankingExample
from mllmrec.settings.training import TrainingSettings
from mllmrec.storage.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class TrainingExamples:
    """Questions of the train split, their hints, and how negatives are drawn for `purpose`."""

    questions: list[RankingExample]
    hints: Mapping[str, str]
    known: Mapping[str, frozenset[str]]
    sampler: Sampler
    num_neg: int
    seed: int
    purpose: str
    counts: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.questions)

    def example(self, epoch: int, index: int) -> RankingExample:
        """One question with the candidates of that epoch."""
        question = self.questions[index]
        purpose = f"{self.purpose}/epoch-{epoch}"
        return with_candidates(question, self.sampler, self.known[question.user_id], self.num_neg, self.seed, purpose)

    def rows(self, epochs: int) -> Iterator[tuple[int, int]]:
        """(epoch, index) in training order: epoch after epoch, each shuffled by its own seed."""
        for epoch in range(epochs):
            order = list(range(len(self)))
            generator(self.seed, f"{self.purpose}/order", str(epoch)).shuffle(order)
            yield from ((epoch, index) for index in order)


def training_examples(
    settings: TrainingSettings, workspace: Workspace, interactions: Interactions, window: int, draws: int = VERSION
) -> TrainingExamples:
    """The windows of the train split that `settings` name, after refusing lines that hold a later target.

    `draws` is the version by which negatives are drawn.
    """
    refuse_leaks(interactions)
    lines = [line for line in interactions.training_lines() if in_fold(line.user_id, settings.fold)]
    if not lines:
        raise DataError("No training line is left after holding out validation users and taking the fold.")
    examples, counts = questions(lines, "train", window, settings.windows)
    if settings.limit is not None and settings.limit < len(examples):
        examples = drawn(examples, settings.limit, settings.seed, last=settings.limit_from == "last")
    hints = Hints(texts={})
    if (draw := hint_draw(settings)) is not None:
        hints = read_hints(workspace.dataset(settings.dataset), interactions, examples, draw)
    return TrainingExamples(
        questions=examples,
        hints=hints.texts,
        known=interactions.known("train"),
        sampler=make_sampler(interactions, "train", version=draws),
        num_neg=settings.num_neg,
        seed=settings.seed,
        purpose=settings.verb,
        counts=counts
        | {
            "examples": len(examples),
            "hints": len(hints.texts),
            "answer_conditioned_hints": hints.answer_conditioned,
        },
    )


def drawn(examples: list[RankingExample], limit: int, seed: int, *, last: bool) -> list[RankingExample]:
    """The first `limit` of the examples in an order drawn by hash, or the `last` ones, from the end.

    GRPO from the other end than fine-tuning with the same seed asks first what the model doesn't know by heart.
    """
    order = sorted(examples, key=lambda example: uniform(seed, "limit", example.example_id), reverse=last)
    return order[:limit]


def hint_draw(settings: TrainingSettings) -> HintDraw | None:
    """How hints are drawn; None without them. A model of one fold is there to assess the traces, so it comes before."""
    if not settings.use_cot or not settings.cot_prob:
        return None
    return HintDraw(share=settings.cot_prob, seed=settings.seed, before_assessment=bool(settings.fold))


def validation_examples(
    settings: TrainingSettings, interactions: Interactions, window: int, draws: int = VERSION
) -> list[RankingExample]:
    """The fixed slice of validation questions that is scored during training; empty when none is long enough."""
    long_enough = [line for line in interactions.valid if len(line.items) >= window]
    if not long_enough:
        note("No validation line is long enough for a window: the last checkpoint is kept, not the best one.")
        return []
    part = sorted(long_enough, key=lambda line: uniform(settings.seed, "validation", line.user_id))
    chosen = replace(interactions, valid=part[: settings.eval_users])
    examples, _ = freeze(chosen, "valid", window=window, num_neg=settings.num_neg, seed=settings.seed, version=draws)
    return examples


def refuse_leaks(interactions: Interactions) -> None:
    """Refuse a train line that holds its user's validation or test target.

    A target that the later line itself repeats (it stands in its history too) is a repeat, not a leak.
    """
    later: dict[str, dict[str, str]] = {}
    for split, lines in (("valid", [] if interactions.held_out else interactions.valid), ("test", interactions.test)):
        for line in lines:
            if line.items[-1] not in line.items[:-1]:
                later.setdefault(line.user_id, {})[line.items[-1]] = split
    leaks = [(line, item, split) for line in interactions.train for item, split in _leaks(line, later)]
    if leaks:
        line, item, split = leaks[0]
        raise DataError(
            f"train.tsv:{line.line_index + 1}: the line of user {line.user_id} contains {item}, the {split} target of "
            f"this user; {len(leaks)} lines do so. Training on it would leak the answer. Split the data again with "
            "`mllmrec prepare`."
        )


def _leaks(line: Line, later: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str]]:
    targets = later.get(line.user_id)
    return [(item, targets[item]) for item in line.items if item in targets] if targets else []
