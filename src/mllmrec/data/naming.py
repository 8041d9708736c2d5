"""Whether a text names an item, by id or by title.

A title is looked for as it may be written: without its year, with its article in front or left out, by the name before
a colon, by another language's name in brackets, whatever the case, accents and punctuation. A one-word title that is an
ordinary word (it occurs elsewhere in the catalogue, or is very short or a number) counts only where it is written like
a name: in quotes, with a capital inside a sentence, with a year in brackets behind it, or as all that a clause says.
What is a title of the history is no other title: where "Toy Story 2" was met, it doesn't name "Toy Story", while "Toy
Story" doesn't hide that "Toy Story 2" is named.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from mllmrec.data.sequences import Catalogue

ARTICLES = frozenset({"the", "a", "an", "le", "la", "les", "l", "il", "lo", "der", "die", "das", "el", "los", "las"})
SHORT_WORD, MIXED_ID, LONGEST_ANNOUNCEMENT = 4, 5, 24
Spelling = tuple[str, ...]

# A letter of a script without spaces is a word of its own.
_WIDE = r"\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_WIDE}]|[^\W_{_WIDE}]+(?:['’][^\W_{_WIDE}]+)*")
# What may stand between "item" and an id: a few marks within the sentence, "no." or "number".
_MARKS = r"(?:_|[^\w.,;!?\n]){0,4}"
_ID_COMES = re.compile(rf"(?:(?<![^\W_])(?:item|id)|#){_MARKS}(?:(?:no\.?|number){_MARKS})?\Z")
_ID_ENDS, _ID_STARTS = re.compile(r"(?![\w.-]*[^\W_])"), re.compile(r"(?<![^\W_])(?<![.-])")
_BRACKETED_ID = re.compile(r"\[item_([a-z0-9_-][a-z0-9._-]*)\]")
_YEAR = re.compile(r"\(\s*\d{4}\s*\)")
_BRACKETS = re.compile(r"\(([^()]*)\)")
_OPENING, _CLOSING, _STOPS = "\"'“‘«[(*_", "\"'”’»])*_,.;:!?", ".!?:;•\n"
_BRACKETED_YEAR = re.compile(r"\s*[(\[]\s*\d{4}\b")
_CLAUSE_END = re.compile(r"[ \t]*(?:[.!?:;•\n]|\Z)")


class Naming:
    """Looks for the items of one catalogue in texts; `captions` only tell which words are ordinary."""

    def __init__(self, catalogue: Catalogue, captions: Mapping[str, str] | None = None) -> None:
        self._catalogue = catalogue
        self._spellings: dict[str, tuple[Spelling, ...]] = {}
        self._titled = Counter(word for item in catalogue for word in set(words(catalogue.title(item))))
        self._described = {word for caption in (captions or {}).values() for word in words(caption)}

    def names(self, text: str, item_id: str, history: Sequence[str] = ()) -> Literal["id", "title"] | None:
        """How `text` names the item, if it does; titles of `history` are passed over.

        >>> from mllmrec.records import Item
        >>> titles = {"1": "Matrix, The (1999)", "2": "Big (1988)", "3": "Big Lebowski, The (1998)"}
        >>> naming = Naming(Catalogue([Item(item_id=key, title=title) for key, title in titles.items()]))
        >>> naming.names("Next comes THE MATRIX.", "1"), naming.names("Perhaps ITEM_1?", "1")
        ('title', 'id')
        >>> naming.names("Big laughs, a big heart", "2"), naming.names("They liked Big.", "2")
        (None, 'title')
        >>> naming.names("They liked The Big Lebowski.", "2", ["3"])
        """
        if _mentions_id(text, item_id):
            return "id"
        written = WrittenWords(text)
        found = [place for spelling in self.spellings(item_id) for place in self._places(spelling, written)]
        if not found:
            return None
        own = [place for item in history for spelling in self.spellings(item) for place in written.places(spelling)]
        return "title" if any(not any(_covers(other, place) for other in own) for place in found) else None

    def spellings(self, item_id: str) -> tuple[Spelling, ...]:
        """The ways an item's title may be written."""
        if item_id not in self._spellings:
            self._spellings[item_id] = tuple(dict.fromkeys(_spellings(self._catalogue.title(item_id))))
        return self._spellings[item_id]

    def _places(self, spelling: Spelling, written: WrittenWords) -> list[range]:
        """Where a spelling stands and means the item."""
        places = written.places(spelling)
        telling = [at for at, word in enumerate(spelling) if word not in ARTICLES] if places else []
        if not telling:
            return [place for place in places if written.has_year(place)]
        if len(telling) > 1 or not self._ordinary(spelling[telling[0]]):
            return places
        return [place for place in places if written.is_name(place[telling[0]]) or written.stands_alone(place)]

    def _ordinary(self, word: str) -> bool:
        return len(word) < SHORT_WORD or word.isdigit() or self._titled[word] > 1 or word in self._described


