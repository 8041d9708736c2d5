"""From examples to the tokens a model sees: one chat format and one encoder for training, scoring and generation.

The chat template is the one that the model was trained with or that the user names, else the tokenizer's own, else a
plain one; thinking is off unless a teacher may think. It is rendered once around a
marker; a prompt is what stands before the marker, the text, and what stands after it. Answers are tokenised apart from
the prompt and end with the token that the template puts after an answer.

A model keeps the chat it was trained with: its date, and for models of an earlier version of the template how that
version wrote prompts (as they came, a think block left open, answers ended by the tokenizer's end of text).

Only the template may write control tokens. Text of any origin that spells one (`<|im_end|>`, `[INST]`) is changed, as
text and before tokenising, until it no longer does, so that trainers and servers that tokenise by themselves read the
same tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from mllmrec.data.prompts import TEMPLATE_VERSION, TODAY, BoundedCache, PromptFormat, Renderer, plain
from mllmrec.data.sequences import Catalogue
from mllmrec.data.visible_answer import closing_mark, empty_thought, open_thought
from mllmrec.errors import BackendError
from mllmrec.models.base import ScoringTask
from mllmrec.models.chat_templates import PLAIN, ChatTemplate, Content
from mllmrec.progress import note
from mllmrec.records import RankingExample

OPENING, CLOSING = "<think>\n", "\n</think>\n\n"
"""The marks of a thought for models whose chat template has none."""


class ThoughtMarks(NamedTuple):
    """Where a thought stands: `stem` is between the user's text and the mark that opens it."""

    stem: str
    opening: str
    closing: str


class Chat:
    """The chat format of one tokenizer; `version` is that of the prompt template it was trained with.

    A prompt ends where an answer begins. With `thinking` it is a teacher's and ends where the template lets a model
    write, with thinking on or off: what a teacher reasons is read and hidden, so a think block may stay open.

    A `template` takes the place of the tokenizer's own, and the plain one that of none; what was put in is in
    `put_template` and stays in the tokenizer, so that whatever is stored with it is asked in the same way.

    Raises BackendError when the tokenizer has no end token, or a template that can't be used.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        thinking: bool | None = None,
        trained: PromptFormat | None = None,
        template: str = "",
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise BackendError(
                f"The tokenizer of {tokenizer.name_or_path} has no end token, with which answers could end. Expected "
                "that of a language model, such as Qwen3-4B; choose another, or name its eos_token in "
                "tokenizer_config.json."
            )
        self.tokenizer = tokenizer
        self.put_template = template or ("" if trained is None else trained.chat_template)
        if not (self.put_template or tokenizer.chat_template):
            self.put_template = PLAIN
            note(f"{tokenizer.name_or_path} has no chat template: prompts are written in the plain one.")
        if self.put_template:
            tokenizer.chat_template = self.put_template
        self.version = TEMPLATE_VERSION if trained is None else trained.template
        self._today = TODAY if trained is None else trained.date
        self._template = ChatTemplate(tokenizer, thinking=bool(thinking), today=self._today)
        control = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items() if _is_control(token)}
        self._control = frozenset(control)
        self.end_id: int = tokenizer.eos_token_id
        self._opening = ""
        if trained is None or not trained.is_former:
            end_id = self._template.end_of_answer(self._control | {self.end_id})
            self.end_id = self.end_id if end_id is None else end_id
            if thinking is None:
                self._opening, remark = self._template.written_before_an_answer()
                if remark:
                    note(remark)
        self._before, self._after = self._template.before, self._template.after + self._opening
        self._spelt = _any_of(control.values())
        self._num_control = self._count_control(self.encode(self.prompt("x")))

    def render(self, content: Content) -> str:
        """What the chat template makes of a user's turn, a text or a list of parts such as images, as in `prompt`."""
        return self._template.render(content) + self._opening

    def prompt(self, text: str) -> str:
        """The whole prompt of a user's turn, up to where the answer begins."""
        return self._before + text + self._after

    def harmless(self, text: str) -> str:
        """Text of any origin with the control tokens that it spells broken up; its lines stay as they are.

        Markup gets other brackets, as everywhere; anything else a space behind its first character: `[ INST]`.
        """
        while (spelt := self._spelt.search(text)) is not None:
            text = text[: spelt.start()] + _broken(spelt[0]) + text[spelt.end() :]
        return text

    def prompt_ids(self, text: str, placed: int = 0) -> list[int]:
        """The token ids of `prompt(text)`.

        Raises BackendError when they hold a control token that neither the template put there nor the caller, who
        says how many were `placed` in the text on purpose.
        """
        return self._checked(self.encode(self.prompt(text)), self._num_control + placed)

    def prompt_ids_before_a_thought(self, text: str) -> list[int]:
        """The token ids of the prompt of an answer that begins with a thought, up to the mark that opens it."""
        before, stem = self._before, self.thought_marks.stem
        return self._checked(self.encode(before + text + stem), self.count_control(before + "x" + stem))

    def thought_ids(self, thought: str) -> list[int]:
        """The token ids of a thought between its marks."""
        _, opening, closing = self.thought_marks
        return [*self.encode(opening), *self.encode(self.harmless(thought)), *self.encode(closing)]

    @cached_property
    def thought_marks(self) -> ThoughtMarks:
        """The marks of the chat template's own think block where it has one, else `<think>` and `</think>` as text."""
        if block := empty_thought(self._after):
            return ThoughtMarks(self._after.removesuffix("".join(block)), *block)
        tails = [self._after]
        with suppress(BackendError):
            template = ChatTemplate(self.tokenizer, thinking=True, today=self._today)
            tails += [template.after] * (template.before == self._before)
        for tail in tails:
            opening = open_thought(tail)
            if opening and (closing := closing_mark(opening)):
                blank = "" if opening.endswith("\n") else "\n"
                return ThoughtMarks(tail.removesuffix(opening), opening + blank, f"\n{closing}\n\n")
        return ThoughtMarks(self._after, OPENING, CLOSING)

    def _checked(self, ids: list[int], num_control: int) -> list[int]:
        if self._count_control(ids) != num_control:
            extra = [self.tokenizer.convert_ids_to_tokens(token) for token in ids if token in self._control]
            raise BackendError(
                f"A title or caption becomes a control token of {self.tokenizer.name_or_path} that can't be told from "
                f"its text alone (found {sorted(set(extra))}). Change that text."
            )
        return ids

    def answer_ids(self, answer: str) -> list[int]:
        """The token ids of an answer and its end token."""
        return [*self.encode(answer), self.end_id]

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def count_control(self, text: str) -> int:
        """The number of control tokens in the text."""
        return self._count_control(self.encode(text))

    def _count_control(self, ids: list[int]) -> int:
        return sum(token in self._control for token in ids)


