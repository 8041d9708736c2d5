"""Prediction consistency: the sign and size of the lift by hand, with a scorer that follows hints, and naively."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean, stdev

import pytest
from small_models import DATASET, WINDOW, naive_scores

from mllmrec.data.candidates.drawing import make_sampler, questions, with_candidates
from mllmrec.data.sequences import Interactions
from mllmrec.errors import DataError
from mllmrec.models.base import ScoringTask
from mllmrec.models.chat import Encoder
from mllmrec.models.huggingface import LoadedModel, load
from mllmrec.models.scoring import HuggingFaceScorer
from mllmrec.reasoning.assessment.prediction import ListDraw, PredictionJudge, log_odds
from mllmrec.records import Trace
from mllmrec.storage.workspace import Workspace

LISTS = ListDraw(orders=3, num_neg=4, seed=42)


class HintFollower:
    """Scores an answer by how often its id stands in the prompt: once in the list of candidates, and in the hint."""

    def score(self, tasks: Sequence[ScoringTask]) -> Iterator[tuple[int, list[float]]]:
        for index, task in reversed(list(enumerate(tasks))):
            assert len(task.answers_C) == 5
            yield index, [float(list(task.prompt_T).count(answer[1])) for answer in task.answers_C]


@pytest.fixture(scope="module")
def interactions(toy: Workspace) -> Interactions:
    return Interactions.load(toy, DATASET)


@pytest.fixture(scope="module")
def tiny(toy: Workspace) -> LoadedModel:
    return load(toy, "tiny", device="cpu")


@pytest.fixture(scope="module")
def encoder(tiny: LoadedModel, interactions: Interactions) -> Encoder:
    return Encoder.make(tiny.chat, interactions.catalogue, {}, 4096)


@pytest.fixture(scope="module")
def trace(interactions: Interactions) -> Trace:
    """A window whose target isn't in its own history."""
    example = next(
        each for each in questions(interactions.train, "train", WINDOW)[0] if each.target_id not in each.history
    )
    return Trace(
        example_id=example.example_id,
        user_id=example.user_id,
        history=example.history,
        target_id=example.target_id,
        reasoning="",
    )


def hinting(trace: Trace, *items: str) -> Trace:
    return Trace(**{**vars(trace), "reasoning": "\n".join(f"[ITEM_{item}]" for item in items)})


def test_a_hint_at_the_target_lifts_it_and_one_at_the_others_sinks_it(
    encoder: Encoder, interactions: Interactions, trace: Trace
) -> None:
    """Without a hint all five score 1 and the log-odds are -log 4; each mention adds 1 to a score."""
    assert encoder.answer_ids("101")[1] != encoder.answer_ids("102")[1], "an id is one token"
    judge = PredictionJudge(HintFollower(), encoder, interactions, LISTS)
    others = [item for item in interactions.catalogue if item != trace.target_id]
    assert judge.lift(hinting(trace, trace.target_id, trace.target_id)) == (pytest.approx(2.0), 0.0)
    assert judge.lift(hinting(trace, *others)) == (pytest.approx(-1.0), 0.0)
    assert judge.lift(hinting(trace, *trace.history)) == (pytest.approx(0.0), 0.0)
    assert judge.lift(hinting(trace, *others, trace.target_id)) == (pytest.approx(0.0), 0.0)


def test_the_lift_is_the_mean_over_fresh_lists_and_its_error_their_standard_error(
    tiny: LoadedModel, encoder: Encoder, interactions: Interactions, trace: Trace
) -> None:
    """By naive forward passes over lists drawn here."""
    hinted = hinting(trace, *trace.history)
    sampler, known = make_sampler(interactions, "train"), interactions.known("train")[trace.user_id]
    example = next(
        each for each in questions(interactions.train, "train", WINDOW)[0] if each.example_id == trace.example_id
    )
    lifts = []
    for order in range(3):
        drawn = with_candidates(example, sampler, known, 4, 42, f"assess/order-{order}")
        answers = [encoder.answer_ids(item) for item in drawn.candidates]
        logits = []
        for hint in (None, hinted.reasoning):
            scores = naive_scores(tiny.model, encoder.prompt_ids(drawn, hint), answers)
            at = drawn.candidates.index(trace.target_id)
            total = sum(math.exp(score) for place, score in enumerate(scores) if place != at)
            logits.append(scores[at] - math.log(total))
        lifts.append(logits[1] - logits[0])
    found = PredictionJudge(HuggingFaceScorer(tiny.model), encoder, interactions, LISTS).lift(hinted)
    assert found.value == pytest.approx(fmean(lifts), abs=1e-4)
    assert found.error == pytest.approx(stdev(lifts) / math.sqrt(3), abs=1e-4)
    assert found.error > 0, "three lists aren't one list thrice"


def test_one_list_has_no_error(encoder: Encoder, interactions: Interactions, trace: Trace) -> None:
    judge = PredictionJudge(HintFollower(), encoder, interactions, ListDraw(orders=1, num_neg=4, seed=42))
    assert judge.lift(hinting(trace, trace.target_id)) == (pytest.approx(1.0), None)


def test_a_trace_beyond_the_budget_is_told(tiny: LoadedModel, interactions: Interactions, trace: Trace) -> None:
    encoder = Encoder.make(tiny.chat, interactions.catalogue, {}, 400)
    judge = PredictionJudge(HintFollower(), encoder, interactions, LISTS)
    judge.lift(hinting(trace, trace.target_id))
    with pytest.raises(DataError, match="whole within 400 tokens; raise --max-prompt-tokens"):
        judge.lift(hinting(trace, *[trace.target_id] * 200))


def test_log_odds_are_those_of_the_softmax() -> None:
    scores = [-310.0, -300.0, -301.0]
    weights = [math.exp(score + 300) for score in scores]
    share = weights[0] / sum(weights)
    assert log_odds(scores, 0) == pytest.approx(math.log(share / (1 - share)))
    assert log_odds([-2000.0, -1.0], 0) == pytest.approx(-1999.0)
