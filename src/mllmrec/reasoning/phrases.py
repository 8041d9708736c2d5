"""The words and pairs of words of a title or a caption that can tell something.

A phrase is a word, or two of them with at most two small words between (`fine detail`, `man in a hat`), within one
clause. Stop words never stand at its ends; words that only mean something beside another (`fine`, `upper`) never stand
alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from mllmrec.data.prompts import plain

SHORTEST_WORD, WIDEST_GAP = 3, 2


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


LINKS = _set("a across an around at below beside by for from in into la le near of on over the to under with")
# Words that captions have of any image.
MORE_STOP_WORDS = _set(
    """image picture photo poster cover scene background foreground show shows showing depicts features featuring make
    makes vol volume"""
)
# Telling words that the library counts as stop words.
NO_STOP_WORDS = _set(
    """back bill bottom cry detail empty fire front full interest mill mine move serious side sincere system thick thin
    top"""
)
# Words that belong to the next one: `dark red` is neither dark nor red.
MODIFIERS = _set("dark light pale deep slate upper lower")
WEAK_WORDS = _set(
    """above back bottom bright brightest centre center contrast darkest detail edged edge fine full high large left
    light lit little low lower marks medium middle nearly evenly right side small soft strong text text-like toned top
    touched upper"""
)

_CLAUSES = re.compile(r"[.,;:!?()\[\]/|\"“”—–]+|\s-+\s")
_WORDS = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def phrases(text: str) -> Iterator[str]:
    """Words and pairs in lower case, in order, repeated as they are.

    >>> list(phrases("A man in a red hat, fine detail"))
    ['man', 'red', 'man in a red', 'hat', 'red hat', 'fine detail']
    """
    for clause in _CLAUSES.split(plain(text)):
        words, before = _joined(_WORDS.findall(clause.casefold())), -1
        for at, word in enumerate(words):
            if word in LINKS:
                continue
            if not _tells(word):
                before = -1
                continue
            if word not in WEAK_WORDS:
                yield word
            if before >= 0 and at - before <= WIDEST_GAP + 1:
                yield " ".join(words[before : at + 1])
            before = at


def _joined(words: list[str]) -> list[str]:
    """`words` with each modifier joined to the word that it belongs to."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in MODIFIERS and _tells(word):
            joined[-1] += f" {word}"
        else:
            joined.append(word)
    return joined


def _tells(word: str) -> bool:
    return len(word) >= SHORTEST_WORD and word not in LINKS and word not in stop_words()


@cache
def stop_words() -> frozenset[str]:
    """Words too common to tell anything; loaded when the first phrase is read."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return MORE_STOP_WORDS.union(ENGLISH_STOP_WORDS) - NO_STOP_WORDS
