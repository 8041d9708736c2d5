"""Whether a text names an item, by id or by title; and, of many items, which ones it may name.

A title is recognised in every way it may be written: the spellings and words of `title_spellings.py`, so that
possessives, subtitles, hyphens, &, numerals, case and accents make no difference. Ordinary words count only where they
are written like a name (`name_contexts.py`): a one-word title that is an ordinary word (it occurs elsewhere in the
catalogue, or is very short or a number), a title of nothing but function words, and a subtitle alone. Another one-word
title doesn't count in small letters behind "a", "this" or "her". A title of the history is no other title: where "Toy
Story 2" was met, it doesn't name "Toy Story", while "Toy Story" doesn't hide that "Toy Story 2" is named.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from mllmrec.data.name_contexts import FUNCTION_WORDS, has_year, is_name, is_rare_name, is_written_as_title
from mllmrec.data.sequences import Catalogue
from mllmrec.data.title_spellings import ARTICLES, Spelling, TitleMatch, TitleSpellings, WrittenWords, title_spellings

SHORT_WORD = 4
MIXED_ID, LONGEST_ANNOUNCEMENT = 5, 32
_MARKS = r"(?:_|[^\w.,;!?\n]){0,4}"
"""What may stand between "item" and an id: a few marks within the sentence, "id", "no." or "number"."""
_KINDS = "item|id|movie|film|title|candidate|option|product|book|video"
_ID_COMES = re.compile(rf"(?:(?<![^\W_])(?:{_KINDS})|#|№){_MARKS}(?:(?:id|no\.?|nr\.?|number){_MARKS})?\Z")
_ID_ENDS, _ID_STARTS = re.compile(r"(?![\w.-]*[^\W_])"), re.compile(r"(?<![^\W_])(?<![.-])")
_BRACKETED_ID = re.compile(r"\[item_([a-z0-9_-][a-z0-9._-]*)\]")
# "rated the movie 9 out of 10", "saw the film 3 times": numbers that count something.
_COUNTED = re.compile(
    r"\s*(?:out of|of\b|/\s*\d|times|years?|hours?|minutes?|days?|stars?|points?|percent|%|[-\s]year)", re.IGNORECASE
)
_KIND = re.compile(rf"(?<![^\W_])(?:movie|film|title|candidate|option|product|book|video){_MARKS}\Z")


class Naming:
    """Looks for the items of one catalogue in texts; words of `captions` count as ordinary."""

    def __init__(self, catalogue: Catalogue, captions: Mapping[str, str] | None = None) -> None:
        self._catalogue = catalogue
        self._spellings: dict[str, TitleSpellings] = {}
        self._titled = Counter(word for item in catalogue for word in _distinct(catalogue.title(item)))
        self._described = {word for caption in (captions or {}).values() for word in _distinct(caption)}

    def names(self, text: str, item_id: str, history: Sequence[str] = ()) -> Literal["id", "title"] | None:
        """How `text` names the item, if it does; occurrences within titles of `history` don't count.

        >>> from mllmrec.records import Item
        >>> titles = {"1": "Matrix, The (1999)", "2": "Big (1988)", "3": "Big Lebowski, The (1998)"}
        >>> naming = Naming(Catalogue([Item(item_id=key, title=title) for key, title in titles.items()]))
        >>> naming.names("The Matrix's world comes next.", "1"), naming.names("Perhaps ITEM_1?", "1")
        ('title', 'id')
        >>> naming.names("- Big laughs, a **big** heart", "2"), naming.names("They liked Big.", "2")
        (None, 'title')
        >>> naming.names("They liked The Big Lebowski.", "2", ["3"])
        """
        if mentions_id(text, item_id):
            return "id"
        written = WrittenWords(text)
        matches = list(self._matches(item_id, written))
        if not matches:
            return None
        own = [
            match for item in history for spelling in self.all_spellings(item) for match in written.matches(spelling)
        ]
        return "title" if any(not any(other.covers(match) for other in own) for match in matches) else None

    def spellings(self, item_id: str) -> tuple[Spelling, ...]:
        """The ways an item's whole title may be written, the title as it is read first."""
        return self._spellings_of(item_id).names

    def all_spellings(self, item_id: str) -> tuple[Spelling, ...]:
        """The same, and its subtitles."""
        names, subtitles = self._spellings_of(item_id)
        return names + subtitles

    def _spellings_of(self, item_id: str) -> TitleSpellings:
        if item_id not in self._spellings:
            self._spellings[item_id] = title_spellings(self._catalogue.title(item_id))
        return self._spellings[item_id]

    def _matches(self, item_id: str, written: WrittenWords) -> Iterator[TitleMatch]:
        """The occurrences of the title, or of its subtitle, that mean the item."""
        names, subtitles = self._spellings_of(item_id)
        for spelling in names:
            for match in written.matches(spelling):
                if self._means(spelling, match, written.text) or self._opens(names[0], spelling, match, written.text):
                    yield match
        for spelling in subtitles:
            yield from (match for match in written.matches(spelling) if is_written_as_title(written.text, match))

    def _means(self, spelling: Spelling, match: TitleMatch, text: str) -> bool:
        distinctive = [at for at, word in enumerate(spelling) if word not in ARTICLES]
        if not distinctive:
            return has_year(text, match)
        word = match.words[distinctive[0]]
        if len(distinctive) > 1 or len(spelling) > 2:  # L.A. is two articles by its letters
            ordinary = all(spelling[at] in FUNCTION_WORDS or spelling[at].isdigit() for at in distinctive)
            return not ordinary or is_name(text, match, word)
        if self.is_ordinary(spelling[distinctive[0]]):
            return is_name(text, match, word)
        return is_rare_name(text, match, word)

    def _opens(self, title: Spelling, spelling: Spelling, match: TitleMatch, text: str) -> bool:
        """Whether a text opens with a title that has an article, behind another article: `a lantern in the dark`."""
        before = text[: match.start].split()
        return (
            title[0] in ARTICLES
            and (not before or (len(before) == 1 and before[0] in ARTICLES))
            and len(spelling) == 1
            and not self.is_ordinary(spelling[0])
        )

    def is_ordinary(self, word: str) -> bool:
        """Whether a word alone, as `title_spellings.py` compares it, may mean anything."""
        return len(word) < SHORT_WORD or word.isdigit() or self._titled[word] > 1 or word in self._described


