"""Prompts and texts under audit: does anything but the candidate list name the target?

Every prompt is written by the renderer that training and evaluation use. The list is cut out of it, and the rest is
searched for the target's id and, in captions, for its title. A target that its history repeats is another check's
matter. A phrase may be a title by chance (black and white), so phrases in small letters count as a leak only when
they name the target more often than chance explains.

`check_bare_ids` looks for the target's id as a word of its own, in a trace or in a caption of the history. `[ITEM_12]`
and `item 12` are names wherever they stand (`naming.py`), but a bare 12 may be any number. Such words are therefore
counted: numbers in texts hit the target's id as often as that item is a target. An id of letters and digits is no other
word, and one is enough.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from mllmrec.data.auditing.chance import LEVEL, events
from mllmrec.data.auditing.findings import BARE_IDS, TARGET_IN_PROMPT, AuditVerdict, Finding, judged
from mllmrec.data.auditing.material import SPLITS, Material
from mllmrec.data.auditing.splits import lines_of, name_of
from mllmrec.data.auditing.title_index import Strength
from mllmrec.data.candidates.drawing import questions
from mllmrec.data.prompts import CAPTION_WORDS, Renderer
from mllmrec.records import RankingExample

ANSWER_NAMED = (
    "Something beside the candidate list names the answer: see the item's caption or title in the prompt named here."
)

_BARE_WORD = re.compile(r"(?<![\w.-])[A-Za-z0-9](?:[\w.-]*\w)?")
SUSPECT = 0.01


@dataclass(kw_only=True)
class CachingRenderer(Renderer[str]):
    """A renderer that words each item once, since an audit renders the same items many times."""

    lines: dict[tuple[str, int], str] = field(default_factory=dict)

    def line(self, item_id: str, caption_words: int = 0) -> str:
        key = (item_id, caption_words)
        if key not in self.lines:
            self.lines[key] = super().line(item_id, caption_words)
        return self.lines[key]


@dataclass(frozen=True, kw_only=True)
class PromptHits:
    """How one prompt names its target (`sure`, `phrase`), and the items whose titles its captions hold as phrases."""

    kinds: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()


class PromptCheck:
    """Searches prompts of one dataset."""

    def __init__(self, material: Material) -> None:
        self.material = material
        self.renderer = CachingRenderer(
            catalogue=material.interactions.catalogue,
            encode=str,
            captions=material.captions.captions,
            max_prompt_tokens=0,
        )
        self._names: dict[str, dict[str, Strength]] = {}
        self._known: dict[tuple[str, ...], PromptHits] = {}

    def splits(self) -> Iterator[Finding]:
        """The prompts of all windows, before candidates are drawn for them."""
        for split in SPLITS:
            lines = lines_of(self.material, split)
            if any(len(line.items) >= self.material.window for line in lines):
                examples, _ = questions(lines, split, self.material.window)
                yield from self.check(name_of(self.material, split), examples)

    def check(self, where: str, examples: Sequence[RankingExample]) -> Iterator[Finding]:
        """Findings on the prompts of `examples`: the target itself, its title by chance."""
        popularity, expected = Counter(example.target_id for example in examples), 0.0
        hits: dict[str, list[str]] = {"sure": [], "phrase": []}
        for number, example in enumerate(examples, 1):
            prompt = self._searched(example)
            for kind in prompt.kinds:
                hits[kind].append(f"prompt {number}, user {example.user_id}: {example.target_id}")
            expected += sum(popularity[item] for item in prompt.phrases) / len(examples)

        def finding(part: str, kind: str, verdict: AuditVerdict, meaning: str) -> Finding:
            total = len(examples)
            return judged(TARGET_IN_PROMPT, where + part, total, "prompts", hits[kind], verdict, meaning=meaning)

        yield finding("", "sure", "leak", ANSWER_NAMED)
        if hits["phrase"]:
            unlikely = events(len(hits["phrase"]), expected) < LEVEL
            often = f"The title as words of a caption in the history; {expected:.1f} such by chance."
            yield finding(", captions", "phrase", "leak" if unlikely else "warning", often)

    def outside(self, example: RankingExample) -> str:
        """The prompt without the lines of its candidates."""
        return self.renderer.text(replace(example, candidates=()))

    def _searched(self, example: RankingExample) -> PromptHits:
        """How the prompt names the target; kept for other lists of the same history and target."""
        key = (*example.history, example.target_id)
        if key not in self._known:
            self._known[key] = self._search(example)
        return self._known[key]

    def _search(self, example: RankingExample) -> PromptHits:
        target, names = example.target_id, self._named(example.history)
        if target in example.history:
            return PromptHits()
        kinds = []
        if f"[ITEM_{target}]" in self.outside(example):
            kinds.append("sure")
        elif target in names and self._means(example):
            kinds.append("sure" if names[target] == Strength.LETTERS else "phrase")
        phrases = tuple(item for item, how in names.items() if how < Strength.LETTERS and item not in example.history)
        return PromptHits(kinds=tuple(kinds), phrases=phrases)

    def _means(self, example: RankingExample) -> bool:
        """Whether a caption of the history names the target, in words that no title of the history explains.

        The picture of `Amber Road 2` may well be said to show Amber Road.
        """
        naming = self.material.naming
        titles = [{word for spelling in naming.spellings(item) for word in spelling} for item in example.history]
        if any(title.issuperset(spelling) for spelling in naming.spellings(example.target_id) for title in titles):
            return False
        return any(naming.names(self._caption(item), example.target_id, example.history) for item in example.history)

    def _named(self, history: Sequence[str]) -> dict[str, Strength]:
        """The items that captions of the history name, as far as the prompt shows them."""
        named: dict[str, Strength] = {}
        for item in history:
            if item not in self._names:
                self._names[item] = self.material.titles.named(self._caption(item))
            named |= self._names[item]
        return named

    def _caption(self, item: str) -> str:
        return self.renderer.line(item, CAPTION_WORDS[0]).removeprefix(self.renderer.answer(item))

    def _title(self, item: str) -> str:
        return self.material.interactions.catalogue.title(item)


class Text(NamedTuple):
    """Ids that words about a user's history hold, of which `target_id` comes next."""

    where: str
    target_id: str
    ids: frozenset[str]


