"""The one place where prompts are written and answers are read.

SFT, GRPO, scoring, generation and serving all call `Renderer.fit` and `parse`, so a prompt can't differ between
training and evaluation. The wording knows no domain: an item is an id, a title and, when captions are on, a sentence
about its image. Titles and captions are data: control characters collapse to spaces, and anything in angle brackets
that could spell a control token (`<|im_end|>`, `<think>`) has its brackets replaced by ‹ and ›, which every tokenizer
reads as plain text. A tokenizer that has control tokens in other spellings (`[INST]`) breaks those up as well.

`PromptFormat` is the format that a checkpoint was trained with. It lies in the checkpoint's manifest, every later verb
inherits it, and settings that contradict it are refused: a model trained on windows of ten titles with captions must
not be asked about windows of five without. The date that a chat template shows is part of the template's version, so
that a checkpoint keeps its own.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from mllmrec.data.sequences import Catalogue
from mllmrec.data.visible_answer import visible_answer
from mllmrec.errors import DataError, SettingsError
from mllmrec.records import RankingExample
from mllmrec.storage.manifests import Manifest

TEMPLATE_VERSION = "2026-11.3"
"""Of the wording of prompts, and of what the model's chat template makes of them (models/chat_templates.py)."""
TODAY = "2024-07-26"
"""The date of every prompt whose chat template asks for one, so that prompts don't change overnight. It is part of the
version; it is the date that Llama 3's own template falls back to."""
CAPTION_WORDS = (50, 25, 12, 6, 3, 0)
SHORTEST_HINT = 8
TRAINED_CANDIDATES = 10
"""The candidates of a training prompt where nothing else was asked for."""
CANDIDATES = "Candidates:"
QUESTION = "Which candidate comes next? Answer with one line of the list: [ITEM_<id>] <title>"
LIST_QUESTION = "Which candidates come next? Answer with the {k} best, best first, one a line: [ITEM_<id>] <title>"
_MARKUP = re.compile(r"<([^<>]+)>")
_ANSWER = re.compile(r"\[ITEM_([A-Za-z0-9_-][A-Za-z0-9._-]*)\](?:\s|$)")
KEPT = 100_000
Encoded = TypeVar("Encoded", bound=Sequence[object])
Key = TypeVar("Key")
Value = TypeVar("Value")
FORMER_TEMPLATE = "2026-11.2"
"""The version before, with the same wording. It let the chat template show the day of training: its checkpoints keep
that day, as `2026-11.2 of 2026-10-31`."""


def plain(text: str) -> str:
    """Text of unknown origin as one line without markup or control characters.

    >>> plain("Toy\\tStory\\n<|im_end|><think>")
    'Toy Story ‹|im_end|›‹think›'
    """
    kept = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in text)
    while _MARKUP.search(kept):
        kept = _MARKUP.sub(r"‹\1›", kept)
    return " ".join(kept.split())


@dataclass(frozen=True, kw_only=True)
class ParsedAnswer:
    """A model's answer, parsed.

    `item_id` is the id of its answer line, None when there is no such line; `lines` counts the non-empty lines of what
    is visible.
    """

    item_id: str | None
    lines: int


def parse(text: str) -> ParsedAnswer:
    """Read an answer. Only an id at the start of a line counts, so a title can't forge one.

    >>> parse("<think>\\n</think>\\n[ITEM_12] Toy Story [ITEM_7]")
    ParsedAnswer(item_id='12', lines=1)
    >>> parse("I would say 12.").item_id is None
    True
    """
    lines = _answer_lines(text)
    ids = [match[1] for line in lines if (match := _ANSWER.match(line))]
    return ParsedAnswer(item_id=ids[0] if ids else None, lines=len(lines))


def parse_list(text: str, candidates: Sequence[str]) -> tuple[list[str], int]:
    """The candidates a list answer names, best first, and how many of its ids were duplicated or foreign.

    >>> parse_list("[ITEM_2] b\\n[ITEM_9] x\\n[ITEM_2] b\\n[ITEM_1] a", ["1", "2"])
    (['2', '1'], 2)
    """
    named = [match[1] for line in _answer_lines(text) if (match := _ANSWER.match(line))]
    ranked = [item for item in dict.fromkeys(named) if item in candidates]
    return ranked, len(named) - len(ranked)


class BoundedCache(dict[Key, Value]):
    """A cache of `write` by its argument; it is emptied when it holds `most` values.

    >>> lengths = BoundedCache(len, most=2)
    >>> [lengths[word] for word in ("one", "two", "three")], list(lengths)
    ([3, 3, 5], ['three'])
    """

    def __init__(self, write: Callable[[Key], Value], most: int = KEPT) -> None:
        super().__init__()
        self.write, self.most = write, most

    def __missing__(self, key: Key) -> Value:
        if len(self) >= self.most:
            self.clear()
        self[key] = value = self.write(key)
        return value


