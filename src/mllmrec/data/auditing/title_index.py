"""Which items a text names, and how surely.

Where one title begins another (`Amber Lantern`, `Amber Lantern 2`) the longest counts.
"""

from __future__ import annotations

import re
from enum import IntEnum

from mllmrec.data.naming import Naming, SpellingIndex
from mllmrec.data.sequences import Catalogue
from mllmrec.data.title_spellings import WrittenWords, words

SURE_WORDS = 4

_BRACKETS = re.compile(r"\s*\([^()]*\)")


class Strength(IntEnum):
    """How surely a title is meant: the words of a title may be any words, its exact letters are a name."""

    WORDS = 1
    LETTERS = 2


class TitleIndex:
    """The titles of a catalogue, to be looked for in texts all at once."""

    def __init__(self, catalogue: Catalogue, naming: Naming) -> None:
        self._catalogue = catalogue
        titled = (item_id for item_id, item in catalogue.items() if item.title)
        self._spellings = SpellingIndex(naming, titled, subtitles=True)

    def named(self, text: str) -> dict[str, Strength]:
        """The items whose title occurs in `text`, each with how surely it is meant.

        >>> from mllmrec.records import Item
        >>> catalogue = Catalogue([Item(item_id="1", title="Paper Moon, The (1996)")])
        >>> index = TitleIndex(catalogue, Naming(catalogue))
        >>> index.named("seen under a paper moon"), index.named("Paper Moon, again")
        ({'1': <Strength.WORDS: 1>}, {'1': <Strength.LETTERS: 2>})
        """
        named = dict[str, Strength]()
        for reading in WrittenWords(text).readings:
            start = 0
            while start < len(reading.words):
                length, items = next(self._spellings.at(reading.words, start), (1, ()))
                for item in items:
                    named[item] = named.get(item) or self._strength(item, text)
                start += length
        return named

    def _strength(self, item: str, text: str) -> Strength:
        """LETTERS where the text has the name as the catalogue has it, a trailing article left out."""
        title = self._catalogue.title(item)
        name = _BRACKETS.sub("", title)
        front, comma, article = name.rpartition(", ")
        name = front if comma and " " not in article else name
        sure = len(words(name)) >= SURE_WORDS or (" " in name and name != name.casefold())
        return Strength.LETTERS if title in text or (sure and name in text) else Strength.WORDS
