"""The ways a title may be written, and the words by which titles and texts are compared.

A title may be written without its year, with its article moved or left out, by a part, or by another name in brackets.

In the words of a text, spellings that mean the same are one word: case, accents and apostrophes don't count, `'s` is
left out, & is "and", III and "three" are 3. Parts joined by hyphens, dots, slashes or a change of case (Spider-Man,
I.Q., GoodFellas, 3D) are read twice, in parts and as one word.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

_YEAR = re.compile(r"\(\s*\d{4}\s*\)")
_BRACKETS = re.compile(r"\(([^()]*)\)")
_ALSO_KNOWN = re.compile(r"(?:,\s*)?\b(?:a\.\s?k\.\s?a\.|aka\b|also known as\b):?\s*", re.IGNORECASE)
_PARTS = re.compile(r"\s*:\s*|\s+[-–—]\s+")
_OR = re.compile(r"\s+or\Z")
PART = "part"
Spelling = tuple[str, ...]
ARTICLES = frozenset({"the", "a", "an", "le", "la", "les", "l", "il", "lo", "der", "die", "das", "el", "los", "las"})
# A letter of a script without spaces is a word of its own.
_WIDE = r"\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_WIDE}]|[^\W_{_WIDE}]+(?:'[^\W_{_WIDE}]+)*")
_LETTER = rf"[^\W\d_{_WIDE}]"
_PART = re.compile(rf"[{_WIDE}]|&|\d+(?:'s\b)?|{_LETTER}(?:(?:(?<![a-z])|(?![A-Z])){_LETTER})*(?:'{_LETTER}+)*")
_JOINTS = frozenset({"", "-", "\u2010", "\u2013", "\u2014", "/", ".", "*", "'"})
_OTHER_LETTERS = str.maketrans(
    {"’": "'", "‘": "'", "ʼ": "'", "´": "'", "`": "'", "′": "'", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d"}
    | {"æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "½": " 1/2", "¼": " 1/4", "¾": " 3/4"}
)
_NUMERALS = "i ii iii iv v vi vii viii ix x xi xii xiii xiv xv xvi xvii xviii xix xx"
_NUMBERS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_MEANT = {word: str(value) for names in (_NUMERALS, _NUMBERS) for value, word in enumerate(names.split(), 1)}
_MEANT |= {"&": "and", "n": "and"}
_MEANINGS = frozenset(_MEANT.values())
_NO_LETTER = re.compile(r"[\W_]+")


class TitleSpellings(NamedTuple):
    """`names` stand for the whole title; `subtitles` alone may be ordinary words and have to be written as a name."""

    names: tuple[Spelling, ...]
    subtitles: tuple[Spelling, ...]


def title_spellings(title: str) -> TitleSpellings:
    """The spellings of a title, the title as it is read first.

    >>> names, subtitles = title_spellings("Lantern: Amber Road, The (1995)")
    >>> [" ".join(spelling) for spelling in names]
    ['the lantern amber road', 'lantern amber road the', 'lantern amber road', 'the lantern', 'lantern the', 'lantern']
    >>> subtitles
    (('amber', 'road'),)
    """
    names, subtitles = list[Spelling](), list[Spelling]()
    for name in _names(_YEAR.sub(" ", html.unescape(title))):
        article, rest = _article_and_rest(name)
        parts = [part for part in _PARTS.split(rest) if words(part)]
        front = [_OR.sub("", parts[0])] if ":" in rest and parts else []
        joined = [f"{parts[0]} {part}" for part in parts[2:]]
        for form in (rest, *front, *joined):
            names += _with_article(article, form)
        for part in parts[1:]:
            subtitles += _with_article(*_article_and_rest(part))
    known = tuple(dict.fromkeys(names))
    return TitleSpellings(known, tuple(part for part in dict.fromkeys(subtitles) if part not in known))


class TitleMatch(NamedTuple):
    """An occurrence of words in a text: the first character and the one after the last, of all and of each word."""

    start: int
    stop: int
    words: tuple[tuple[int, int], ...]

    def covers(self, other: TitleMatch) -> bool:
        """Whether another occurrence lies within this one."""
        return self.start <= other.start and other.stop <= self.stop


class Reading:
    """One way to cut a text into words, with the span of each."""

    def __init__(self, words: list[str], spans: list[tuple[int, int]]) -> None:
        self.words, self._spans = tuple(words), spans
        self._at = defaultdict[str, list[int]](list)
        for at, word in enumerate(words):
            self._at[word].append(at)

    def matches(self, spelling: Spelling) -> Iterator[TitleMatch]:
        """The occurrences of a spelling: its words one after the other."""
        length = len(spelling)
        for at in self._at.get(spelling[0], ()):
            if self.words[at : at + length] == spelling:
                spans = tuple(self._spans[at : at + length])
                yield TitleMatch(spans[0][0], spans[-1][1], spans)


class WrittenWords:
    """The words of a text in order, with their spans in `text`, the text in plain letters."""

    def __init__(self, text: str) -> None:
        self.text = plain_letters(text)

    @cached_property
    def _parts(self) -> list[re.Match[str]]:
        return list(_PART.finditer(self.text))

    @cached_property
    def _letters_alone(self) -> str:
        return _NO_LETTER.sub("", self.text.casefold())

    @cached_property
    def readings(self) -> tuple[Reading, ...]:
        """The text in parts, and with joined parts as one word where there are any."""
        spans = [part.span() for part in self._parts]
        parts = [part[0] for part in self._parts]
        compared = [_compared(part) for part in parts]
        in_parts = Reading(compared, spans)
        groups = self._joined()
        if len(groups) == len(parts):
            return (in_parts,)
        words = [
            compared[group[0]] if len(group) == 1 else _compared("".join(_letters(parts[at]) for at in group))
            for group in groups
        ]
        return in_parts, Reading(words, [(spans[group[0]][0], spans[group[-1]][1]) for group in groups])

    def matches(self, spelling: Spelling) -> list[TitleMatch]:
        """The occurrences of a spelling in any reading; most texts are skipped for lack of one of its words."""
        if any(word not in self._letters_alone for word in spelling if word not in _MEANINGS):
            return []
        return list(dict.fromkeys(match for reading in self.readings for match in reading.matches(spelling)))

    def spellings(self) -> Iterator[Spelling]:
        """The words of each reading; also with `'s` as a part of the word, since some leave the apostrophe out.

        >>> list(WrittenWords("Schindler's List").spellings())
        [('schindler', 'list'), ('schindlers', 'list')]
        >>> list(WrittenWords("Rocky III & I.Q.").spellings())
        [('rocky', '3', 'and', '1', 'q'), ('rocky', '3', 'and', 'iq')]
        """
        yield from (reading.words for reading in self.readings)
        if "'s" in self.text.casefold():
            yield from (reading.words for reading in WrittenWords(re.sub(r"(?i)'(?=s\b)", "", self.text)).readings)

    def _joined(self) -> list[list[int]]:
        """The numbers of the parts, those together that are joined."""
        groups = [[0]] if self._parts else []
        for at, (one, other) in enumerate(pairwise(self._parts), 1):
            gap = self.text[one.end() : other.start()]
            initials = gap == ". " and len(one[0]) == 1 == len(other[0])
            thousands = gap == "," and one[0].isdigit() and other[0].isdigit()
            wordless = "&" in (one[0], other[0]) or one[0][0] > "\u303f" or other[0][0] > "\u303f"
            if (gap in _JOINTS or initials or thousands) and not wordless:
                groups[-1].append(at)
            else:
                groups.append([at])
        return groups


def words(text: str) -> list[str]:
    """The words of a text without case, accents and apostrophes, as they stand otherwise.

    >>> words("L'Été de Schindler's (1993)")
    ['lete', 'de', 'schindlers', '1993']
    """
    return [word.replace("'", "") for word in _WORD.findall(plain_letters(text).casefold())]


def plain_letters(text: str) -> str:
    """A text without accents and HTML entities, its apostrophes of one kind."""
    if "&" in text and ";" in text:
        text = html.unescape(text)
    if text.isascii():
        return text.replace("`", "'") if "`" in text else text
    text = unicodedata.normalize("NFKD", text.translate(_OTHER_LETTERS))
    return "".join(char for char in text if not unicodedata.combining(char))


def _names(title: str) -> Iterator[str]:
    """The title without what stands in brackets, and the other names in brackets."""
    yield _BRACKETS.sub(" ", title)
    for inner in _BRACKETS.findall(title):
        yield from (name for name in _ALSO_KNOWN.split(inner) if words(name))


def _article_and_rest(name: str) -> tuple[str, str]:
    """`Matrix, The` and `The Matrix` as ("the", "Matrix"); the article is empty where there is none."""
    front, comma, last = name.rpartition(",")
    if comma and words(front) and len(words(last)) == 1 and words(last)[0] in ARTICLES:
        return words(last)[0], front.strip()
    first, _, rest = name.strip().partition(" ")
    if words(rest) and words(first) in [[article] for article in ARTICLES]:
        return words(first)[0], rest.strip()
    return "", name.strip()


def _with_article(article: str, name: str) -> Iterator[Spelling]:
    """The article in front, behind and left out."""
    forms = [name, name.replace("&", " ")] if "&" in name else [name]
    spellings = list(dict.fromkeys(_with_part_left_out(s for form in forms for s in WrittenWords(form).spellings())))
    lead = [(article,)] if article else []
    yield from (first + spelling for first in lead for spelling in spellings)
    yield from (spelling + last for last in lead for spelling in spellings)
    yield from spellings


def _with_part_left_out(spellings: Iterable[Spelling]) -> Iterator[Spelling]:
    """`Rocky Part 2` also as `Rocky 2`."""
    for spelling in spellings:
        if not spelling:
            continue
        yield spelling
        at = spelling.index(PART) if PART in spelling else 0
        if at and at + 1 < len(spelling) and spelling[at + 1].isdigit():
            yield spelling[:at] + spelling[at + 1 :]


def _letters(part: str) -> str:
    """A part without its apostrophes, and without a `'s`."""
    if "'" not in part:
        return part
    return (part[:-2] if part[-2:] in {"'s", "'S"} else part).replace("'", "")


def _compared(part: str) -> str:
    word = _letters(part).casefold()
    return _MEANT.get(word, word)
