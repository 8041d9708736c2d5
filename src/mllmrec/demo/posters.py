"""The posters of the made-up world, drawn by the program, always the same for the same thing.

A poster shows a view of the thing's place, under the sun or the moon, and the thing in front of it. Its tint, which is
part of what people in this world go by, is on the poster alone: the title names place and kind only.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Mapping
from pathlib import Path

from PIL import Image

from mllmrec.data.draws import generator
from mllmrec.demo.canvas import HEIGHT, PALETTES, WIDTH, Canvas, Palette, Point, around, below, star, wave
from mllmrec.demo.motifs import MOTIFS
from mllmrec.demo.world import Thing, World, make_things
from mllmrec.progress import progress
from mllmrec.storage.workspace import replacing

QUALITY = 90
DISC, DISC_RADIUS = (50.0, 62.0), 33.0
HORIZON = 108.0
View = Callable[[Canvas, Palette, random.Random], None]


def write_posters(world: World, folder: Path, *, again: bool = False) -> int:
    """Write <item>.jpg for all things that have a poster; existing files are replaced only with `again`.

    Returns the number of posters.
    """
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
    """The poster of a thing, 128 x 192 pixels; `rng` varies its details."""
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


def draw_view(canvas: Canvas, place: str, palette: Palette, rng: random.Random) -> None:
    """Draw sky, sun or moon, land and ground of a place; `rng` varies the details."""
    canvas.gradient(0, HEIGHT, *palette.sky)
    if place == "Meadow":
        rays(canvas, palette)
    if palette.night:
        stars(canvas, palette, rng, 34)
    canvas.glow(DISC, DISC_RADIUS * 1.75, palette.disc, 0.75 if palette.night else 0.55)
    canvas.disc(DISC, DISC_RADIUS, palette.disc)
    VIEWS[place](canvas, palette, rng)


def rays(canvas: Canvas, palette: Palette) -> None:
    for number in range(0, 36, 2):
        edges = (around(DISC, 140, number * 10 + 2), around(DISC, 140, number * 10 + 8))
        canvas.polygon((DISC, *edges), palette.sky[1])


def stars(canvas: Canvas, palette: Palette, rng: random.Random, count: int) -> None:
    for _ in range(count):
        centre = rng.uniform(4, WIDTH - 4), rng.uniform(4, 92)
        canvas.disc(centre, rng.choice((0.35, 0.5, 0.8)), palette.shine)


def fields(canvas: Canvas, palette: Palette, rng: random.Random) -> None:
    """Hills with ears of corn at both sides."""
    turn = rng.random()
    canvas.polygon(below(wave((0, 97), WIDTH, 4, 90, turn)), palette.far)
    canvas.polygon(below(wave((0, 104), WIDTH, 3, 70, turn + 0.4)), palette.near)
    canvas.polygon(below(wave((0, HORIZON + 3), WIDTH, 1.5, 110, turn)), palette.ground)
    for x in (6, 12, 17, 83, 88, 94):
        top = rng.uniform(82, 93)
        canvas.line([(x, 114), (x, top)], palette.shine, 0.6)
        for grain in range(5):
            leaves(canvas, (x, top + grain * 2.5 + 2.4), palette.shine, -3.4)


def waves(canvas: Canvas, palette: Palette, rng: random.Random) -> None:
    """Rows of rounded waves, each with its crest."""
    colours = (palette.far, palette.near, palette.ground)
    for row, colour in enumerate(colours):
        top, shift = 97 + row * 6.5, rng.uniform(0, 14)
        for x in range(-14, WIDTH + 28, 14):
            canvas.disc((x + shift, top + 6), 8.2, palette.shine)
            canvas.disc((x + shift, top + 6.9), 8.2, colour)
        canvas.box(0, top + 6, WIDTH, HEIGHT, colour)


def willows(canvas: Canvas, palette: Palette, rng: random.Random) -> None:
    """Rolling meadows under hanging branches."""
    turn = rng.random()
    canvas.polygon(below(wave((0, 95), WIDTH, 5, 120, turn)), palette.far)
    canvas.polygon(below(wave((0, 103), WIDTH, 3.5, 95, turn + 0.5)), palette.near)
    canvas.polygon(below(wave((0, HORIZON + 3), WIDTH, 1.2, 80, turn)), palette.ground)
    for x in (2, 8, 14, 20, 27, 73, 80, 86, 92, 98):
        reach, bend = 70 + 0.4 * abs(x - 50) - rng.uniform(14, 46), -1 if x < 50 else 1
        branch = [(x + bend * 2.0 * (y / reach) ** 2, y) for y in (reach * part / 12 for part in range(13))]
        canvas.line(branch, palette.near, 0.7)
        for point in branch[2:]:
            leaves(canvas, point, palette.near, 3.4)


def leaves(canvas: Canvas, stem: Point, colour: str, length: float) -> None:
    for side in (-1, 1):
        tip = stem[0] + side * length * 0.75, stem[1] + length
        middle = stem[0] + side * length * 0.75, stem[1] + length * 0.35
        canvas.polygon((stem, middle, tip, (stem[0] + side * length * 0.15, stem[1] + length * 0.6)), colour)


def mountains(canvas: Canvas, palette: Palette, rng: random.Random) -> None:
    """Two ranges of peaks."""
    far = ((8, 62), (34, 74), (66, 70), (93, 60))
    near = ((-4, 82), (22, 90), (50, 97), (78, 89), (104, 80))
    for peaks, light, dark in ((far, palette.far, palette.near), (near, palette.near, palette.ground)):
        for x, y in peaks:
            peak((x + rng.uniform(-3, 3), y + rng.uniform(-4, 4)), canvas, light, dark, palette.shine)
    canvas.box(0, HORIZON + 2, WIDTH, HEIGHT, palette.ground)


def peak(top: Point, canvas: Canvas, light: str, dark: str, snow: str) -> None:
    """One mountain with a lit side, a dark side and snow."""
    x, y = top
    canvas.polygon((top, (x + 24, 116), (x - 24, 116)), light)
    canvas.polygon((top, (x + 24, 116), (x + 3, 116), (x - 3, y + 0.275 * (116 - y))), dark)
    canvas.polygon(
        (top, (x + 4.2, y + 8), (x + 1, y + 6.2), (x - 1, y + 9), (x - 2.6, y + 6.4), (x - 4.6, y + 9)), snow
    )


def curtains(canvas: Canvas, palette: Palette, rng: random.Random) -> None:
    """A stage between curtains under a valance."""
    canvas.box(0, 99, WIDTH, HEIGHT, palette.far)
    canvas.disc((50, 104), 34, palette.near, 5)
    canvas.box(0, HORIZON + 3, WIDTH, HEIGHT, palette.ground)
    folds, sway = (palette.near, palette.far, palette.near, palette.ground), rng.uniform(7, 11)
    for mirrored in (False, True):
        for number in range(7, -1, -1):
            edge = [(number * 3.2 + 3.4 - sway * (y / 104) ** 2 * number / 7, float(y)) for y in range(0, 113, 4)]
            shape = [(0.0, 0.0), *edge, (0.0, 112.0)]
            canvas.polygon([(WIDTH - x if mirrored else x, y) for x, y in shape], folds[number % 4])
    for number in range(6):
        x = 100 / 6 * (number + 0.5)
        canvas.disc((x, 4), 10.4, palette.shine, 11.2 + 2 * (number % 2))
        canvas.disc((x, 3.1), 10.4, folds[number % 2], 11.2 + 2 * (number % 2))
    canvas.box(0, 0, WIDTH, 6, palette.ground)


def space(canvas: Canvas, palette: Palette, rng: random.Random) -> None:
    """A comet over the curve of a world."""
    stars(canvas, palette, rng, 22)
    head, steep = (rng.uniform(74, 84), rng.uniform(15, 20)), rng.uniform(22, 30)
    for width, colour in ((6.4, palette.far), (4.2, palette.body), (2.0, palette.shine)):
        tail = around(head, 96 - width * 5, 180 - steep)
        across = (around(head, width / 2, 90 - steep), around(head, width / 2, -90 - steep))
        canvas.polygon((across[0], tail, across[1]), colour)
    canvas.glow(head, 12, palette.shine, 0.8)
    canvas.disc(head, 3.4, palette.shine)
    canvas.disc((50, 236), 138, palette.near)
    canvas.disc((50, 239), 137, palette.ground)
    for x, y, radius in ((16, 121, 5), (82, 117, 4), (66, 124, 2.2), (33, 115, 2.6)):
        canvas.disc((x, y), radius, palette.near, radius * 0.42)


def harbor(canvas: Canvas, palette: Palette, rng: random.Random) -> None:
    """Boats before a far coast, and the light on the water."""
    canvas.polygon(below(wave((0, 91), WIDTH, 3, 64, rng.random())), palette.far)
    canvas.box(0, 97, WIDTH, HEIGHT, palette.near)
    for y, reach in ((99.5, 30), (102, 22), (104.5, 26), (107, 14)):
        canvas.line([(50 - reach, y), (50 + reach, y)], palette.disc, 0.7)
    boat((rng.uniform(9, 15), 103), canvas, palette, 1.15)
    boat((rng.uniform(85, 91), 100), canvas, palette, 0.85)
    canvas.box(0, HORIZON + 3, WIDTH, HEIGHT, palette.ground)


def boat(foot: Point, canvas: Canvas, palette: Palette, size: float) -> None:
    def shape(*points: Point) -> list[Point]:
        return [(foot[0] + x * size, foot[1] + y * size) for x, y in points]

    canvas.polygon(shape((-0.6, -4), (-0.6, -25), (-8, -4)), palette.shine)
    canvas.polygon(shape((0.8, -4), (0.8, -20), (6, -4)), palette.paper)
    canvas.polygon(shape((-8, -3), (8, -3), (5, 0), (-5, 0)), palette.ink)


def desert(canvas: Canvas, palette: Palette, rng: random.Random) -> None:
    """Dunes seen through a pointed arch."""
    turn = rng.random()
    for row, colour in enumerate((palette.far, palette.near)):
        canvas.polygon(below(wave((0, 94 + row * 8), WIDTH, 5 - row, 84 + 20 * row, turn + row * 0.45)), colour)
    canvas.box(0, HORIZON + 3, WIDTH, HEIGHT, palette.ground)
    for outline, colour in ((arch(8.5, 5.0), palette.shine), (arch(7.3, 3.8), palette.ground)):
        canvas.polygon((*outline, (50, -1), (-1, -1), (-1, 111)), colour)
        canvas.polygon((*((WIDTH - x, y) for x, y in outline), (50, -1), (WIDTH + 1, -1), (WIDTH + 1, 111)), colour)
    for x in (10.5, 89.5):
        for y in (9.0, 17.5):
            canvas.polygon(star((x, y), 3.6, 1.9, 8), palette.far)


def arch(side: float, top: float) -> list[Point]:
    """The left half of a pointed arch, from its foot up."""
    spring = 62.0
    parts = [part / 16 for part in range(17)]
    curve = [(50 - (50 - side) * (1 - part) ** 0.62, spring - (spring - top) * part**1.05) for part in parts]
    return [(side, 111.0), *curve]


VIEWS: Mapping[str, View] = {
    "Meadow": fields,
    "Ocean": waves,
    "Willow": willows,
    "Peak": mountains,
    "Opera": curtains,
    "Comet": space,
    "Wharf": harbor,
    "Desert": desert,
}
