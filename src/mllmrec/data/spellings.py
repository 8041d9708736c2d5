"""Which items may be written with which words: the way back of `naming.py`, which is asked about one item at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from mllmrec.data.naming import Naming
from mllmrec.data.written_words import Spelling


class SpellingIndex:
    """The spellings of items, their `subtitles` too if wanted, to be looked for in texts all at once."""

    def __init__(self, naming: Naming, items: Iterable[str], *, subtitles: bool = False) -> None:
        self._items = defaultdict[Spelling, list[str]](list)
        self._lengths = defaultdict[str, set[int]](set)
        for item_id in items:
            for spelling in naming.all_spellings(item_id) if subtitles else naming.spellings(item_id):
                self._items[spelling].append(item_id)
                self._lengths[spelling[0]].add(len(spelling))

    def at(self, written: tuple[str, ...], start: int) -> Iterator[tuple[int, list[str]]]:
        """The items that are written from the word `start` on, the longest spelling first, with its number of words.

        >>> from mllmrec.data.sequences import Catalogue
        >>> from mllmrec.records import Item
        >>> shelf = Catalogue([Item(item_id="1", title="Paper"), Item(item_id="2", title="Paper Moon (1996)")])
        >>> list(SpellingIndex(Naming(shelf), shelf).at(("a", "paper", "moon"), 1))
        [(2, ['2']), (1, ['1'])]
        """
        for length in sorted(self._lengths.get(written[start], ()), reverse=True):
            if items := self._items.get(written[start : start + length]):
                yield length, items
