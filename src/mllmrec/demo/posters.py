"""A poster for each thing of the made-up world that has one, drawn on the spot and the same for the same thing.

The title gives the place and the thing in it. The tint of its poster the title doesn't say: that is seen on the poster
alone, and it is part of what people in this world go by.
"""

from __future__ import annotations

import io
import random
from pathlib import Path

from PIL import Image

from mllmrec.artifacts import replacing
from mllmrec.data.draws import generator
from mllmrec.demo.canvas import HEIGHT, WIDTH, Canvas
from mllmrec.demo.motifs import MOTIFS
from mllmrec.demo.palettes import PALETTES
from mllmrec.demo.scenery import draw_view
from mllmrec.demo.world import Thing, World, make_things
from mllmrec.progress import progress

QUALITY = 90


def write_posters(world: World, folder: Path, *, again: bool = False) -> int:
    """Write <item>.jpg for all things that have a poster, those that lie there already only `again`; returns how many
    there are."""
    tinted = {item: thing for item, thing in make_things(world).items() if thing.tint is not None}
    with progress("Drawing posters", len(tinted)) as advance:
        for item, thing in tinted.items():
            path = folder / f"{item}.jpg"
            if again or not path.exists():
                with replacing(path, "wb") as file:
                    file.write(encoded(poster(thing, generator(world.seed, "world/poster", item))))
            advance(1)
    return len(tinted)


def poster(thing: Thing, rng: random.Random) -> Image.Image:
    """The picture of a thing, 128 x 192; `rng` makes small differences."""
    assert thing.tint is not None, "a thing without a tint has no poster"
    palette, canvas = PALETTES[thing.tint], Canvas()
    draw_view(canvas, thing.place, palette, rng)
    if rng.random() < 0.5:
        canvas.mirror()
    MOTIFS[thing.kind](canvas, palette)
    canvas.box(0, 114, WIDTH, HEIGHT, palette.ground)
    canvas.lettering(thing.place.upper(), (50, 123), 7.5, palette.paper, 3.2)
    canvas.lettering(thing.kind.upper(), (50, 134.5), 13, palette.paper, 2.2)
    if thing.edition > 1:
        canvas.lettering(str(thing.edition), (50, 144), 5.5, palette.shine, 1)
    return canvas.finished()


def encoded(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()
