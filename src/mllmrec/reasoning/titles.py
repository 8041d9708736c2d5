"""Which items a text names by title, over a whole catalogue at once, so that a writer can keep to the history's own.

Stricter than asking `Naming` of each item: any occurrence of a title's words counts, even where it may be an ordinary
word. What is a title of the history is no other title.
"""

from __future__ import annotations

from collections.abc import Sequence

from mllmrec.data.naming import Naming
from mllmrec.data.sequences import Catalogue
from mllmrec.data.spellings import SpellingIndex
from mllmrec.data.written_words import WrittenWords


class Titles:
    """The titles of a catalogue, to be looked for in texts."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._naming = Naming(catalogue)
        self._spellings = SpellingIndex(self._naming, catalogue.ids)

    def named(self, text: str, history: Sequence[str] = ()) -> set[str]:
        """The ids of the items outside `history` whose title occurs in `text`.

        >>> from mllmrec.records import Item
        >>> shelf = {"1": "Paper Moon, The (1996)", "2": "Paper", "3": "Lake"}
        >>> titles = Titles(Catalogue([Item(item_id=key, title=title) for key, title in shelf.items()]))
        >>> sorted(titles.named("The Paper Moon at the lake")), titles.named("The Paper Moon at the lake", ["1"])
        (['1', '2', '3'], {'3'})
        """
        readings = [reading.words for reading in WrittenWords(text).readings]
        if set[str]().union(*map(self._found, readings)).issubset(history):
            return set()
        own = {spelling for item in history for spelling in self._naming.spellings(item)}
        for spelling in sorted(own, key=len, reverse=True):
            readings = [without(written, spelling) for written in readings]
        return set[str]().union(*map(self._found, readings)).difference(history)

    def _found(self, written: tuple[str, ...]) -> set[str]:
        places = (self._spellings.at(written, start) for start in range(len(written)))
        return {item for place in places for _, items in place for item in items}


def without(written: tuple[str, ...], part: tuple[str, ...]) -> tuple[str, ...]:
    """`written` with each occurrence of `part` blanked out.

    >>> without(("a", "b", "c", "b"), ("b",))
    ('a', '', 'c', '')
    """
    kept = list(written)
    for start in range(len(written) - len(part) + 1):
        if tuple(kept[start : start + len(part)]) == part:
            kept[start : start + len(part)] = [""] * len(part)
    return tuple(kept)