def check_bare_ids(material: Material) -> Iterator[Finding]:
    """Bare ids in the kept traces of each file, and in the captions of each split's windows."""
    catalogue, captions = material.interactions.catalogue, material.captions.captions
    bare = Words(material)
    titled = {item: ids for item in catalogue if (ids := bare.ids(catalogue.title(item)))}
    captioned = {item: ids for item, text in captions.items() if (ids := bare.ids(text))}
    nothing = frozenset[str]()
    for file in material.traces:
        texts = [
            Text(
                f"record {row.number}, user {row.user_id}",
                row.target_id,
                bare.ids(row.reasoning).difference(row.history, *(titled.get(item, nothing) for item in row.history)),
            )
            for row in file.rows
            if row.kept
        ]
        yield _finding(file.path.name, "kept traces", texts)
    for split in SPLITS if captions else ():
        windows = [line.items[-material.window :] for line in lines_of(material, split)]
        texts = [
            Text(
                f"line of target {target}",
                target,
                nothing.union(*(captioned.get(item, nothing) for item in history)).difference(history),
            )
            for *history, target in windows
            if len(history) == material.window - 1
        ]
        yield _finding(f"{name_of(material, split)}, captions of the history", "windows", texts)


class Words:
    """The words that are ids of one dataset's items. An id without a digit may be any word and is none."""

    def __init__(self, material: Material) -> None:
        lines = (line for split in SPLITS for line in material.interactions.lines(split))
        items = frozenset(material.interactions.catalogue).union(*(line.items for line in lines))
        self._ids = frozenset(item for item in items if any(map(str.isdigit, item)))

    def ids(self, text: str) -> frozenset[str]:
        """The ids among the words of a text."""
        return self._ids.intersection(_BARE_WORD.findall(text))


def _finding(where: str, noun: str, texts: Sequence[Text]) -> Finding:
    """A leak where words are ids and nothing else, or where numbers are the target's id more often than chance."""
    asked = Counter(text.target_id for text in texts)
    hits = [text for text in texts if text.target_id in text.ids]
    expected = sum(asked[item] for text in texts for item in text.ids) / max(1, len(texts))
    sure = [text for text in hits if any(map(str.isalpha, text.target_id))]
    probability = events(len(hits), expected)
    if hits and not sure and probability >= SUSPECT:
        result = f"{len(hits):,} numbers, {expected:.1f} by chance"
        return Finding(check=BARE_IDS, where=where, total=len(texts), noun=noun, result=result, verdict="ok")
    return judged(
        BARE_IDS,
        where,
        len(texts),
        noun,
        [f"{text.where}: {text.target_id}" for text in hits],
        "leak" if sure or probability < LEVEL else "warning",
        meaning="The id of the right answer stands there as a word, more often than numbers explain: write the text "
        "anew without it.",
    )