class WrittenWords:
    """The words of a text in order, where each occurs, and which are written like a name."""

    def __init__(self, text: str) -> None:
        self._text = _without_accents(text)
        self._matches = list(_WORD.finditer(self._text))
        self.words = [_compared(match[0]) for match in self._matches]
        self._at = defaultdict[str, list[int]](list)
        for at, word in enumerate(self.words):
            self._at[word].append(at)

    def places(self, spelling: Spelling) -> list[range]:
        """Where the words of a spelling stand one after the other."""
        starts, length = self._at.get(spelling[0], ()), len(spelling)
        return [range(at, at + length) for at in starts if tuple(self.words[at : at + length]) == spelling]

    def is_name(self, at: int) -> bool:
        """Whether a word stands in quotes or the like, or has a capital without beginning a sentence."""
        start, end = self._matches[at].span()
        before, after = self._text[max(0, start - 4) : start], self._text[end : end + 1]
        if before and after and before[-1] in _OPENING and after in _CLOSING:
            return not _BRACKETED_YEAR.match(self._text, start - 1)
        before = before.rstrip(" \t")
        return self._text[start].isupper() and bool(before) and before[-1] not in _STOPS

    def stands_alone(self, place: range) -> bool:
        """Whether words have a year in brackets behind them, or are all that a clause says."""
        return self.has_year(place) or self._fills_clause(place)

    def has_year(self, place: range) -> bool:
        """Whether a year in brackets follows."""
        return bool(_BRACKETED_YEAR.match(self._text, self._matches[place[-1]].end()))

    def _fills_clause(self, place: range) -> bool:
        """Whether words stand between stops. `Mood: ...` at the start of a line is a label, `2. ...` a number."""
        start, end = self._matches[place[0]].start(), self._matches[place[-1]].end()
        before, behind = self._text[:start].rstrip(" \t")[-1:], _CLAUSE_END.match(self._text, end)
        if behind is None or (before and before not in _STOPS):
            return False
        return before == ":" or not (behind[0].endswith(":") or self._text[start:end].isdigit())


def _covers(place: range, other: range) -> bool:
    return place.start <= other.start and other.stop <= place.stop


def words(text: str) -> list[str]:
    """The words of a text without case, accents and apostrophes.

    >>> words("L'Été de Schindler's (1993)")
    ['lete', 'de', 'schindlers', '1993']
    """
    return [_compared(word) for word in _WORD.findall(_without_accents(text).casefold())]


def _without_accents(text: str) -> str:
    if text.isascii():
        return text
    return "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))


def _compared(word: str) -> str:
    return word.casefold() if word.isalnum() else word.casefold().replace("'", "").replace("’", "")


def _spellings(title: str) -> Iterator[Spelling]:
    title = _YEAR.sub(" ", title)
    for name in (_BRACKETS.sub(" ", title), *_BRACKETS.findall(title)):
        for part in dict.fromkeys((name, name.partition(":")[0])):
            yield from _with_article(part)


def _with_article(name: str) -> list[Spelling]:
    """`Matrix, The` as "the matrix", as it stands and as "matrix"."""
    found = tuple(words(name))
    front, comma, last = name.rpartition(",")
    article, rest = tuple(words(last)), tuple(words(front))
    if comma and rest and len(article) == 1 and article[0] in ARTICLES:
        return [article + rest, rest + article, rest]
    return [found, found[1:]] if len(found) > 1 and found[0] in ARTICLES else [found] if found else []


def _mentions_id(text: str, item_id: str) -> bool:
    """`[ITEM_12]`, `item 12`, `id: 12`, `#12`, `item no. 12`; an id of letters and digits also by itself."""
    text, folded = text.casefold(), item_id.casefold()
    if folded not in text:
        return False
    if folded in _BRACKETED_ID.findall(text):
        return True
    text = _BRACKETED_ID.sub("[]", text)
    alone = len(folded) >= MIXED_ID and not folded.isdigit() and not folded.isalpha()
    return any(
        _ID_ENDS.match(text, at + len(folded))
        and (_ID_COMES.search(text[max(0, at - LONGEST_ANNOUNCEMENT) : at]) or (alone and _ID_STARTS.match(text, at)))
        for at in _occurrences(text, folded)
    )


def _occurrences(text: str, part: str) -> Iterator[int]:
    at = text.find(part)
    while at >= 0:
        yield at
        at = text.find(part, at + 1)
