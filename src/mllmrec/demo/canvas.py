"""A canvas for posters in the manner of screen prints (flat shapes, gradients and glows), and their palettes.

Pillow draws shapes without smoothing their edges, so the canvas is several times as large as the finished poster.
Lengths are in hundredths of its width.

There is a palette for each tint. Sky and ground take most of a poster, and their main colour has a different name in
each palette, whatever the place and the thing: a captioner that begins with the main colour distinguishes all tints in
two words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont, ImageOps

WIDTH, HEIGHT, MARGIN = 100, 150, 9
SIZE = (128, 192)
FINER = 4
UNIT = SIZE[0] * FINER / WIDTH
"""Pixels of the canvas in one unit."""

Point = tuple[float, float]
Colour = str


class Palette(NamedTuple):
    """The colours of one tint, `#rrggbb`: `sky` from top to bottom, `disc` the sun or moon, `far` to `ground` the land.

    The thing itself is drawn in `ink` (its shape), `body` and `shine` (its lights); `paper` is the lettering. A `night`
    has stars.
    """

    sky: tuple[str, str]
    disc: str
    far: str
    near: str
    ground: str
    ink: str
    body: str
    shine: str
    paper: str
    night: bool = False


PALETTES: dict[str, Palette] = {
    "gold": Palette(
        ("#c8921a", "#dcac3c"), "#fbf0cf", "#c8982c", "#b88a20", "#a87816", "#43240f", "#b87c1c", "#f2bd4a", "#fbf0cf"
    ),
    "pink": Palette(
        ("#ec94ac", "#f4b4c4"), "#fff0e6", "#e884a0", "#dc6890", "#c85078", "#5a0c3c", "#dc5c84", "#ffd9e4", "#fff0e6"
    ),
    "green": Palette(
        ("#68b44c", "#98d080"), "#fbf8dc", "#5cac48", "#3f9a3c", "#2a7c34", "#153c1c", "#3c8c34", "#eef4a8", "#fbf8dc"
    ),
    "orange": Palette(
        ("#ec7c20", "#f8a848"), "#fae04c", "#e87424", "#d86c1c", "#c8601c", "#5c140c", "#dc6420", "#fdeea0", "#fdeea0"
    ),
    "navy": Palette(
        ("#0c1644", "#1a2a66"),
        "#b4d2f4",
        "#1c3c94",
        "#1a3c9c",
        "#102a78",
        "#060c2a",
        "#2450b4",
        "#cfe2fa",
        "#bcd8f8",
        night=True,
    ),
    "black": Palette(
        ("#06060c", "#14141c"),
        "#f6e27c",
        "#1c1c24",
        "#2c2c34",
        "#0c0c12",
        "#08080c",
        "#5c5434",
        "#fff4b8",
        "#f6e27c",
        night=True,
    ),
}


class Canvas:
    """The canvas; x runs from 0 to 100, y from 0 at the top to 150. Colours are written `#rrggbb`."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (SIZE[0] * FINER, SIZE[1] * FINER))
        self._draw = ImageDraw.Draw(self.image)

    def gradient(self, top: float, bottom: float, above: Colour, below: Colour) -> None:
        """Fill the rows from `top` to `bottom` with a change from one colour to the other."""
        rows = round(top * UNIT), round(bottom * UNIT)
        self.image.paste(_ramp((self.image.width, rows[1] - rows[0]), above, below), (0, rows[0]))

    def glow(self, centre: Point, radius: float, colour: Colour, strength: float) -> None:
        """Light that is `strength` (0 to 1) at the centre and fades towards `radius`."""
        side = round(2 * radius * UNIT)
        corner = round((centre[0] - radius) * UNIT), round((centre[1] - radius) * UNIT)
        self.image.paste(colour, (*corner, corner[0] + side, corner[1] + side), _light(side, strength))

    def polygon(self, points: Iterable[Point], colour: Colour) -> None:
        self._draw.polygon([(x * UNIT, y * UNIT) for x, y in points], fill=colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour, corner: float = 0) -> None:
        self._draw.rounded_rectangle(_scaled(left, top, right, bottom), radius=corner * UNIT, fill=colour)

    def disc(self, centre: Point, radius: float, colour: Colour, height: float | None = None) -> None:
        """A circle, or an ellipse `height` units high from its centre."""
        self._draw.ellipse(_around(centre, radius, height), fill=colour)

    def ring(self, centre: Point, radius: float, colour: Colour, thick: float, height: float | None = None) -> None:
        self._draw.ellipse(_around(centre, radius, height), outline=colour, width=round(thick * UNIT))

    def pie(self, centre: Point, radius: float, start: float, end: float, colour: Colour) -> None:
        """A slice of a disc, in degrees clockwise from the right."""
        self._draw.pieslice(_around(centre, radius, None), start, end, fill=colour)

    def line(self, points: Sequence[Point], colour: Colour, thick: float) -> None:
        """A line through points, with round joints and ends."""
        scaled = [(x * UNIT, y * UNIT) for x, y in points]
        self._draw.line(scaled, fill=colour, width=round(thick * UNIT), joint="curve")
        for x, y in (points[0], points[-1]):
            self.disc((x, y), thick / 2, colour)

    def arc(self, centre: Point, radius: float, start: float, end: float, colour: Colour, thick: float) -> None:
        self._draw.arc(_around(centre, radius, None), start, end, fill=colour, width=round(thick * UNIT))

    def lettering(self, text: str, middle: Point, size: float, colour: Colour, spacing: float) -> None:
        """One line of letters around `middle`, smaller where it would be wider than the canvas allows."""
        width = self._letters_width(text, size, spacing)
        shrunk = min(1.0, (WIDTH - 2 * MARGIN) / width)
        font, at = ImageFont.load_default(size * shrunk * UNIT), middle[0] - width * shrunk / 2
        for letter in text:
            self._draw.text((at * UNIT, middle[1] * UNIT), letter, fill=colour, font=font, anchor="lm")
            at += font.getlength(letter) / UNIT + spacing * shrunk

    def mirror(self) -> None:
        """Exchange left and right of what is drawn so far."""
        self.image.paste(ImageOps.mirror(self.image))

    def finished(self) -> Image.Image:
        """The poster in its final size, with smooth edges."""
        return self.image.resize(SIZE, Image.Resampling.LANCZOS)

    def _letters_width(self, text: str, size: float, spacing: float) -> float:
        font = ImageFont.load_default(size * UNIT)
        return sum(font.getlength(letter) for letter in text) / UNIT + spacing * (len(text) - 1)


