"""The ways a title may be written: without its year, with its article moved or left out, by a part, by another name."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mllmrec.data.written_words import ARTICLES, Spelling, WrittenWords, words

_YEAR = re.compile(r"\(\s*\d{4}\s*\)")
_BRACKETS = re.compile(r"\(([^()]*)\)")
_ALSO_KNOWN = re.compile(r"(?:,\s*)?\b(?:a\.\s?k\.\s?a\.|aka\b|also known as\b):?\s*", re.IGNORECASE)
_PARTS = re.compile(r"\s*:\s*|\s+[-–—]\s+")
_OR = re.compile(r"\s+or\Z")
PART = "part"


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
