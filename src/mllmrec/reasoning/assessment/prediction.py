"""Prediction consistency: does a trace make its user's true choice more likely, to a model that never saw that choice?

The scorer gives every candidate's answer its exact log-probability s, with the trace in the prompt and without. The
candidates' softmax is a distribution, and what counts is the log-odds of the target in it:

    logit = s_target - log(sum over the negatives of exp(s))        lift = logit with the trace - logit without   [nats]

The lift is averaged over several candidate lists, each with fresh negatives in a fresh order, all drawn by hash, and
comes with its standard error. A trace is scored apart from all others, so that its numbers depend neither on what was
done before nor on how many processes share the work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, stdev
from typing import NamedTuple

from mllmrec.data.candidates.drawing import make_sampler, with_candidates
from mllmrec.data.sequences import Interactions
from mllmrec.errors import DataError
from mllmrec.models.base import CandidateScorer, ScoringTask
from mllmrec.models.chat import Encoder
from mllmrec.records import RankingExample, Trace

CACHED_ANSWERS = 1 << 16


class Lift(NamedTuple):
    """`value` in nats, averaged over the candidate lists; `error` is its standard error, None for a single list."""

    value: float
    error: float | None


@dataclass(frozen=True, kw_only=True)
class ListDraw:
    """How candidate lists are drawn for a trace: `orders` lists, each with `num_neg` negatives."""

    orders: int
    num_neg: int
    seed: int


class PredictionJudge:
    """Measures lifts with one scorer and the encoder that writes its prompts."""

    def __init__(self, scorer: CandidateScorer, encoder: Encoder, interactions: Interactions, lists: ListDraw) -> None:
        self._scorer, self._encoder, self._lists = scorer, encoder, lists
        self._sampler = make_sampler(interactions, "train")
        self._known: Mapping[str, frozenset[str]] = interactions.known("train")
        self._answer_ids = lru_cache(CACHED_ANSWERS)(encoder.answer_ids)

    def lift(self, trace: Trace) -> Lift:
        """Raises DataError when the trace's prompt doesn't fit the scorer's budget."""
        examples = [self._example(trace, order) for order in range(self._lists.orders)]
        tasks = [self._task(example, hint) for example in examples for hint in (None, trace.reasoning)]
        scores = dict(self._scorer.score(tasks))
        targets = [example.candidates.index(trace.target_id) for example in examples for _ in range(2)]
        logits = [log_odds(scores[index], target) for index, target in enumerate(targets)]
        lifts = [hinted - plain for plain, hinted in zip(logits[::2], logits[1::2], strict=True)]
        error = round(stdev(lifts) / math.sqrt(len(lifts)), 6) if len(lifts) > 1 else None
        return Lift(round(fmean(lifts), 6), error)

    def _example(self, trace: Trace, order: int) -> RankingExample:
        question = RankingExample(
            example_id=trace.example_id,
            user_id=trace.user_id,
            history=trace.history,
            candidates=(),
            target_id=trace.target_id,
            split="train",
        )
        known, purpose = self._known[trace.user_id], f"assess/order-{order}"
        return with_candidates(question, self._sampler, known, self._lists.num_neg, self._lists.seed, purpose)

    def _task(self, example: RankingExample, hint: str | None) -> ScoringTask:
        """A prompt with the whole trace or without it: the lift of half a trace would say nothing."""
        budget = self._encoder.renderer.budget
        shortened = budget["hint_shortened"]
        prompt = self._encoder.prompt_ids(example, hint)
        if budget["hint_shortened"] > shortened:
            raise DataError(
                f"The trace of example {example.example_id} doesn't fit the prompt. Expected it whole within "
                f"{self._encoder.renderer.max_prompt_tokens} tokens; raise --max-prompt-tokens."
            )
        answers = [self._answer_ids(item) for item in example.candidates]
        return ScoringTask(prompt_T=prompt, answers_C=answers)


def log_odds(scores: Sequence[float], target: int) -> float:
    """The log-odds of one candidate under the softmax of all scores.

    >>> round(log_odds([math.log(3), math.log(1), math.log(2)], 0), 6)
    0.0
    """
    others = [score for index, score in enumerate(scores) if index != target]
    highest = max(others)
    return scores[target] - highest - math.log(sum(math.exp(score - highest) for score in others))
