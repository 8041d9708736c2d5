"""Which titles a text names, and how surely.

Titles are compared word by word: as they stand, without what is in brackets (a year, another language's title), and
with a trailing article in front or left out. Where one title begins another (`Amber Lantern`, `Amber Lantern 2`) the
longest counts. Scripts without spaces are compared sign by sign.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from enum import IntEnum

from mllmrec.data.sequences import Catalogue

SURE_WORDS = 4

_BRACKETS = re.compile(r"\s*\([^()]*\)")
_ARTICLE = re.compile(r"(.*\S),\s*(\w{1,3}'?)$")
_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")


class Strength(IntEnum):
    """How surely a title is meant: a single word may be any word, several may be a phrase, a spelling is a name."""

    WORD = 1
    PHRASE = 2
    SPELLING = 3


class TitleIndex:
    """The titles of a catalogue, to be looked for in texts."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._items = defaultdict[tuple[str, ...], dict[str, tuple[str, ...]]](dict)
        self._lengths = defaultdict[str, set[int]](set)
        for item in catalogue.values():
            for words in _spellings(item.title):
                folded = _folded(words)
                self._items[folded].setdefault(item.item_id, words)
                self._lengths[folded[0]].add(len(folded))

    def named(self, text: str) -> dict[str, Strength]:
        """The items whose title occurs in `text`, each with the strongest way in which it does.

        >>> from mllmrec.records import Item
        >>> index = TitleIndex(Catalogue([Item(item_id="1", title="Paper Moon, The (1996)")]))
        >>> index.named("seen under a paper moon"), index.named("The Paper Moon, again")
        ({'1': <Strength.PHRASE: 2>}, {'1': <Strength.SPELLING: 3>})
        """
        words = tuple(_WORDS.findall(text))
        folded, found, start = _folded(words), dict[str, Strength](), 0
        while start < len(folded):
            length = self._longest(folded, start)
            for item, title in self._items[folded[start : start + length]].items() if length else ():
                found[item] = max(found.get(item, Strength.WORD), _strength(words[start : start + length], title))
            start += max(1, length)
        return found

    def _longest(self, words: tuple[str, ...], start: int) -> int:
        lengths = self._lengths.get(words[start], ())
        return max((length for length in lengths if words[start : start + length] in self._items), default=0)


def _strength(words: tuple[str, ...], title: tuple[str, ...]) -> Strength:
    if len(words) == 1:
        return Strength.WORD
    cased = any(word != word.casefold() for word in title)
    return Strength.SPELLING if words == title and (cased or len(title) >= SURE_WORDS) else Strength.PHRASE


def _spellings(title: str) -> Iterator[tuple[str, ...]]:
    """The ways a title may be written, as words; none is empty."""
    for text in (title, _BRACKETS.sub("", title)):
        article = _ARTICLE.match(text)
        written = (text, f"{article[2]} {article[1]}", article[1]) if article else (text,)
        yield from filter(None, (tuple(_WORDS.findall(each)) for each in written))


def _folded(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word.casefold() for word in words)