def mentions_id(text: str, item_id: str) -> bool:
    """`[ITEM_12]`, `item 12`, `movie 12`, `[12]`, `id: 12`, `#12`; an id of letters and digits also by itself.

    >>> [mentions_id(text, "12") for text in ("Candidate 12", "as in [12]", "12 of them", "the film 12 times")]
    [True, True, False, False]
    """
    text, folded = text.casefold(), item_id.casefold()
    if folded not in text:
        return False
    if folded in _BRACKETED_ID.findall(text) or f"[{folded}]" in text:
        return True
    text = _BRACKETED_ID.sub("[]", text)
    alone = len(folded) >= MIXED_ID and not folded.isdigit() and not folded.isalpha()
    return any(
        _ID_ENDS.match(text, at + len(folded))
        and (_is_announced(text, at, at + len(folded)) or (alone and _ID_STARTS.match(text, at)))
        for at in _occurrences(text, folded)
    )


class SpellingIndex:
    """The spellings of items, with `subtitles` if wanted, to be looked for in texts all at once."""

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
        >>> catalogue = Catalogue([Item(item_id="1", title="Paper"), Item(item_id="2", title="Paper Moon (1996)")])
        >>> list(SpellingIndex(Naming(catalogue), catalogue).at(("a", "paper", "moon"), 1))
        [(2, ['2']), (1, ['1'])]
        """
        for length in sorted(self._lengths.get(written[start], ()), reverse=True):
            if items := self._items.get(written[start : start + length]):
                yield length, items


def _distinct(text: str) -> set[str]:
    return {word for reading in WrittenWords(text).readings for word in reading.words}


def _is_announced(text: str, start: int, stop: int) -> bool:
    before = text[max(0, start - LONGEST_ANNOUNCEMENT) : start]
    if not _ID_COMES.search(before):
        return False
    return not (_KIND.search(before) and _COUNTED.match(text, stop))


def _occurrences(text: str, part: str) -> Iterator[int]:
    at = text.find(part)
    while at >= 0:
        yield at
        at = text.find(part, at + 1)
