"""Lessons in which several things speak for a candidate, each as much as it usually does.

People of a lesson lean towards two words of titles, one trait of captions, and one end of the numbers that follow
titles (a title without a number counts as 1). All three can be read off the history, though not every item follows
each of them. Most speaks for the answer, by a clear margin:

    WORD where the title has a liked word + TRAIT where the caption has the liked trait + NUMBER / (1 + rank),

where the number at the liked end has rank 0, the next one rank 1. So who has the trait and a liked word comes first,
and numbers decide between those who are equal in that.

The constants are about the log-odds of the demo's default world (2.83 for a place, 3.56 for a tint, 1.57 from the first
to the last fifth), so a backbone that has learned this is no stranger to that law, though to all its words and items.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

WORD, TRAIT, NUMBER = 2.8, 3.5, 1.6
NUM_LIKED, LIKED_WORDS = 2, 0.25
HIGHEST = (3, 7)
MARGIN = 0.25


class Traits(NamedTuple):
    """The traits of an item's title and of its caption, by number, of which the first are what the person likes; and
    the number behind its title, where the lesson minds."""

    title: int
    caption: int
    number: int | None = None


Question = tuple[list[Traits], Traits, list[Traits]]
"""The history, the answer, and the other candidates."""


class Numbers:
    """Numbers up to a highest one, of which people like either end."""

    def __init__(self, rng: random.Random) -> None:
        self.highest = rng.randint(*HIGHEST)
        self.from_below = rng.random() < 0.5
        self._weights = [math.exp(NUMBER / (1 + rank)) for rank in range(self.highest)]

    def rank(self, number: int) -> int:
        return number - 1 if self.from_below else self.highest - number

    def any_one(self, rng: random.Random) -> int:
        return rng.randint(1, self.highest)

    def chosen(self, rng: random.Random, count: int) -> list[int]:
        """`count` numbers as people choose them, nearer to the liked end on the average."""
        while True:
            (*ranks,) = rng.choices(range(self.highest), self._weights, k=count)
            if sum(ranks) < count * (self.highest - 1) / 2:
                return [rank + 1 if self.from_below else self.highest - rank for rank in ranks]


def by_number(rng: random.Random, history: int, candidates: int, titles: int, captions: int) -> Question:
    """Only the numbers tell the answer; `titles` and `captions` are how many traits there are of each."""
    numbers = Numbers(rng)

    def item(number: int) -> Traits:
        return Traits(rng.randrange(titles), rng.randrange(captions), number)

    past = [item(number) for number in numbers.chosen(rng, history)]
    while True:
        first, *others = sorted((numbers.any_one(rng) for _ in range(candidates)), key=numbers.rank)
        if first != others[0]:
            return past, item(first), [item(number) for number in others]


def judged(
    rng: random.Random, history: int, candidates: int, titles: int, captions: int, noise: float, *, captioned: bool
) -> Question:
    """Words, numbers and, where items are `captioned`, traits of captions tell the answer together."""
    numbers = Numbers(rng)

    def words(count: int) -> list[int]:
        stray = _strays(rng, count, noise)
        return [rng.randrange(NUM_LIKED, titles) if out else rng.randrange(NUM_LIKED) for out in stray]

    def traits(count: int) -> list[int]:
        return [rng.randrange(1, captions) if out else 0 for out in _strays(rng, count, noise)]

    def chosen(count: int) -> list[Traits]:
        return [Traits(*item) for item in zip(words(count), traits(count), numbers.chosen(rng, count), strict=True)]

    def offered() -> Traits:
        liked = rng.random() < LIKED_WORDS
        word = rng.randrange(NUM_LIKED) if liked else rng.randrange(NUM_LIKED, titles)
        return Traits(word, rng.randrange(captions), numbers.any_one(rng))

    def speaks_for(item: Traits) -> float:
        assert item.number is not None
        trait = TRAIT * (item.caption == 0) if captioned else 0.0
        return WORD * (item.title < NUM_LIKED) + trait + NUMBER / (1 + numbers.rank(item.number))

    past = chosen(history)
    while True:
        listed = [*chosen(1), *(offered() for _ in range(candidates - 1))]
        first, *others = sorted(listed, key=speaks_for, reverse=True)
        if speaks_for(first) >= speaks_for(others[0]) + MARGIN:
            return past, first, others


def _strays(rng: random.Random, count: int, noise: float) -> list[bool]:
    """Which of `count` items follow nothing: fewer than half of them."""
    number = min(sum(rng.random() < noise for _ in range(count)), (count - 1) // 2)
    stray = [True] * number + [False] * (count - number)
    rng.shuffle(stray)
    return stray
