"""The made-up world: the same for the same seed, titles that tell places, and tints that no title tells."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from mllmrec.demo.habits import write_world
from mllmrec.demo.world import KINDS, PLACES, SIZES, TINTS, World, make_things
from mllmrec.errors import SettingsError

SMALL = World(num_items=240, num_users=60)
DIGEST = "462d1a6f4f888729"


def test_the_same_world_gives_the_same_files_on_every_machine(tmp_path: Path) -> None:
    """Its digest is written down here: another machine, or a change of the law, shows."""
    for name, world in (("a", SMALL), ("b", World(num_items=240, num_users=60)), ("c", World(num_items=240, seed=7))):
        write_world(world, tmp_path / name)
    read = {name: (tmp_path / name / "pairs.csv").read_bytes() for name in "abc"}
    assert read["a"] == read["b"] != read["c"]
    assert hashlib.sha256(read["a"]).hexdigest()[:16] == DIGEST
    first, second, *_ = read["a"].decode().splitlines()
    assert first == "user,item,timestamp"
    assert second.startswith("u0,")
    assert second.endswith(",0")


def test_the_titles_file_names_each_thing_once_with_its_place(tmp_path: Path) -> None:
    write_world(SMALL, tmp_path)
    rows = (tmp_path / "titles.csv").read_text(encoding="utf-8").splitlines()
    assert rows[:3] == ["item,title,place", "101,Meadow Lantern,Meadow", "102,Ocean Lantern,Ocean"]
    assert rows[1 + 80 + 9] == "190,Ocean Garden 2,Ocean"
    assert len(set(rows)) == 241


@pytest.mark.parametrize("size", ["s", "m", "l"])
def test_titles_are_unique_and_every_size_has_what_it_says(size: str) -> None:
    world = next(world for name, world in SIZES.items() if name == size)
    things = make_things(world)
    assert len({thing.title for thing in things.values()}) == len(things) == world.num_items
    assert {thing.place for thing in things.values()} == set(PLACES)
    assert {thing.kind for thing in things.values()} == set(KINDS)
    assert Counter(thing.fifth for thing in things.values()) == dict.fromkeys(range(1, 6), world.num_items // 5)


def test_tints_are_dealt_out_evenly_in_every_place_but_for_a_twentieth_without_a_poster() -> None:
    things = make_things(World())
    assert sum(thing.tint is None for thing in things.values()) == 20
    for place in PLACES:
        tints = Counter(thing.tint for thing in things.values() if thing.place == place)
        assert all(8 - tints[None] <= tints[tint] <= 9 for tint in TINTS), tints
        assert sum(tints.values()) == 50


@pytest.mark.parametrize("share", [-0.1, 1.0])
@pytest.mark.parametrize("aspect", ["title", "poster", "order", "popular"])
def test_a_share_out_of_bounds_is_refused_by_name(aspect: str, share: float) -> None:
    shares = {"title": 0.5, "poster": 0.5, "order": 0.5, "popular": 0.5, aspect: share}
    with pytest.raises(SettingsError, match=f"{aspect} = {share}: expected a share"):
        World(title=shares["title"], poster=shares["poster"], order=shares["order"], popular=shares["popular"])