def star(centre: Point, radius: float, inner: float, points: int, turn: float = -90) -> list[Point]:
    """The corners of a star, or with `inner` = `radius` of a regular polygon of twice as many corners."""
    return [
        around(centre, radius if corner % 2 == 0 else inner, turn + corner * 180 / points)
        for corner in range(2 * points)
    ]


def around(centre: Point, radius: float, degrees: float) -> Point:
    """The point at an angle, clockwise from the right."""
    angle = math.radians(degrees)
    return centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)


def wave(left: Point, right: float, height: float, length: float, phase: float = 0.0) -> list[Point]:
    """Points of a sine curve from `left` to the x `right`."""
    steps = max(2, round((right - left[0]) / 1.5))
    xs = [left[0] + (right - left[0]) * step / steps for step in range(steps + 1)]
    return [(x, left[1] - height * math.sin(2 * math.pi * (x / length + phase))) for x in xs]


def below(curve: Sequence[Point]) -> list[Point]:
    """The area between a curve and the bottom of the canvas."""
    return [*curve, (curve[-1][0], HEIGHT), (curve[0][0], HEIGHT)]


@lru_cache(maxsize=32)
def _ramp(size: tuple[int, int], above: Colour, below: Colour) -> Image.Image:
    """A change from one colour to the other; many posters share a sky."""
    return ImageOps.colorize(Image.linear_gradient("L").resize(size), above, below)


@lru_cache(maxsize=32)
def _light(side: int, strength: float) -> Image.Image:
    """The opacity of a glow at each point of its square."""
    light = ImageOps.invert(Image.radial_gradient("L")).resize((side, side))
    return light.point([strength * value * value / 255 for value in range(256)])


def _scaled(*lengths: float) -> tuple[float, float, float, float]:
    left, top, right, bottom = (length * UNIT for length in lengths)
    return left, top, right, bottom


def _around(centre: Point, radius: float, height: float | None) -> tuple[float, float, float, float]:
    (x, y), tall = centre, radius if height is None else height
    return _scaled(x - radius, y - tall, x + radius, y + tall)
