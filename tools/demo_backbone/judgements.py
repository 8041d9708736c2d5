"""Lessons in which several features add up for a candidate, with weights that differ from person to person.

People of a lesson lean towards a few words of titles, one trait of captions, and one end of the numbers that follow
titles (a title without a number counts as 1). What speaks for an item, in nats of log-odds, is

    word where the title has a liked word + trait where the caption has the liked trait + number / (1 + rank) ** fall,

where the number at the liked end has rank 0, the next one rank 1. A person's history is chosen by that, one item at a
time from many, each with the chance that the exponential of what speaks for it gives; and the answer is the candidate
for which most speaks, by a clear margin. Everything that makes up such a law is drawn anew for each lesson: `word`,
`trait`, `number` and `fall`, how many words are liked and how often they are offered. So no world's law is singled out,
the demo's neither; what counts most for somebody has to be read off the history.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

WEAKEST, STRONGEST = 2.0, 5.0
FALLS = (0.5, 1.5)
MOST_LIKED, LIKED_SHARES = 3, (0.15, 0.4)
HIGHEST = (3, 7)
POOL = 40
MARGIN = 0.3


class Traits(NamedTuple):
    """The traits of an item's title and of its caption, by number, of which the first are what the person likes; and
    the number behind its title, where the lesson minds."""

    title: int
    caption: int
    number: int | None = None


Question = tuple[list[Traits], Traits, list[Traits]]
"""The history, the answer, and the other candidates."""


class Numbers:
    """Numbers up to a highest one, of which a person likes either end; the number there counts `strength` nats."""

    def __init__(self, rng: random.Random) -> None:
        self.highest = rng.randint(*HIGHEST)
        self.from_below = rng.random() < 0.5
        self.strength, self.fall = _strength(rng), rng.uniform(*FALLS)

    def rank(self, number: int) -> int:
        return number - 1 if self.from_below else self.highest - number

    def speaks_for(self, number: int) -> float:
        return self.strength / math.pow(1 + self.rank(number), self.fall)

    def any_one(self, rng: random.Random) -> int:
        return rng.randint(1, self.highest)

    def chosen(self, rng: random.Random, count: int) -> list[int]:
        """`count` numbers as the person chooses them, nearer to the liked end on the average."""
        numbers = range(1, self.highest + 1)
        weights = [math.exp(self.speaks_for(number)) for number in numbers]
        while True:
            drawn = rng.choices(numbers, weights, k=count)
            if sum(map(self.rank, drawn)) < count * (self.highest - 1) / 2:
                return drawn


class Person:
    """What one person likes: of `titles` kinds of words the first `num_liked`, of `captions` traits the first.

    `word` and `trait` are how much that counts, in nats; a trait counts nothing where items aren't `captioned`.
    """

    def __init__(self, rng: random.Random, titles: int, captions: int, *, captioned: bool) -> None:
        self.numbers = Numbers(rng)
        self.num_liked = rng.randint(1, MOST_LIKED)
        self.word, self.trait = _strength(rng), _strength(rng) if captioned else 0.0
        self._liked_share, self._titles, self._captions = rng.uniform(*LIKED_SHARES), titles, captions

    def speaks_for(self, item: Traits) -> float:
        assert item.number is not None
        word, trait = self.word * (item.title < self.num_liked), self.trait * (item.caption == 0)
        return word + trait + self.numbers.speaks_for(item.number)

    def offered(self, rng: random.Random) -> Traits:
        """Any item of the person's world."""
        liked = rng.random() < self._liked_share
        word = rng.randrange(self.num_liked) if liked else rng.randrange(self.num_liked, self._titles)
        return Traits(word, rng.randrange(self._captions), self.numbers.any_one(rng))

    def chosen(self, rng: random.Random) -> Traits:
        """One of many items, drawn with the softmax of their scores."""
        pool = [self.offered(rng) for _ in range(POOL)]
        return rng.choices(pool, [math.exp(self.speaks_for(item)) for item in pool])[0]


def by_number(rng: random.Random, history: int, candidates: int, titles: int, captions: int) -> Question:
    """Only the numbers decide the answer; `titles` and `captions` are the numbers of traits of each."""
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
    """Words, numbers and, where items are `captioned`, traits of captions decide the answer together.

    A share `noise` of the history is drawn without regard to them.
    """
    person = Person(rng, titles, captions, captioned=captioned)
    past = [person.offered(rng) if rng.random() < noise else person.chosen(rng) for _ in range(history)]
    while True:
        listed = [person.chosen(rng), *(person.offered(rng) for _ in range(candidates - 1))]
        first, *others = sorted(listed, key=person.speaks_for, reverse=True)
        if person.speaks_for(first) >= person.speaks_for(others[0]) + MARGIN:
            return past, first, others


def _strength(rng: random.Random) -> float:
    """How much one thing counts: any order of size between the ends is as likely as another."""
    return math.exp(rng.uniform(math.log(WEAKEST), math.log(STRONGEST)))
