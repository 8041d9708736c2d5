"""The things on the posters, one drawing for each kind, standing on the ground in the middle of the poster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mllmrec.demo.canvas import Canvas, Palette, Point, around, star

FOOT = 111.0
SIXTHS = tuple(part / 6 for part in range(7))
Motif = Callable[[Canvas, Palette], None]


def lantern(canvas: Canvas, palette: Palette) -> None:
    canvas.ring((50, 46), 8, palette.ink, 1.8)
    canvas.box(44, 52, 56, 57, palette.ink, 1)
    canvas.polygon(((42, 57), (58, 57), (67, 68), (33, 68)), palette.ink)
    canvas.box(36, 68, 64, 102, palette.body)
    canvas.glow((50, 85), 22, palette.shine, 1.0)
    canvas.polygon(((50, 76), (54.5, 87), (50, 93), (45.5, 87)), palette.paper)
    for x in (36, 50, 64):
        canvas.line([(x, 68), (x, 102)], palette.ink, 1.7 if x != 50 else 0.9)
    canvas.box(32, 101, 68, 106, palette.ink, 1)
    canvas.box(36, 106, 64, FOOT, palette.ink)


def garden(canvas: Canvas, palette: Palette) -> None:
    for x, y, size in ((34, 74, 8.5), (66, 69, 9.0), (50, 53, 11.0)):
        canvas.line([(50 + (x - 50) * 0.55, FOOT), (x, y)], palette.ink, 1.9)
        for side in (-1, 1):
            leaf = (50 + (x - 50) * 0.55 + side * 5, (y + FOOT) / 2 + side * 4)
            canvas.disc(leaf, 5.2, palette.ink, 2.1)
        for petal in range(8):
            canvas.disc(around((x, y), size * 0.66, petal * 45), size * 0.42, palette.body)
        for petal in range(8):
            canvas.disc(around((x, y), size * 0.5, petal * 45 + 22.5), size * 0.3, palette.shine)
        canvas.disc((x, y), size * 0.34, palette.ink)
    canvas.disc((50, FOOT), 27, palette.ink, 5)


def engine(canvas: Canvas, palette: Palette) -> None:
    for x, y, radius in ((69, 66, 4.0), (62, 57, 5.6), (51, 49, 7.4), (37, 43, 9.0)):
        canvas.disc((x, y), radius, palette.shine)
    canvas.polygon(((68, 82), (74, 82), (76, 70), (66, 70)), palette.ink)
    canvas.box(46, 80, 80, 99, palette.body, 4)
    canvas.box(56, 76, 61, 82, palette.ink, 1.5)
    for x in (54, 66):
        canvas.box(x, 80, x + 1.6, 99, palette.ink)
    canvas.box(24, 70, 48, 102, palette.ink, 1)
    canvas.box(21, 67, 51, 71, palette.ink, 1)
    canvas.box(29, 76, 42, 87, palette.shine, 1)
    canvas.polygon(((80, 98), (90, 108), (76, 108), (76, 98)), palette.ink)
    canvas.box(22, 99, 82, 103, palette.ink)
    canvas.box(14, 109.5, 92, FOOT + 0.5, palette.ink)
    for x, radius in ((32, 8.2), (50, 6.2), (63, 6.2), (75, 5.0)):
        middle = (x, 109.6 - radius)
        canvas.disc(middle, radius, palette.ink)
        canvas.disc(middle, radius - 1.7, palette.shine)
        canvas.disc(middle, radius - 3.0, palette.body)
        canvas.disc(middle, 1.3, palette.ink)


def letter(canvas: Canvas, palette: Palette) -> None:
    canvas.box(27, 48, 73, 92, palette.ink, 1)
    canvas.box(28.5, 49.5, 71.5, 92, palette.paper, 0.5)
    for row in range(4):
        canvas.line([(34, 56 + row * 5), (66 - 9 * (row == 3), 56 + row * 5)], palette.far, 1.1)
    canvas.box(20, 70, 80, FOOT - 3, palette.ink, 2)
    canvas.box(21.6, 71.6, 78.4, FOOT - 4.6, palette.shine, 1)
    canvas.polygon(((21.6, 106), (44, 90), (56, 90), (78.4, 106)), palette.body)
    canvas.polygon(((21, 71), (50, 97), (79, 71)), palette.ink)
    canvas.polygon(((23, 71.2), (50, 95), (77, 71.2)), palette.shine)
    canvas.disc((50, 92), 6.6, palette.ink)
    canvas.disc((50, 92), 5.4, palette.body)
    canvas.polygon(star((50, 92), 3.4, 1.4, 5), palette.shine)


def mirror(canvas: Canvas, palette: Palette) -> None:
    canvas.polygon(((47.4, 86), (52.6, 86), (54, 106), (46, 106)), palette.ink)
    canvas.disc((50, FOOT - 3), 17, palette.ink, 4)
    canvas.disc((50, 66), 21.5, palette.ink, 27)
    for bead in range(24):
        x, y = around((0, 0), 1, bead * 15)
        canvas.disc((50 + 21.5 * x, 66 + 27 * y), 1.7, palette.body)
    canvas.disc((50, 66), 18, palette.body, 23.4)
    canvas.disc((50, 66), 16.4, palette.shine, 21.8)
    for start, thick in ((36, 4.0), (43.5, 1.6)):
        canvas.line([(start, 70), (start + 14, 54)], palette.paper, thick)
        canvas.line([(start + 2, 79), (start + 17, 62)], palette.paper, thick * 0.6)
    canvas.polygon(star((50, 37), 5, 2.2, 4), palette.ink)


def orchard(canvas: Canvas, palette: Palette) -> None:
    for x, size in ((23, 0.52), (78, 0.6), (50, 1.0)):
        tree(canvas, palette, x, size)


def tree(canvas: Canvas, palette: Palette, x: float, size: float) -> None:
    top = FOOT - 36 * size
    trunk = ((x - 3.6 * size, FOOT), (x - 1.8 * size, top), (x + 1.8 * size, top), (x + 3.6 * size, FOOT))
    canvas.polygon(trunk, palette.ink)
    crown = ((0, -19, 15), (-13, -8, 12), (13, -9, 12), (-6, -2, 11), (7, -2, 11))
    for colour, edge in ((palette.ink, 1.2), (palette.body, 0.0)):
        for dx, dy, radius in crown:
            canvas.disc((x + dx * size, top + dy * size), (radius + edge) * size, colour)
    for dx, dy in ((-14, -10), (-4, -24), (8, -20), (14, -6), (1, -9), (-8, 2), (8, 3)):
        canvas.disc((x + dx * size, top + dy * size), 2.7 * size, palette.shine)


def school(canvas: Canvas, palette: Palette) -> None:
    canvas.box(18, 82, 82, FOOT, palette.body)
    canvas.box(15, 79, 85, 83, palette.ink)
    canvas.polygon(((50, 62), (74, 79), (26, 79)), palette.ink)
    canvas.box(42, 44, 58, 80, palette.body)
    canvas.polygon(((50, 31), (60, 45), (40, 45)), palette.ink)
    canvas.box(40, 44.5, 60, 47, palette.ink)
    canvas.disc((50, 56), 6.4, palette.ink)
    canvas.disc((50, 56), 5.2, palette.paper)
    canvas.line([(50, 56), (50, 52.4)], palette.ink, 0.9)
    canvas.line([(50, 56), (53, 57.4)], palette.ink, 0.9)
    for x in (27, 73):
        canvas.disc((x, 93), 5, palette.shine)
        canvas.box(x - 5, 93, x + 5, 103, palette.shine)
        canvas.box(x - 0.5, 88, x + 0.5, 103, palette.ink)
    canvas.disc((50, 93), 9, palette.ink)
    canvas.box(41, 93, 59, FOOT, palette.ink)
    canvas.disc((50, 94), 6.6, palette.shine)
    canvas.box(43.4, 94, 56.6, FOOT, palette.shine)
    canvas.box(49.3, 88, 50.7, FOOT, palette.ink)


def compass(canvas: Canvas, palette: Palette) -> None:
    middle = (50.0, 77.0)
    canvas.ring((50, 46), 4.6, palette.ink, 1.8)
    canvas.disc(middle, 29, palette.ink)
    canvas.disc(middle, 26.4, palette.shine)
    canvas.ring(middle, 24.6, palette.body, 0.8)
    for tick in range(24):
        start, end = around(middle, 24.6, tick * 15), around(middle, 22.0 if tick % 2 else 20.4, tick * 15)
        canvas.line([start, end], palette.ink, 0.7)
    canvas.polygon(star(middle, 12.5, 4.6, 4, -45), palette.body)
    for turn in range(-90, 270, 90):
        tip, left, right = (around(middle, 21, turn), around(middle, 4.8, turn - 45), around(middle, 4.8, turn + 45))
        canvas.polygon((middle, tip, left), palette.ink)
        canvas.polygon((middle, tip, right), palette.body)
    canvas.disc(middle, 3.0, palette.ink)
    canvas.disc(middle, 1.4, palette.paper)


def island(canvas: Canvas, palette: Palette) -> None:
    canvas.disc((50, FOOT + 4), 32, palette.ink, 15)
    canvas.disc((46, FOOT + 3), 24, palette.body, 10.5)
    palm(canvas, palette, [(56 + 4 * step**2 / 64, 101 - 50 * step / 8) for step in range(9)], 1.0)
    palm(canvas, palette, [(44 - 9 * step**2 / 64, 101 - 33 * step / 8) for step in range(9)], 0.78)
    for y, reach in ((108.5, 40), (112, 34)):
        canvas.line([(50 - reach, y), (62 - reach, y)], palette.shine, 0.9)
        canvas.line([(38 + reach, y), (50 + reach, y)], palette.shine, 0.9)


def palm(canvas: Canvas, palette: Palette, trunk: Sequence[Point], size: float) -> None:
    """A trunk from its foot up, with fronds that hang down and three nuts."""
    canvas.line(trunk, palette.ink, 2.8 * size)
    (x, y), light, dark = trunk[-1], palette.body, palette.ink
    for turn, colour in ((-168, light), (-128, dark), (-90, light), (-52, dark), (-12, light), (24, dark), (156, dark)):
        right, down = around((0, 0), size, turn)
        upper = [(x + 19 * right * part, y + 13.7 * down * part + 11 * size * part**2) for part in SIXTHS]
        lower = [
            (x, y + 4.6 * size * (1 - abs(2 * part - 1)) + 0.6) for part, (x, y) in zip(SIXTHS, upper, strict=True)
        ]
        canvas.polygon([*upper, *reversed(lower)], colour)
    for turn in (50, 100, 150):
        canvas.disc(around((x, y), 3 * size, turn), 1.8 * size, palette.shine)


def notes(canvas: Canvas, palette: Palette) -> None:
    for row in range(5):
        staff = [(x, 63 + row * 7.5 - 9 * ((x - 50) / 40) ** 3) for x in range(10, 91, 2)]
        canvas.line(staff, palette.body, 1.0)
    for left, top, drop in ((25.0, 50.0, 41.0), (60.0, 41.0, 37.0)):
        right = left + 20
        canvas.polygon(((left - 1, top), (right + 1, top - 4), (right + 1, top + 3), (left - 1, top + 7)), palette.ink)
        for x, y in ((left, top + drop), (right, top + drop - 4)):
            canvas.line([(x, top + 3), (x, y)], palette.ink, 2.2)
            canvas.disc((x - 5, y + 0.6), 6.8, palette.ink, 5.2)
            canvas.disc((x - 6.4, y - 1.0), 2.4, palette.shine, 1.3)


MOTIFS: Mapping[str, Motif] = {
    "Lantern": lantern,
    "Garden": garden,
    "Engine": engine,
    "Stamp": letter,
    "Mirror": mirror,
    "Fruit": orchard,
    "School": school,
    "North": compass,
    "Palm": island,
    "Music": notes,
}
