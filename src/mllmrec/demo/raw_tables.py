"""The made-up world written down: two plain tables, as anyone's raw data might be."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

from mllmrec.artifacts import replacing
from mllmrec.demo.habits import Habits
from mllmrec.demo.world import World, make_things


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
