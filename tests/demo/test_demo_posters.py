"""The posters of the made-up world: a twentieth is missing, the rest is the same everywhere and tells its tint."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mllmrec.data.draws import generator
from mllmrec.demo.canvas import PALETTES
from mllmrec.demo.motifs import MOTIFS
from mllmrec.demo.posters import VIEWS, encoded, poster, write_posters
from mllmrec.demo.world import KINDS, PLACES, TINTS, Thing, World, make_things
from mllmrec.storage.workspace import sha256
from mllmrec.vision.pixels import describe

MAIN = {
    "gold": "Gold (",
    "pink": "Pink (",
    "green": "Green (",
    "orange": "Orange (",
    "navy": "Dark blue (",
    "black": "Black (",
}


def caption(place: str, kind: str, tint: str) -> str:
    thing = Thing(place=place, kind=kind, edition=2, fifth=2, tint=tint)
    picture = encoded(poster(thing, generator(42, "test", thing.title)))
    return describe(np.asarray(Image.open(io.BytesIO(picture))))


def test_every_place_kind_and_tint_can_be_drawn() -> None:
    assert set(VIEWS) == set(PLACES)
    assert set(MOTIFS) == set(KINDS)
    assert set(PALETTES) == set(TINTS)


def test_a_twentieth_of_the_things_has_no_poster_and_the_others_are_small_pictures(tmp_path: Path) -> None:
    world = World(num_items=40)
    assert write_posters(world, tmp_path) == 38
    files = sorted(tmp_path.iterdir())
    assert {path.stem for path in files} == {item for item, thing in make_things(world).items() if thing.tint}
    for path in files:
        with Image.open(path) as picture:
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (128, 192))


def test_posters_are_the_same_for_the_same_world(tmp_path: Path) -> None:
    world = World(num_items=10)
    for name, chosen in (("a", world), ("b", world), ("c", World(num_items=10, seed=7))):
        write_posters(chosen, tmp_path / name)
    hashes = {name: {path.name: sha256(path) for path in (tmp_path / name).iterdir()} for name in "abc"}
    assert hashes["a"] == hashes["b"] != hashes["c"]
    assert len(set(hashes["a"].values())) == len(hashes["a"])


@pytest.mark.parametrize("tint", TINTS)
def test_the_pixel_captioner_begins_with_the_tint_whatever_the_place_and_the_thing(tint: str) -> None:
    places = zip(PLACES, (*KINDS[::3], *KINDS[1::3]), strict=False)
    begins = {caption(place, kind, tint) for place, kind in places}
    assert all(each.startswith(MAIN[tint]) for each in begins), begins
