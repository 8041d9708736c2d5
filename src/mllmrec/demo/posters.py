"""A poster for each item of the made-up world, drawn on the spot and the same for the same item.

The title gives the setting (its theme) and the thing in it (its noun). Whether it is day or night there, the title
doesn't say: that is seen on the poster alone, and it is part of what people in this world go by.
"""

from __future__ import annotations

import io
import random
from pathlib import Path

from PIL import Image

from mllmrec.artifacts import replacing
from mllmrec.data.draws import generator, uniform
from mllmrec.demo.canvas import HEIGHT, WIDTH, Canvas
from mllmrec.demo.motifs import MOTIFS
from mllmrec.demo.palettes import PALETTES
from mllmrec.demo.scenery import draw_setting
from mllmrec.demo.world import NIGHT, World, make_shelves, make_titles

WITHOUT = 0.1
QUALITY = 90


def write_posters(world: World, folder: Path) -> int:
    """Write <item>.jpg for all items but a tenth, drawn by hash, that has none; returns how many there are."""
    titles = make_titles(world)
    lights = {item: light for (_, light), items in make_shelves(world, titles).items() for item in items}
    ranked = sorted(titles, key=lambda item: uniform(world.seed, "world/poster", item))
    chosen = set(ranked[round(WITHOUT * len(titles)) :])
    for item, title in titles.items():
        if item in chosen:
            picture = poster(title, lights[item], generator(world.seed, "world/poster", item))
            with replacing(folder / f"{item}.jpg", "wb") as file:
                file.write(encoded(picture))
    return len(chosen)


def poster(title: str, light: str, rng: random.Random) -> Image.Image:
    """The picture of an item by day or by night, 128 x 192; `rng` makes small differences."""
    theme, noun, *number = title.split()
    palette, canvas = PALETTES[theme, light], Canvas()
    draw_setting(canvas, theme, palette, night=light == NIGHT, rng=rng)
    if rng.random() < 0.5:
        canvas.mirror()
    MOTIFS[noun](canvas, palette)
    canvas.box(0, 114, WIDTH, HEIGHT, palette.ground)
    canvas.lettering(theme.upper(), (50, 123), 7.5, palette.paper, 3.2)
    canvas.lettering(noun.upper(), (50, 134.5), 13, palette.paper, 2.2)
    if number:
        canvas.lettering(" ".join(number), (50, 144), 5.5, palette.shine, 1)
    return canvas.finished()


def encoded(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()