@dataclass(kw_only=True)
class Renderer(Generic[Encoded]):
    """Writes prompts for one catalogue within a token budget.

    `encode` maps the user's turn to the tokens of the whole chat prompt; its length is what the budget bounds.
    `captions` maps item ids to sentences, and is empty when prompts hold titles alone. `harmless` breaks up control
    tokens in plain text. `budget` counts what had to be left out.

    Catalogue and captions don't change, so an item's line is written once. The search for what fits begins at what
    fitted last, since fewer words never take more tokens.
    """

    catalogue: Catalogue
    encode: Callable[[str], Encoded]
    captions: Mapping[str, str] = field(default_factory=dict)
    harmless: Callable[[str], str] = str
    max_prompt_tokens: int
    budget: Counter[str] = field(default_factory=Counter)
    _fitted: int = field(default=0, init=False, repr=False)

    def fit(
        self, example: RankingExample, hint: str | None = None, list_length: int | None = None
    ) -> tuple[str, Encoded]:
        """The user's turn and the encoded prompt: captions shorten first, then the hint, then old history goes.

        Candidates and the question always stay; raises DataError where they alone pass the budget. A hint outside the
        train split is a programming error.
        """
        assert hint is None or example.split == "train", "a hint may only occur in a training prompt"
        self.budget["prompts"] += 1
        steps = list(self._reductions(hint, len(example.history)))

        def written(step: int) -> tuple[str, Encoded]:
            words, shown, kept = steps[step]
            text = self.text(example, hint=shown, list_length=list_length, caption_words=words, kept=kept)
            return text, self.encode(text)

        def fits(prompt: tuple[str, Encoded]) -> bool:
            return len(prompt[1]) <= self.max_prompt_tokens

        step = min(self._fitted, len(steps) - 1)
        prompt = written(step)
        if fits(prompt):
            while step and fits(longer := written(step - 1)):
                step, prompt = step - 1, longer
        while not fits(prompt):
            step += 1
            if step == len(steps):
                raise DataError(
                    f"The prompt of example {example.example_id} takes {len(prompt[1])} tokens with no history at all; "
                    f"--max-prompt-tokens is {self.max_prompt_tokens}. Raise it, or use fewer candidates."
                )
            prompt = written(step)
        self._fitted = step
        if step:
            _, shown, kept = steps[step]
            self.budget["captions_shortened"] += bool(self.captions)
            self.budget["hint_shortened"] += shown != hint
            self.budget["history_shortened"] += kept < len(example.history)
        return prompt

    def shown_history(self, example: RankingExample) -> int:
        """How many items of the history, from its end, a prompt within the budget holds."""
        return self.fit(example)[0].split("\n").index(CANDIDATES) - 1

    def fit_thought(self, trace: str, num_tokens: Callable[[str], int], most: int) -> str | None:
        """A trace as the thought of an answer, shortened as hints are until it takes at most `most` tokens.

        None, with the thought counted as dropped, where nothing of it fits.
        """
        for thought in ("\n".join(_rows(trace)), *shorter_hints(trace)):
            if thought and num_tokens(self.harmless(thought)) <= most:
                self.budget["thoughts_shortened"] += thought != "\n".join(_rows(trace))
                return self.harmless(thought)
        self.budget["thoughts_dropped"] += 1
        return None

    def text(
        self,
        example: RankingExample,
        *,
        hint: str | None = None,
        list_length: int | None = None,
        caption_words: int = CAPTION_WORDS[0],
        kept: int | None = None,
    ) -> str:
        """The user's turn with the last `kept` history items and captions of at most `caption_words` words."""
        history = example.history if kept is None else example.history[len(example.history) - kept :]
        parts = [
            "A user chose these, oldest first:",
            *(self.line(item, caption_words) for item in history),
            CANDIDATES,
            *(self.line(item, caption_words) for item in example.candidates),
        ]
        if hint is not None:
            parts += ["Notes on this user, for reference only:", *map(self.harmless, _rows(hint))]
        parts.append(QUESTION if list_length is None else LIST_QUESTION.format(k=list_length))
        return "\n".join(parts)

    def line(self, item_id: str, caption_words: int = 0) -> str:
        """An item in a list: its answer and, where there is one, its caption."""
        return self._lines[item_id, caption_words]

    def answer(self, item_id: str) -> str:
        """The one right way to name an item: `[ITEM_<id>] <title>`."""
        return self.line(item_id, 0)

    @cached_property
    def _lines(self) -> BoundedCache[tuple[str, int], str]:
        return BoundedCache(self._write_line)

    def _write_line(self, key: tuple[str, int]) -> str:
        item_id, caption_words = key
        words = plain(self.captions.get(item_id, "")).split()[:caption_words]
        title = self.harmless(plain(self.catalogue.title(item_id)))
        return f"[ITEM_{item_id}] {title}" + (f" | {self.harmless(' '.join(words))}" if words else "")

    def _reductions(self, hint: str | None, num_history: int) -> Iterator[tuple[int, str | None, int]]:
        """(caption words, hint, history items) from everything down to nothing, captions first, then the hint."""
        for words in CAPTION_WORDS if self.captions else (0,):
            yield words, hint, num_history
        for shorter in shorter_hints(hint):
            yield 0, shorter, num_history
        for kept in range(num_history - 1, -1, -1):
            yield 0, None, kept


