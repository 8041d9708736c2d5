"""One way to a ranker: what it scores, what it puts off, and that nothing goes round it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from small_models import DATASET, WINDOW, naive_scores

import mllmrec
from mllmrec.data.candidates.drawing import freeze
from mllmrec.data.sequences import Interactions
from mllmrec.errors import BackendError
from mllmrec.models import ranker as rankers
from mllmrec.models.base import CandidateScorer, ScoringTask, TextGenerator, Thinker
from mllmrec.models.chat import Chat
from mllmrec.models.ranker import load_ranker, ranker_of, scorer_of
from mllmrec.storage.workspace import Workspace

PACKAGE = Path(mllmrec.__file__).parent
PARTS = {"HuggingFaceScorer", "HuggingFaceGenerator", "Encoder", "Encoder.make"}


@pytest.fixture(scope="module")
def interactions(trained: Workspace) -> Interactions:
    return Interactions.load(trained, DATASET)


def opened(workspace: Workspace, interactions: Interactions, **knobs: Any) -> rankers.Ranker:
    knobs = {"catalogue": interactions.catalogue, "captions": {}, "max_prompt_tokens": 2048, "device": "cpu"} | knobs
    return load_ranker(workspace, workspace.checkpoint(DATASET, "full"), **knobs)


def first_task(ranker: rankers.Ranker, interactions: Interactions) -> ScoringTask:
    examples, _ = freeze(interactions, "test", window=WINDOW, num_neg=4, seed=42)
    return ranker.encoder.scoring_task(examples[0])


def test_a_loaded_ranker_scores_as_plain_forward_passes_do(trained: Workspace, interactions: Interactions) -> None:
    ranker = opened(trained, interactions)
    task = first_task(ranker, interactions)
    [(_, scores)] = ranker.scorer.score([task])
    expected = naive_scores(ranker.engine.model, task.prompt_T, task.answers_C)
    assert scores == pytest.approx(expected, abs=1e-4)
    [(_, live)] = scorer_of(ranker.engine.model).score([task])
    assert live == scores


def test_a_temperature_changes_scores_and_one_is_the_plain_scorer(
    trained: Workspace, interactions: Interactions
) -> None:
    ranker = opened(trained, interactions)
    task = first_task(ranker, interactions)
    [(_, plain)], [(_, one)], [(_, warm)] = (
        scorer.score([task]) for scorer in (ranker.scorer, ranker.scorer_at(1.0), ranker.scorer_at(1.3))
    )
    assert plain == one
    assert warm != pytest.approx(plain, abs=1e-3)


class Unscorable:
    """An engine whose model writes and can't be scored."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat

    def scorer(self, max_tokens: int, temperature: float = 1.0, layout: str = "auto") -> CandidateScorer:
        raise BackendError(f"no scores in batches of {max_tokens} at {temperature} by {layout}")

    def generator(self) -> TextGenerator:
        return Writer()

    def thinker(self) -> Thinker:
        raise BackendError("no thoughts without scores")


class Writer:
    def generate(self, prompts: Sequence[Sequence[int]], *, num_answers: int, max_new_tokens: int) -> list[list[str]]:
        return [[f"at most {max_new_tokens} tokens"] * num_answers for _ in prompts]


def test_another_engine_is_one_entry_and_need_not_score(
    trained: Workspace, interactions: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ranker of a model that can only write is opened all the same, and its scorer is refused when asked for."""
    chat = opened(trained, interactions).engine.chat
    monkeypatch.setattr(rankers, "ENGINES", {"written": lambda *_given, **_named: Unscorable(chat)})
    ranker = opened(trained, interactions, engine="written", batch_tokens=77)
    assert ranker.generator.generate([[1]], num_answers=2, max_new_tokens=5) == [["at most 5 tokens"] * 2]
    with pytest.raises(BackendError, match=r"no scores in batches of 77 at 1.0 by auto"):
        _ = ranker.scorer


def test_a_variant_writes_other_titles_within_the_same_budget(trained: Workspace, interactions: Interactions) -> None:
    encoder = opened(trained, interactions, max_prompt_tokens=300).encoder
    captions = dict.fromkeys(interactions.catalogue, "a caption")
    variant = encoder.variant(interactions.catalogue, captions)
    assert variant.renderer.captions == captions
    assert variant.renderer.max_prompt_tokens == 300
    assert variant.renderer.budget is not encoder.renderer.budget


def calls(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def test_nothing_outside_of_models_builds_a_scorer_a_generator_or_an_encoder() -> None:
    builders = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if PARTS & set(calls(path))}
    assert builders == {"models/huggingface.py", "models/ranker.py"}
    assert ranker_of.__module__ == "mllmrec.models.ranker"
