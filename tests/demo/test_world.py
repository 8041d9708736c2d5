"""The made-up world: the same for the same seed; titles tell a taste for themes, and nothing tells one for a light."""

from __future__ import annotations

from pathlib import Path

from mllmrec.data.draws import generator
from mllmrec.demo.world import LIGHTS, THEMES, World, choices, make_shelves, make_titles, theme_of, write_world

WORLD = World()


def histories(world: World, count: int) -> list[list[str]]:
    titles = make_titles(world)
    shelves = make_shelves(world, titles)
    return [choices(world, titles, shelves, generator(1, "test", str(number))) for number in range(count)]


def test_the_same_world_gives_the_same_files(tmp_path: Path) -> None:
    for name, world in (("a", WORLD), ("b", World()), ("c", World(seed=7))):
        write_world(world, tmp_path / name)
    read = {name: (tmp_path / name / "pairs.csv").read_bytes() for name in "abc"}
    assert read["a"] == read["b"] != read["c"]
    first, second, *_ = read["a"].decode().splitlines()
    assert first == "user,item,timestamp"
    assert second.startswith("u0,")
    assert second.endswith(",0")


def test_titles_are_unique_and_begin_with_their_theme(tmp_path: Path) -> None:
    titles = make_titles(WORLD)
    assert len(set(titles.values())) == WORLD.num_items == 160
    assert {theme_of(title) for title in titles.values()} == set(THEMES)
    write_world(WORLD, tmp_path)
    rows = (tmp_path / "titles.csv").read_text(encoding="utf-8").splitlines()
    assert rows[:2] == ["item,title,theme", "101,Amber Lantern,Amber"]


def test_half_of_each_theme_belongs_to_the_day_and_no_title_tells_which() -> None:
    titles = make_titles(WORLD)
    shelves = make_shelves(WORLD, titles)
    assert {shelf: len(items) for shelf, items in shelves.items()} == {
        (theme, light): 10 for theme in THEMES for light in LIGHTS
    }
    assert sorted(item for items in shelves.values() for item in items) == list(titles)
    numbered = [sum(title[-1].isdigit() for title in map(titles.__getitem__, shelves[shelf])) for shelf in shelves]
    assert min(numbered) > 0
    assert max(numbered) < 10


def test_nobody_chooses_a_thing_twice_and_lengths_keep_to_their_bounds() -> None:
    for items in histories(WORLD, 100):
        assert len(set(items)) == len(items)
        assert 9 <= len(items) <= 16


def test_a_loyal_person_keeps_to_two_themes_and_to_one_light() -> None:
    world = World(loyal=1, popular=0, length=(6, 8))
    shelf_of = {item: shelf for shelf, items in make_shelves(world, make_titles(world)).items() for item in items}
    for items in histories(world, 100):
        shelves = {shelf_of[item] for item in items}
        assert len({theme for theme, _ in shelves}) <= 2
        assert len({light for _, light in shelves}) == 1
