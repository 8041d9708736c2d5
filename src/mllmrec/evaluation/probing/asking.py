"""Asking the model: exact scores of examples under one condition, in the order of their own candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mllmrec.backends.base import CandidateScorer
from mllmrec.backends.encoding import Encoder
from mllmrec.evaluation.answering import scoring_task
from mllmrec.evaluation.probing.conditions import MASKED, Condition, changed, swapped
from mllmrec.records import RankingExample


class Asker:
    """A scorer with the prompts of every condition; `scored` is `answer` or `id`, as in `mllmrec evaluate`.

    `budget` counts what prompts had to leave out since it was last taken.
    """

    def __init__(self, scorer: CandidateScorer, encoder: Encoder, *, scored: str, seed: int) -> None:
        self.scorer, self.scored, self.seed = scorer, scored, seed
        self._encoders = {(False, False): encoder}

    def ask(
        self, condition: Condition, examples: Sequence[RankingExample], hints: Mapping[str, str]
    ) -> list[list[float]]:
        """The scores of each example's candidates. `hints` are by example id and for hinted conditions only."""
        encoder = self._encoder(condition)
        tasks = []
        for example in examples:
            hint = hints[example.example_id] if condition.hinted else None
            assert hint is None or example.split == "train", "hints are for examples of the train split"
            tasks.append(scoring_task(changed(example, condition, self.seed), encoder, self.scored, hint))
        scores = dict(self.scorer.score(tasks))
        return [_turned_back(scores[index], condition) for index in range(len(tasks))]

    def take_budget(self) -> dict[str, Any]:
        """What the prompts since the last call had to leave out."""
        taken: dict[str, Any] = {}
        for encoder in self._encoders.values():
            for name, count in encoder.renderer.budget.items():
                taken[name] = taken.get(name, 0) + count
            encoder.renderer.budget.clear()
        return taken

    def _encoder(self, condition: Condition) -> Encoder:
        kind = (condition.swapped_captions, condition.masked_titles)
        if kind not in self._encoders:
            plain = self._encoders[False, False]
            renderer = plain.renderer
            self._encoders[kind] = Encoder.make(
                plain.chat,
                MASKED if condition.masked_titles else renderer.catalogue,
                swapped(renderer.captions, self.seed) if condition.swapped_captions else renderer.captions,
                renderer.max_prompt_tokens,
            )
        return self._encoders[kind]


def _turned_back(scores_C: list[float], condition: Condition) -> list[float]:
    """Scores of a rotated list in the order that the list had before."""
    shift = condition.shift(len(scores_C))
    return scores_C[len(scores_C) - shift :] + scores_C[: len(scores_C) - shift]
