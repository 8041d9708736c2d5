"""Lessons as rows of tokens: the real prompt in the real chat format, and the answer behind it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from demo_backbone.lessons import Lesson, Shape, make_lesson
from demo_backbone.sayings import measured
from demo_backbone.words import made_up_word
from mllmrec.data.draws import generator
from mllmrec.data.prompts import LIST_QUESTION, Renderer
from mllmrec.data.sequences import Catalogue
from mllmrec.models.chat import Chat, Encoder
from mllmrec.records import Item, RankingExample
from mllmrec.vision.pixels import ACCENTS, anything_goes, sentence

PROMPT_TOKENS = 4096
PIECES = r" \(\d{1,3}%\),?|\[ITEM_| ?\d{1,3}| ?\p{L}+| ?[^\s\p{L}\d\[\]]+|[\[\]]|\s+"
"""As in other small vocabularies, but numbers have at most three digits and a colour's share is one piece."""
SHORT_NUMBERS, COMMON, MADE_UP, SAYINGS = 1000, 60, 30_000, 3000
TEMPLATE_TOKENS, LINE_TOKENS, WORD_TOKENS = 50, 10, 1.4


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A lesson's tokens.

    `num_id_tokens` of the answer, from its second on, are the id; `recitals` are answers with other items, each in two
    parts, up to the id and from there. `line_ends_C` are the positions of the line breaks behind the candidates, of
    which that of the right one is number `right`.
    """

    prompt_T: list[int]
    answer_T: list[int]
    num_id_tokens: int
    recitals: list[tuple[list[int], list[int]]]
    line_ends_C: list[int]
    right: int


class Desk:
    """Writes sheets with one tokenizer."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.line_break = chat.encode("\n")[0]

    def sheet(self, lesson: Lesson, num_recitals: int = 0) -> Sheet:
        example, encoder = lesson.example, self.encoder(lesson)
        prompt_T = encoder.prompt_ids(example)
        breaks = [position for position, token in enumerate(prompt_T) if token == self.line_break]
        first = len(example.history) + 3  # The breaks before: behind `user`, both headings, and the history.
        others = [item for item in sorted(lesson.titles) if item != example.target_id]
        return Sheet(
            prompt_T=prompt_T,
            answer_T=encoder.answer_ids(example.target_id),
            num_id_tokens=len(self.chat.encode(example.target_id)),
            recitals=[self._recital(encoder, item) for item in others[:num_recitals]],
            line_ends_C=breaks[first : first + len(example.candidates)],
            right=example.candidates.index(example.target_id),
        )

    def _recital(self, encoder: Encoder, item: str) -> tuple[list[int], list[int]]:
        answer_T = encoder.answer_ids(item)
        given = 1 + len(self.chat.encode(item))
        return answer_T[:given], answer_T[given:]

    def encoder(self, lesson: Lesson) -> Encoder:
        """The package's own encoder for the lesson's catalogue."""
        catalogue = Catalogue(Item(item_id=item, title=title) for item, title in lesson.titles.items())
        return Encoder.make(self.chat, catalogue, lesson.captions, PROMPT_TOKENS)


def lessons(seed: int, purpose: str, key: str, shape: Shape, count: int) -> list[Lesson]:
    """`count` lessons of a shape, the same for the same seed, purpose and key."""
    return [make_lesson(generator(seed, purpose, f"{key}/{number}"), shape) for number in range(count)]


def batch_size(shape: Shape, tokens: int) -> int:
    """The number of lessons of a shape that make about `tokens` tokens."""
    lines = shape.history + shape.candidates
    return max(4, round(tokens / (TEMPLATE_TOKENS + lines * (LINE_TOKENS + WORD_TOKENS * shape.caption_words))))


def corpus(rng: random.Random) -> Iterator[str]:
    """The texts that the vocabulary is trained on: template, numbers, the captioner's words, and made-up words."""
    renderer = Renderer(catalogue=Catalogue([]), encode=str.split, max_prompt_tokens=1)
    blank = RankingExample(example_id="", user_id="", history=(), candidates=(), target_id="", split="train")
    shares = (f" ({share}%){comma}" for share in range(5, 101, 5) for comma in ("", ","))
    numbers = map(str, range(SHORT_NUMBERS))
    common = [renderer.text(blank) + LIST_QUESTION, "system\nuser\nassistant\n\n", "[ITEM_]", " |", *numbers, *shares]
    yield from common * COMMON
    yield from (f" {number}" for number in range(1, 20) for _ in range(COMMON))
    touches = [None, *sorted(ACCENTS)]
    yield from (" " + sentence(measured(rng, touch=rng.choice(touches)), anything_goes) for _ in range(SAYINGS))
    words = (made_up_word(rng) for _ in range(MADE_UP))
    yield from (f" {word.capitalize() if rng.random() < 0.7 else word}" for word in words)
