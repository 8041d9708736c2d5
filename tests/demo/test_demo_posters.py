"""The posters of the made-up world: a tenth is missing, the rest is the same everywhere and tells what it shows."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mllmrec.artifacts import sha256
from mllmrec.data.draws import generator
from mllmrec.demo.motifs import MOTIFS
from mllmrec.demo.palettes import PALETTES
from mllmrec.demo.posters import encoded, poster, write_posters
from mllmrec.demo.scenery import SETTINGS
from mllmrec.demo.world import LIGHTS, NOUNS, THEMES, World, make_shelves, make_titles
from mllmrec.vision.pixels import describe

SMALL = World(num_items=40)
SHOWN_WORDS = 6
"""As many words of a caption are in a prompt at least, before it has none."""


def captions(theme: str, light: str) -> list[str]:
    world = World()
    titles = make_titles(world)
    items = make_shelves(world, titles)[theme, light][::3]
    pictures = (encoded(poster(titles[item], light, generator(42, "test", item))) for item in items)
    return [describe(np.asarray(Image.open(io.BytesIO(picture)))) for picture in pictures]


def test_every_theme_and_every_noun_can_be_drawn() -> None:
    assert set(SETTINGS) == set(THEMES)
    assert set(MOTIFS) == set(NOUNS)
    assert set(PALETTES) == {(theme, light) for theme in THEMES for light in LIGHTS}


def test_a_tenth_of_the_items_has_no_poster_and_the_others_are_small_pictures(tmp_path: Path) -> None:
    assert write_posters(SMALL, tmp_path) == 36
    files = sorted(tmp_path.iterdir())
    assert len(files) == 36
    assert {path.stem for path in files} < set(make_titles(SMALL))
    for path in files:
        with Image.open(path) as picture:
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (128, 192))


def test_posters_are_the_same_for_the_same_world(tmp_path: Path) -> None:
    world = World(num_items=10)
    for name, chosen in (("a", world), ("b", world), ("c", World(num_items=10, seed=7))):
        write_posters(chosen, tmp_path / name)
    hashes = {name: {path.name: sha256(path) for path in (tmp_path / name).iterdir()} for name in "abc"}
    assert hashes["a"] == hashes["b"] != hashes["c"]
    assert len(set(hashes["a"].values())) == 9


def test_day_and_night_differ_in_brightness() -> None:
    for theme in THEMES:
        day, night = (
            np.asarray(poster(f"{theme} Mirror", light, generator(1, "test", theme))).mean() for light in LIGHTS
        )
        assert day > night + 25


def test_the_pixel_captioner_tells_all_palettes_apart_in_the_words_that_prompts_show() -> None:
    def colours(caption: str) -> tuple[str, ...]:
        shown = " ".join(caption.split()[:SHOWN_WORDS]).removesuffix(" and")
        named = shown.replace(" and ", ", ").split(", ")
        return tuple(name.partition(" (")[0].casefold() for name in named[:2])

    seen = {shelf: {colours(caption) for caption in captions(*shelf)} for shelf in PALETTES}
    for shelf, pairs in seen.items():
        others = set().union(*(other for name, other in seen.items() if name != shelf))
        assert not pairs & others, shelf


@pytest.mark.parametrize(("theme", "light", "begins"), [("Cobalt", "night", "Dark blue"), ("Granite", "day", "Grey")])
def test_captions_begin_with_the_colour_of_the_poster(theme: str, light: str, begins: str) -> None:
    assert all(caption.startswith(begins) for caption in captions(theme, light))
