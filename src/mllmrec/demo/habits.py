"""The choices of people in the made-up world: a law that is known, so that the best possible ranking is known too.

A person likes two places and one tint. The chance that somebody chooses thing i next, after things S, is

    P(i) = w(i) / sum of w(j) over all j outside S,  for i outside S,
    w(i) = title(i) x poster(i) x popular(i) x order(i)

Each factor is 1 - share + share x lift(i). The lift is 0 where i doesn't fit the aspect, and otherwise one over the
part of the catalogue that fits, so that every factor is 1 on the average, and 1 throughout at share 0. A thing fits
`title` when its place is liked, `poster` when its tint is (without a poster the factor is 1), `order` when its kind is
the one that follows the kind of the last thing (1 for the first thing of all). The lift of `popular` falls
from fifth f to fifth of the catalogue as 1 / (f sqrt f); of 400 things the first fifth are those without a number.

`write_world` writes the choices and the titles as two plain tables, as a user's raw data might be.
"""

from __future__ import annotations

import bisect
import csv
import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mllmrec.data.draws import generator, uniform
from mllmrec.demo.world import KINDS, PLACES, TINTS, Thing, World, make_things
from mllmrec.storage.workspace import replacing


@dataclass(frozen=True, kw_only=True)
class Taste:
    """The taste of one person: two liked places and a liked tint."""

    places: tuple[str, str]
    tint: str


TASTES = tuple(
    Taste(places=(first, second), tint=tint) for first, second in itertools.combinations(PLACES, 2) for tint in TINTS
)


class Habits:
    """The law of one world.

    It uses only sums, products, quotients and square roots, which every machine rounds alike, so that the same seed
    gives the same choices everywhere.
    """

    def __init__(self, world: World, things: Mapping[str, Thing]) -> None:
        self.world, self.things, self.items = world, things, list(things)
        self._cumulative: dict[Taste, list[float]] = {}

    def everyone(self) -> Iterator[tuple[str, list[str]]]:
        """(user, items) for everybody, oldest item first."""
        for number in range(self.world.num_users):
            rng = generator(self.world.seed, "world/user", str(number))
            yield f"u{number}", self.choices(rng.choice(TASTES), rng.randint(*self.world.length), rng)

    def choices(self, taste: Taste, count: int, rng: random.Random) -> list[str]:
        """`count` things that a person of this taste chooses one after the other, none of them twice.

        Drawn by rejection: proposed by what doesn't depend on the last thing, kept by what does.
        """
        cumulative, chosen, last = self._cumulated(taste), dict[str, None](), None
        while len(chosen) < count:
            item = self.items[bisect.bisect(cumulative, rng.random() * cumulative[-1], hi=len(self.items) - 1)]
            if item not in chosen and rng.random() * self._highest_order < self.order(item, last):
                chosen[item], last = None, item
        return list(chosen)

    def liking(self, taste: Taste, item: str) -> float:
        """The part of w that doesn't depend on what was chosen before."""
        world, thing = self.world, self.things[item]
        title = factor(world.title, thing.place in taste.places, len(taste.places) / len(PLACES))
        poster = 1.0 if thing.tint is None else factor(world.poster, thing.tint == taste.tint, 1 / len(TINTS))
        popular = 1 - world.popular + world.popular * _fall(thing.fifth) / self._mean_fall
        return title * poster * popular

    def order(self, item: str, last: str | None) -> float:
        """The part of w that depends on the last thing; 1 where there is none."""
        if last is None:
            return 1.0
        follows = self.things[item].kind == self.successors[self.things[last].kind]
        return factor(self.world.order, follows, 1 / len(KINDS))

    @cached_property
    def successors(self) -> dict[str, str]:
        """kind -> the kind that follows it: one round through all of them, in an order drawn by the seed."""
        drawn = sorted(KINDS, key=lambda kind: uniform(self.world.seed, "world/kind", kind))
        return dict(zip(drawn, [*drawn[1:], drawn[0]], strict=True))

    @cached_property
    def _mean_fall(self) -> float:
        return sum(_fall(thing.fifth) for thing in self.things.values()) / len(self.things)

    @cached_property
    def _highest_order(self) -> float:
        return factor(self.world.order, True, 1 / len(KINDS))

    def _cumulated(self, taste: Taste) -> Sequence[float]:
        if taste not in self._cumulative:
            self._cumulative[taste] = list(itertools.accumulate(self.liking(taste, item) for item in self.items))
        return self._cumulative[taste]


def factor(share: float, fits: bool, part: float) -> float:
    """The factor of one aspect in the weight of a thing, where `part` of all things fit.

    >>> factor(0.75, True, 0.25), factor(0.75, False, 0.25), factor(0.0, True, 0.25)
    (3.25, 0.25, 1.0)
    """
    return 1 - share + share * fits / part


def write_world(world: World, folder: Path) -> None:
    """Write pairs.csv (user, item, timestamp) and titles.csv (item, title, place), the same for the same world."""
    things = make_things(world)
    with replacing(folder / "titles.csv") as file:
        rows = ((item, thing.title, thing.place) for item, thing in things.items())
        csv.writer(file).writerows(itertools.chain([("item", "title", "place")], rows))
    with replacing(folder / "pairs.csv") as file:
        writer = csv.writer(file)
        writer.writerow(("user", "item", "timestamp"))
        for user, chosen in Habits(world, things).everyone():
            writer.writerows((user, item, step) for step, item in enumerate(chosen))


def _fall(fifth: int) -> float:
    return 1 / (fifth * math.sqrt(fifth))
