"""From examples to token ids: one renderer and one chat, for training, scoring and generation alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from mllmrec.backends.base import ScoringTask
from mllmrec.backends.chat import Chat
from mllmrec.data.prompts import Renderer, Written
from mllmrec.data.sequences import Catalogue
from mllmrec.records import RankingExample


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Turns examples into token ids within the prompt budget; `renderer.budget` counts what was left out."""

    renderer: Renderer[list[int]]
    chat: Chat

    @classmethod
    def make(cls, chat: Chat, catalogue: Catalogue, captions: Mapping[str, str], max_prompt_tokens: int) -> Encoder:
        renderer = Renderer(
            catalogue=catalogue,
            encode=chat.prompt_ids,
            captions=captions,
            harmless=chat.harmless,
            max_prompt_tokens=max_prompt_tokens,
        )
        return cls(renderer=renderer, chat=chat)

    def prompt_ids(self, example: RankingExample, hint: str | None = None, list_length: int | None = None) -> list[int]:
        return self.renderer.fit(example, hint, list_length)[1]

    def prompt_text(self, example: RankingExample, hint: str | None = None) -> str:
        """The whole chat prompt as text, for trainers that tokenise by themselves."""
        return self.chat.prompt(self.renderer.fit(example, hint)[0])

    def answer_ids(self, item_id: str) -> list[int]:
        """The tokens of an item's answer, its end token included."""
        return list(self._answers[item_id])

    @cached_property
    def _answers(self) -> Written[str, list[int]]:
        return Written(self._write_answer)

    def _write_answer(self, item_id: str) -> list[int]:
        return self.chat.answer_ids(self.renderer.answer(item_id))

    def scoring_task(self, example: RankingExample, hint: str | None = None) -> ScoringTask:
        """The prompt and every candidate's answer."""
        answers = [self.answer_ids(item) for item in example.candidates]
        return ScoringTask(prompt_T=self.prompt_ids(example, hint), answers_C=answers)
