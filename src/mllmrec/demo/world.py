"""A small made-up world: things with names and posters, and people with tastes and habits.

Each thing has a place and a kind, which its title names: `Ocean Lantern 2` is the second lantern of the ocean. Its
poster has a tint, which no title names. How people choose among the things is in `habits.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mllmrec.data.draws import uniform
from mllmrec.errors import SettingsError

PLACES = ("Meadow", "Ocean", "Willow", "Peak", "Opera", "Comet", "Wharf", "Desert")
KINDS = ("Lantern", "Garden", "Engine", "Stamp", "Mirror", "Fruit", "School", "North", "Palm", "Music")
"""Places and kinds are words of few tokens in the backbone's vocabulary, so that prompts are short, and none that its
lessons can make up."""
TINTS = ("gold", "pink", "green", "orange", "navy", "black")
BARE = 0.05
"""Share of the things that have no poster."""

Size = Literal["s", "m", "l"]


@dataclass(frozen=True, kw_only=True)
class World:
    """The numbers of things, of people and of choices per person, and the aspects that choices depend on.

    A share (0 to below 1) is the part of the choices that would follow one aspect if there were no other: `title` the
    places a person likes, `poster` the tint, `order` the kind that follows the last one, `popular` the age of a thing.
    At 0 an aspect has no influence; what no aspect decides is chance.
    """

    num_items: int = 400
    num_users: int = 1500
    length: tuple[int, int] = (9, 11)
    title: float = 0.8
    poster: float = 0.85
    order: float = 0.4
    popular: float = 0.7
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("title", "poster", "order", "popular"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(
                    f"The made-up world has {name} = {getattr(self, name)}: expected a share from 0 to below 1."
                )


SIZES: Mapping[Size, World] = {
    "s": World(num_items=240, num_users=500),
    "m": World(),
    "l": World(num_items=800, num_users=6000),
}


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One item; `fifth` (1 to 5) is the fifth of the catalogue that it lies in, `tint` None where it has no poster."""

    place: str
    kind: str
    edition: int
    fifth: int
    tint: str | None

    @property
    def title(self) -> str:
        return f"{self.place} {self.kind}" + (f" {self.edition}" if self.edition > 1 else "")


def make_things(world: World) -> dict[str, Thing]:
    """The things by item id. Places, kinds and editions take turns; tints are assigned by hash within each place."""
    tints = _tints(world)
    things = {}
    for number in range(world.num_items):
        edition, rest = divmod(number, len(PLACES) * len(KINDS))
        kind, place = divmod(rest, len(PLACES))
        things[str(101 + number)] = Thing(
            place=PLACES[place],
            kind=KINDS[kind],
            edition=edition + 1,
            fifth=1 + 5 * number // world.num_items,
            tint=tints[str(101 + number)],
        )
    return things


def _tints(world: World) -> dict[str, str | None]:
    """item id -> the tint of its poster; a twentieth, drawn by hash, has none."""
    items = [str(101 + number) for number in range(world.num_items)]
    tints: dict[str, str | None] = {}
    for place in range(len(PLACES)):
        drawn = sorted(items[place :: len(PLACES)], key=lambda item: uniform(world.seed, "world/tint", item))
        tints |= {item: TINTS[number % len(TINTS)] for number, item in enumerate(drawn)}
    bare = sorted(items, key=lambda item: uniform(world.seed, "world/poster", item))[: round(BARE * len(items))]
    return tints | dict.fromkeys(bare)
