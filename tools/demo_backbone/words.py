"""Words that mean nothing: syllables of English shape, joined at random.

What a backbone learns on them can't be about any of them, so it has to compare and to copy. Their letters fall about as
they do in English, so that real words are cut into tokens much as these are.
"""

from __future__ import annotations

import random

SINGLE, DOUBLE = "bcdfghlmnprstvw", "br ch cl cr dr fl gr pl pr sh sl sp st th tr wh"
ONSETS = (*SINGLE * 3, *"jkyz", *DOUBLE.split(" "), *[""] * 6)
INNER_ONSETS = (*SINGLE * 2, *DOUBLE.split(" "))
VOWELS = (*"aeiou" * 4, "ai", "ea", "ee", "oa", "oo", "ie")
CLOSED = "ck ct ng nd nt rd rn rt ss st sh ll"
CODAS = (*[""] * 6, *"nrlstmdnrl", *CLOSED.split(" "), *"pbgx")
SYLLABLES = (1, 2, 2, 2, 2, 3)
SHORTEST, LONGEST = 3, 9


def made_up_word(rng: random.Random) -> str:
    """A word of 3 to 9 letters, in lower case."""
    while True:
        count = rng.choice(SYLLABLES)
        word = "".join(
            _onset(rng, first=i == 0) + rng.choice(VOWELS) + _coda(rng, last=i == count - 1) for i in range(count)
        )
        if SHORTEST <= len(word) <= LONGEST:
            return word


def made_up_words(rng: random.Random, count: int) -> list[str]:
    """`count` different ones."""
    words = dict[str, None]()
    while len(words) < count:
        words[made_up_word(rng)] = None
    return list(words)


def _onset(rng: random.Random, *, first: bool) -> str:
    """What opens a syllable; only a word's first may open with its vowel."""
    onset: str = rng.choice(ONSETS if first else INNER_ONSETS)
    return onset


def _coda(rng: random.Random, *, last: bool) -> str:
    """What closes a syllable: most within a word are open."""
    return rng.choice(CODAS) if last or rng.random() < 0.2 else ""