def shorter_hints(hint: str | None) -> Iterator[str | None]:
    """A hint without its last line, without its last two, ...; its first line halved, halved again, ...; none.

    >>> list(shorter_hints("Step 1: warm films.\\nStep 2: a drama."))
    ['Step 1: warm films.', None]
    """
    rows = _rows(hint or "")
    yield from ("\n".join(rows[:count]) for count in range(len(rows) - 1, 0, -1))
    words = rows[0].split() if rows else []
    while len(words) >= 2 * SHORTEST_HINT:
        words = words[: len(words) // 2]
        yield " ".join(words)
    if rows:
        yield None


@dataclass(frozen=True, kw_only=True)
class PromptFormat:
    """What decides how a prompt looks; `hint_share` and `thought_share` are recorded and concern training alone.

    They are the shares of training examples that had a trace in their prompt, and before their answer. `candidates` is
    how many a training prompt listed; in manifests of earlier versions, which don't say, the usual number.

    `chat_template` is the text of the template that was put in place of the model's own, or of none; empty for a model
    that was asked in its own.
    """

    window: int
    captions: bool
    max_prompt_tokens: int
    template: str = TEMPLATE_VERSION
    hint_share: float = 0.0
    chat_template: str = ""
    thought_share: float = 0.0
    candidates: int = TRAINED_CANDIDATES

    def to_details(self) -> dict[str, Any]:
        """The entry of a checkpoint's manifest."""
        return {"prompt_format": asdict(self)}

    @classmethod
    def of(cls, manifest: Manifest | None) -> PromptFormat | None:
        """The format in a checkpoint's manifest, or None when it holds none (a plain backbone)."""
        details = manifest.details.get("prompt_format") if manifest is not None else None
        if not details:
            return None
        if set(details) - set(cls.__dataclass_fields__):
            raise SettingsError(
                f"The checkpoint's prompt format holds {', '.join(sorted(details))}, and this version knows "
                f"{', '.join(cls.__dataclass_fields__)}. Use the version that trained it, or train anew."
            )
        if manifest is not None and details.get("template") == FORMER_TEMPLATE:
            details = details | {"template": f"{FORMER_TEMPLATE} of {manifest.finished_at[:10] or TODAY}"}
        return cls(**details)

    @property
    def is_former(self) -> bool:
        """Whether the model knows prompts as the version before wrote them."""
        return self.template.split(" ")[0] == FORMER_TEMPLATE

    @property
    def date(self) -> str:
        """The date (ISO 8601) that the chat template showed the model in training, where it shows one."""
        return self.template.partition(" of ")[2] or TODAY


def inherited(trained: PromptFormat | None, asked: Mapping[str, Any], name: str) -> PromptFormat | None:
    """`trained`, after checking that nothing `asked` for contradicts it.

    `asked` maps field names to values the user gave explicitly. Raises SettingsError naming the conflict, also when
    the checkpoint was trained with another version of the prompt template.
    """
    if trained is None:
        return None
    conflicts = [
        f"the chat template is another one than {name} was trained with"
        if field == "chat_template"
        else f"{field} is {value!r}, and {name} was trained with {getattr(trained, field)!r}"
        for field, value in asked.items()
        if value != getattr(trained, field)
    ]
    if trained.template != TEMPLATE_VERSION and not trained.is_former:
        conflicts.append(f"this version writes template {TEMPLATE_VERSION}, and {name} knows {trained.template}")
    if conflicts:
        raise SettingsError(f"{'; '.join(conflicts)}. Leave the setting out to inherit it, or train anew.")
    return trained


def _answer_lines(text: str) -> list[str]:
    """The non-empty lines of the visible answer.

    One line in the form of an answer is taken as it stands, so that no title can spell a mark of reasoning; `plain`
    left none in angle brackets.
    """
    line = text.strip()
    if not (_ANSWER.match(line) and len(line.splitlines()) == 1 == line.count("[ITEM_") and not _MARKUP.search(line)):
        text = visible_answer(text).text
    return [line.strip() for line in text.splitlines() if line.strip()]


def _rows(hint: str) -> list[str]:
    return [row for row in map(plain, hint.splitlines()) if row]
