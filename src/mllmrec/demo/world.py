"""A small made-up world: things with names, people with tastes and habits.

Each item has a theme, and its title says so (`Amber Lantern 12` is of the theme amber). A person likes a few themes
and mostly goes on with the theme of the last thing chosen; some things are simply popular; the rest is chance. So
there is something to learn from titles, from order and from popularity, and a model that sees none of it can't win.
"""

from __future__ import annotations

import csv
import itertools
import random
from dataclasses import dataclass
from pathlib import Path

from mllmrec.artifacts import replacing
from mllmrec.data.draws import generator

THEMES = ("Amber", "Cobalt", "Willow", "Granite", "Velvet", "Comet", "Harbor", "Saffron")
NOUNS = ("Lantern", "Garden", "Engine", "Letter", "Mirror", "Orchard", "Station", "Compass", "Island", "Quartet")


@dataclass(frozen=True, kw_only=True)
class World:
    """Sizes and habits. `stay` is the chance to go on with the last theme, `popular` that of a popular item."""

    num_items: int = 160
    num_users: int = 700
    length: tuple[int, int] = (9, 16)
    stay: float = 0.75
    popular: float = 0.15
    seed: int = 42


def write_world(world: World, folder: Path) -> None:
    """Write pairs.csv (user, item, timestamp) and titles.csv (item, title, theme), the same for the same world."""
    titles = make_titles(world)
    with replacing(folder / "titles.csv") as file:
        rows = ((item, title, theme_of(title)) for item, title in titles.items())
        csv.writer(file).writerows(itertools.chain([("item", "title", "theme")], rows))
    with replacing(folder / "pairs.csv") as file:
        writer = csv.writer(file)
        writer.writerow(("user", "item", "timestamp"))
        for number in range(world.num_users):
            rng = generator(world.seed, "world/user", str(number))
            writer.writerows((f"u{number}", item, step) for step, item in enumerate(choices(world, titles, rng)))


def make_titles(world: World) -> dict[str, str]:
    """item id -> title; every pair of theme and noun comes several times, told apart by a number."""
    pairs = itertools.cycle(itertools.product(NOUNS, THEMES))
    names = [f"{theme} {noun}" for noun, theme in itertools.islice(pairs, world.num_items)]
    copies: dict[str, int] = {}
    titles = {}
    for number, name in enumerate(names, 101):
        copies[name] = copies.get(name, 0) + 1
        titles[str(number)] = name if copies[name] == 1 else f"{name} {copies[name]}"
    return titles


def choices(world: World, titles: dict[str, str], rng: random.Random) -> list[str]:
    """One person's items, oldest first, without repetition."""
    themes = {theme: [item for item, title in titles.items() if theme_of(title) == theme] for theme in THEMES}
    popular = list(titles)[:: max(1, len(titles) // 12)]
    liked = rng.sample(THEMES, 2)
    theme, chosen = liked[0], dict[str, None]()
    for _ in range(rng.randint(*world.length)):
        if rng.random() > world.stay:
            theme = rng.choice(liked)
        pool = popular if rng.random() < world.popular else themes[theme]
        left = [item for item in pool if item not in chosen] or [item for item in titles if item not in chosen]
        chosen[rng.choice(left)] = None
    return list(chosen)


def theme_of(title: str) -> str:
    return title.split(" ", 1)[0]
