"""Ranking one chunk of users: by exact scores, or by answers that the model writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mllmrec.backends.base import ScoringTask
from mllmrec.backends.encoding import Encoder
from mllmrec.backends.huggingface import HuggingFaceGenerator, LoadedModel
from mllmrec.backends.scoring import HuggingFaceScorer
from mllmrec.data.prompts import parse, parse_list
from mllmrec.records import RankingExample
from mllmrec.settings.ranking import EvaluateSettings, ModelRunSettings

RankChunk = Callable[[Sequence[RankingExample]], list[dict[str, Any]]]
"""Rows in the order of the examples: {scores, tokens} of all candidates, or {answers, dropped}."""


def make_ranker(settings: EvaluateSettings, loaded: LoadedModel, encoder: Encoder) -> RankChunk:
    """The ranker that --method names."""
    if settings.method == "score":
        return _by_scores(settings, loaded, encoder)
    return _by_answers(settings, loaded, encoder)


def _by_scores(settings: ModelRunSettings, loaded: LoadedModel, encoder: Encoder) -> RankChunk:
    scorer = HuggingFaceScorer(loaded.model, settings.batch_tokens)

    def rank(examples: Sequence[RankingExample]) -> list[dict[str, Any]]:
        tasks = [scoring_task(example, encoder, settings.score) for example in examples]
        scores = dict(scorer.score(tasks))
        return [
            {"scores": scores[index], "tokens": [len(answer) for answer in task.answers_C]}
            for index, task in enumerate(tasks)
        ]

    return rank


def scoring_task(example: RankingExample, encoder: Encoder, scored: str, hint: str | None = None) -> ScoringTask:
    """The prompt and what is scored of each candidate: its whole answer, or its id alone."""
    if scored == "answer":
        answers = [encoder.answer_ids(item) for item in example.candidates]
    else:
        answers = [encoder.chat.encode(f"[ITEM_{item}]") for item in example.candidates]
    return ScoringTask(prompt_T=encoder.prompt_ids(example, hint), answers_C=answers)


def _by_answers(settings: EvaluateSettings, loaded: LoadedModel, encoder: Encoder) -> RankChunk:
    generator, longest = HuggingFaceGenerator(loaded), max(settings.top_k)

    def rank(examples: Sequence[RankingExample]) -> list[dict[str, Any]]:
        rows = []
        for start in range(0, len(examples), settings.batch):
            batch = examples[start : start + settings.batch]
            texts = _answers(settings, generator, encoder, batch, longest)
            rows += [_row(text, example) for text, example in zip(texts, batch, strict=True)]
        return rows

    return rank


def _answers(
    settings: EvaluateSettings,
    generator: HuggingFaceGenerator,
    encoder: Encoder,
    examples: Sequence[RankingExample],
    longest: int,
) -> list[str]:
    """One text for each example whose lines are its answers, best first: K beams, or one list of K."""
    if settings.list_prompt:
        prompts = [encoder.prompt_ids(example, list_length=longest) for example in examples]
        budget = settings.max_answer_tokens * longest
        return [texts[0] for texts in generator.generate(prompts, num_answers=1, max_new_tokens=budget)]
    prompts = [encoder.prompt_ids(example) for example in examples]
    beams = generator.generate(prompts, num_answers=longest, max_new_tokens=settings.max_answer_tokens)
    named = [[parse(text).item_id for text in texts] for texts in beams]
    return ["\n".join(f"[ITEM_{item}]" for item in items if item is not None) for items in named]


def _row(text: str, example: RankingExample) -> dict[str, Any]:
    answers, dropped = parse_list(text, example.candidates)
    return {"answers": answers, "dropped": dropped}
