"""A toy world for tests: things with themes, people who mostly go on with a theme, and some things that are popular.

Simpler than the demo's world, and much of it is popularity, so that models of a few thousand weights learn something
from it in seconds. Tests know its numbers; the demo's world may change without them.
"""

from __future__ import annotations

import csv
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mllmrec.data.draws import generator, uniform
from mllmrec.storage.workspace import replacing

THEMES = ("Amber", "Cobalt", "Willow", "Granite", "Velvet", "Comet", "Harbor", "Saffron")
NOUNS = ("Lantern", "Garden", "Engine", "Letter", "Mirror", "Orchard", "Station", "Compass", "Island", "Quartet")
LIGHTS = DAY, NIGHT = ("day", "night")

Shelves = Mapping[tuple[str, str], Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class ToyWorld:
    """Sizes and habits. `stay` is the chance to go on with the last theme, `popular` that of a popular item, `loyal`
    that of one of the day, or the night, that a person keeps to."""

    num_items: int = 160
    num_users: int = 700
    length: tuple[int, int] = (9, 16)
    stay: float = 0.75
    popular: float = 0.15
    loyal: float = 0.8
    seed: int = 42


def write_toy_world(world: ToyWorld, folder: Path) -> None:
    """Write pairs.csv (user, item, timestamp) and titles.csv (item, title, theme), the same for the same world."""
    titles = make_titles(world)
    shelves = make_shelves(world, titles)
    with replacing(folder / "titles.csv") as file:
        rows = ((item, title, theme_of(title)) for item, title in titles.items())
        csv.writer(file).writerows(itertools.chain([("item", "title", "theme")], rows))
    with replacing(folder / "pairs.csv") as file:
        writer = csv.writer(file)
        writer.writerow(("user", "item", "timestamp"))
        for number in range(world.num_users):
            rng = generator(world.seed, "world/user", str(number))
            chosen = choices(world, titles, shelves, rng)
            writer.writerows((f"u{number}", item, step) for step, item in enumerate(chosen))


def make_titles(world: ToyWorld) -> dict[str, str]:
    """item id -> title; every pair of theme and noun comes several times, told apart by a number."""
    pairs = itertools.cycle(itertools.product(NOUNS, THEMES))
    names = [f"{theme} {noun}" for noun, theme in itertools.islice(pairs, world.num_items)]
    copies: dict[str, int] = {}
    titles = {}
    for number, name in enumerate(names, 101):
        copies[name] = copies.get(name, 0) + 1
        titles[str(number)] = name if copies[name] == 1 else f"{name} {copies[name]}"
    return titles


def choices(world: ToyWorld, titles: Mapping[str, str], shelves: Shelves, rng: random.Random) -> list[str]:
    """One person's items, oldest first, without repetition."""
    popular = list(titles)[:: max(1, len(titles) // 12)]
    liked, light = rng.sample(THEMES, 2), rng.choice(LIGHTS)
    theme, chosen = liked[0], dict[str, None]()
    for _ in range(rng.randint(*world.length)):
        if rng.random() > world.stay:
            theme = rng.choice(liked)
        seen = light if rng.random() < world.loyal else next(other for other in LIGHTS if other != light)
        pool = popular if rng.random() < world.popular else shelves[theme, seen]
        left = [item for item in pool if item not in chosen] or [item for item in titles if item not in chosen]
        chosen[rng.choice(left)] = None
    return list(chosen)


def make_shelves(world: ToyWorld, titles: Mapping[str, str]) -> Shelves:
    """(theme, light) -> items; half of a theme's items, drawn by hash, belong to the day."""
    shelves: dict[tuple[str, str], list[str]] = {}
    for theme in THEMES:
        items = [item for item, title in titles.items() if theme_of(title) == theme]
        drawn = sorted(items, key=lambda item: uniform(world.seed, "world/light", item))
        for number, light in enumerate(LIGHTS):
            shelves[theme, light] = [item for item in items if item in drawn[number :: len(LIGHTS)]]
    return shelves


def theme_of(title: str) -> str:
    return title.split(" ", 1)[0]