def stop_ids(model: Any, end_id: int) -> list[int]:
    """The ids at which a model stops writing: the end of an answer, and those that its folder names."""
    named: int | Sequence[int] | None = model.generation_config.eos_token_id
    return sorted({end_id, *(() if named is None else [named] if isinstance(named, int) else named)})


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

    def variant(self, catalogue: Catalogue, captions: Mapping[str, str]) -> Encoder:
        """The same chat and budget with other titles or captions; it counts what it leaves out by itself."""
        return self.make(self.chat, catalogue, captions, self.renderer.max_prompt_tokens)

    def prompt_ids(self, example: RankingExample, hint: str | None = None, list_length: int | None = None) -> list[int]:
        return self.renderer.fit(example, hint, list_length)[1]

    def prompt_text(self, example: RankingExample, hint: str | None = None) -> str:
        """The whole chat prompt as text, for trainers that tokenise by themselves."""
        return self.chat.prompt(self.renderer.fit(example, hint)[0])

    def fit_thought(self, trace: str, max_tokens: int) -> str | None:
        """A trace as a thought of at most `max_tokens`; None where nothing of it fits."""
        return self.renderer.fit_thought(trace, lambda text: len(self.chat.encode(text)), max_tokens)

    def thinking_prompt_ids(
        self, example: RankingExample, thought: str | None = None, hint: str | None = None
    ) -> list[int]:
        """The prompt of an answer that begins with a thought, up to its opening mark, or with the `thought` behind."""
        ids = self.chat.prompt_ids_before_a_thought(self.renderer.fit(example, hint)[0])
        return ids if thought is None else ids + self.chat.thought_ids(thought)

    def scored_answers(self, example: RankingExample, scored: str) -> list[list[int]]:
        """What is scored of each candidate: its whole answer, or its id alone."""
        if scored == "answer":
            return [self.answer_ids(item) for item in example.candidates]
        return [self.chat.encode(f"[ITEM_{item}]") for item in example.candidates]

    def answer_ids(self, item_id: str) -> list[int]:
        """The tokens of an item's answer, its end token included."""
        return list(self._answers[item_id])

    @cached_property
    def _answers(self) -> BoundedCache[str, list[int]]:
        return BoundedCache(self._write_answer)

    def _write_answer(self, item_id: str) -> list[int]:
        return self.chat.answer_ids(self.renderer.answer(item_id))

    def scoring_task(self, example: RankingExample, hint: str | None = None, thought: str | None = None) -> ScoringTask:
        """The prompt, with a hint in it or a thought behind it, and every candidate's answer."""
        prompt = self.prompt_ids(example, hint) if thought is None else self.thinking_prompt_ids(example, thought)
        return ScoringTask(prompt_T=prompt, answers_C=self.scored_answers(example, "answer"))


def _is_control(token: Any) -> bool:
    """Whether an added token steers the model. Plain words, blanks and line breaks are added to many vocabularies too.

    A token that begins or ends with a blank can't be kept out of text, and one blank more or less steers nothing.
    """
    content = str(token)
    letters = content.replace("\u2581", "")
    return content == content.strip() and (token.special or not (letters.isalnum() or not letters.strip()))


def _any_of(spellings: Iterable[str]) -> re.Pattern[str]:
    """What finds any of them in a text; where there are none, what finds nothing."""
    return re.compile("|".join(map(re.escape, spellings)) or "(?!)")


def _broken(spelling: str) -> str:
    """A control token's spelling as text that no longer spells it."""
    bracketed = plain(spelling)
    return bracketed if bracketed != spelling else f"{spelling[0]} {spelling[1:]}" if len(spelling) > 1 else ""
