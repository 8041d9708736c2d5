"""Which items a text names: the way back of `data/naming.py`, which is asked about one item at a time.

Where one title begins another (`Amber Lantern`, `Amber Lantern 2`) the longest counts.
"""

from __future__ import annotations

import re
from collections import defaultdict
from enum import IntEnum

from mllmrec.data.naming import Naming, WrittenWords
from mllmrec.data.sequences import Catalogue

SURE_WORDS = 4

_BRACKETS = re.compile(r"\s*\([^()]*\)")


class Strength(IntEnum):
    """How surely a title is meant: the words of one may be any words, its very letters are a name."""

    WORDS = 1
    LETTERS = 2


class TitleIndex:
    """The titles of a catalogue, to be looked for in texts all at once."""

    def __init__(self, catalogue: Catalogue, naming: Naming) -> None:
        self._catalogue = catalogue
        self._items = defaultdict[tuple[str, ...], list[str]](list)
        self._lengths = defaultdict[str, set[int]](set)
        for item_id, item in catalogue.items():
            for spelling in naming.spellings(item_id) if item.title else ():
                self._items[spelling].append(item_id)
                self._lengths[spelling[0]].add(len(spelling))

    def named(self, text: str) -> dict[str, Strength]:
        """The items whose title occurs in `text`, each with how surely it is meant.

        >>> from mllmrec.records import Item
        >>> catalogue = Catalogue([Item(item_id="1", title="Paper Moon, The (1996)")])
        >>> index = TitleIndex(catalogue, Naming(catalogue))
        >>> index.named("seen under a paper moon"), index.named("Paper Moon, again")
        ({'1': <Strength.WORDS: 1>}, {'1': <Strength.LETTERS: 2>})
        """
        words, found, start = tuple(WrittenWords(text).words), dict[str, Strength](), 0
        while start < len(words):
            length = self._longest(words, start)
            for item in self._items[words[start : start + length]] if length else ():
                found[item] = found.get(item) or self._strength(item, text)
            start += max(1, length)
        return found

    def _longest(self, words: tuple[str, ...], start: int) -> int:
        lengths = self._lengths.get(words[start], ())
        return max((length for length in lengths if words[start : start + length] in self._items), default=0)

    def _strength(self, item: str, text: str) -> Strength:
        """Letters, where the name stands in the text as the catalogue has it, a trailing article left out."""
        title = self._catalogue.title(item)
        name = _BRACKETS.sub("", title)
        front, comma, article = name.rpartition(", ")
        name = front if comma and " " not in article else name
        sure = len(WrittenWords(name).words) >= SURE_WORDS or (" " in name and name != name.casefold())
        return Strength.LETTERS if title in text or (sure and name in text) else Strength.WORDS
