"""Questions as the model reads them: histories cut to its window, prompts within their budget, answers scored."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from mllmrec.data.prompts import TRAINED_CANDIDATES
from mllmrec.errors import DataError
from mllmrec.evaluation.ranking.chunks import scoring_task
from mllmrec.evaluation.ranking.models import ModelChoice
from mllmrec.evaluation.ranking.thoughts import rank_after_thoughts
from mllmrec.models.chat import Encoder
from mllmrec.models.ranker import Ranker
from mllmrec.progress import note
from mllmrec.records import RankingExample, example_id
from mllmrec.serving.answers import Question, Scores
from mllmrec.serving.items import ItemNames
from mllmrec.settings.evaluation import EvaluateSettings
from mllmrec.settings.serving import RecommenderSettings

THOUGHT_SETTINGS = ("thoughts", "thought_temperature", "max_thought_tokens", "seed", "score")


class QuestionReader:
    """Scores questions with a model, in one thread at a time."""

    def __init__(
        self, settings: RecommenderSettings, ranker: Ranker, choice: ModelChoice, names: ItemNames, window: int
    ) -> None:
        self.settings, self.ranker, self.choice, self.names, self.window = settings, ranker, choice, names, window
        self._cut_noted = False
        self._trained_budget = ranker.encoder.renderer.max_prompt_tokens

    def score(self, questions: Sequence[Question]) -> list[Scores]:
        """Scores of questions, read together; those about items that the catalogue lacks by an encoder of their own."""
        examples = [self.example(question) for question in questions]
        encoders = [self._encoder_for(question) for question in questions]
        shared = self.ranker.encoder
        own = [row for row, encoder in enumerate(encoders) if encoder is shared]
        found = dict(zip(own, self._read(shared, [examples[row] for row in own]), strict=True)) if own else {}
        for row, encoder in enumerate(encoders):
            if row not in found:
                [found[row]] = self._read(encoder, [examples[row]])
        return [found[row] for row in range(len(questions))]

    def _read(self, encoder: Encoder, examples: Sequence[RankingExample]) -> list[Scores]:
        """Scores of examples; those that need another budget are read apart from the others."""
        budgets = [self._budget(encoder, example) for example in examples]
        found: dict[int, Scores] = {}
        for budget in dict.fromkeys(budgets):
            rows = [row for row, own in enumerate(budgets) if own == budget]
            encoder.renderer.max_prompt_tokens = budget
            found |= zip(rows, self._read_within(encoder, [examples[row] for row in rows]), strict=True)
        encoder.renderer.max_prompt_tokens = self._trained_budget
        encoder.renderer.budget.clear()
        return [found[row] for row in range(len(examples))]

    def _budget(self, encoder: Encoder, example: RankingExample) -> int:
        """The tokens of a prompt: as trained, or as much for each line of a longer list as in training.

        The second where the first doesn't hold the whole history; `evaluate` would cut that, or refuse the list. A
        budget that was asked for stays. A history that is cut all the same is told, once; raises DataError where texts
        of the caller's own are the reason.
        """
        lines = self.window - 1 + (self.choice.trained.candidates if self.choice.trained else TRAINED_CANDIDATES)
        raised = self._trained_budget * max(lines, self.window - 1 + len(example.candidates)) // lines
        asked = "max_prompt_tokens" in self.settings.model_fields_set
        budgets = (self._trained_budget,) if asked else (self._trained_budget, raised)
        for budget in budgets:
            if _holds(encoder, example, budget):
                return budget
        budget = budgets[-1]
        own = [item for item in (*example.history, *example.candidates) if item not in self.names]
        if own:
            raise DataError(
                f"A prompt of {budget} tokens doesn't hold the whole history beside such long titles as that of "
                f"{own[0]}. Give shorter ones, or fewer items."
            )
        if not self._cut_noted:
            self._cut_noted = True
            note(
                f"Prompts of {budget} tokens don't hold the whole history of some questions: their oldest items are "
                "left out, as in `evaluate`. A larger --max-prompt-tokens holds more."
            )
        return budget

    def _read_within(self, encoder: Encoder, examples: Sequence[RankingExample]) -> list[Scores]:
        if self.settings.thoughts:
            known = {name: getattr(self.settings, name) for name in THOUGHT_SETTINGS}
            asked = EvaluateSettings(dataset=self.settings.dataset, **known)
            rows = rank_after_thoughts(asked, self.ranker, examples, encoder)
            return [
                Scores(
                    log_probabilities=tuple(row["scores"]),
                    tokens=sum(row["tokens"]) + sum(thought["tokens"] for thought in row["thoughts"]),
                    history_read=encoder.renderer.shown_history(example),
                    thoughts=tuple(thought["text"] for thought in row["thoughts"]),
                )
                for example, row in zip(examples, rows, strict=True)
            ]
        tasks = [scoring_task(example, encoder, self.settings.score) for example in examples]
        scores = dict(self.ranker.scorer.score(tasks))
        return [
            Scores(
                log_probabilities=tuple(scores[row]),
                tokens=len(task.prompt_T) + sum(map(len, task.answers_C)),
                history_read=encoder.renderer.shown_history(examples[row]),
            )
            for row, task in enumerate(tasks)
        ]

    def _encoder_for(self, question: Question) -> Encoder:
        catalogue = self.names.including([*question.history, *question.candidates])
        if catalogue is self.names.catalogue:
            return self.ranker.encoder
        encoder = self.ranker.encoder
        return encoder.variant(catalogue, encoder.renderer.captions)

    def example(self, question: Question) -> RankingExample:
        """The question as the model reads it: the end of the history, as long as its window."""
        whole = self.whole(question)
        return replace(whole, history=whole.history[-(self.window - 1) :])

    def whole(self, question: Question) -> RankingExample:
        history, candidates = (tuple(self.names.resolve(own)) for own in (question.history, question.candidates))
        if not candidates:
            raise DataError("There are no candidates. Expected one or more ids or titles.")
        if len(set(candidates)) < len(candidates):
            twice = next(item for item in candidates if candidates.count(item) > 1)
            raise DataError(f"The candidate {twice} is given twice. Expected each candidate once.")
        key = example_id("", "", [*history, *candidates])
        return RankingExample(
            example_id=key, user_id="", history=history, candidates=candidates, target_id="", split="test"
        )


def _holds(encoder: Encoder, example: RankingExample, budget: int) -> bool:
    """Whether a prompt of so many tokens holds the whole history."""
    renderer = encoder.renderer
    renderer.max_prompt_tokens = budget
    renderer.budget.clear()
    with suppress(DataError):
        encoder.prompt_ids(example)
        return not renderer.budget["history_shortened"]
    return False
