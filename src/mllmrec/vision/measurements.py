"""What is measured of an image: its colours by name, and how light and shapes lie over it.

Every pixel gets the nearest of a few plain names of colours, and the names are counted. Distances are measured in
OKLab, where equal distances look about equally different (Ottosson 2020, https://bottosson.github.io/posts/oklab).
Lightness counts half, because a shadow on a red coat is still red. Clusters learned from each image would fit that
image better, but a name has to mean the same in every caption for captions to be comparable; and a table of 32,768
named cells gives the same names on every machine.

Brightness, contrast, detail, symmetry, bright fields and lettering are computed from luma (Rec. 601, 0 to 255 as
displays show it), in whole numbers wherever a threshold follows. Lettering is recognized by its look alone: bands of
blocks in two tones that change many times along a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHADES: dict[str, tuple[str, ...]] = {
    "black": ("#000000", "#141414"),
    "dark grey": ("#333333",),
    "grey": ("#606060", "#858585"),
    "light grey": ("#b4b4b4",),
    "white": ("#ffffff", "#e6e6e6"),
    "cream": ("#f5ecd0",),
    "beige": ("#d8c3a0",),
    "tan": ("#b58f66",),
    "brown": ("#7a5030", "#4a2c16"),
    "dark red": ("#5c1418",),
    "red": ("#c01820", "#e8302c"),
    "orange": ("#e8741c", "#f59a40"),
    "peach": ("#eab594",),
    "pink": ("#f0a0b4", "#e0708c"),
    "magenta": ("#c8207c", "#e040a8"),
    "gold": ("#c8961c",),
    "yellow": ("#f8dc28", "#f4e884"),
    "olive": ("#6c6420", "#908c40"),
    "green": ("#2c8c34", "#58b848", "#00f000"),
    "dark green": ("#143c1c", "#2c5434"),
    "lime": ("#a8d838",),
    "teal": ("#14585c", "#289090"),
    "turquoise": ("#48c8c8", "#90dcd8"),
    "light blue": ("#64a8e0", "#a8d0f0"),
    "blue": ("#1c48b0", "#2c6cd0"),
    "dark blue": ("#101c50", "#1c2c48"),
    "slate blue": ("#506880", "#7890a8"),
    "purple": ("#582070", "#7c3ca0"),
    "lilac": ("#b098d0",),
}
"""Names and the sRGB shades that each stands for."""
COLOURS = tuple(SHADES)

Shares = dict[str, float]

LEVELS = 32
LIGHTNESS_WEIGHT = 0.5
WARM_DIRECTION = (0.75, 0.66)
"""The direction from grey to orange on OKLab's axes green-red and blue-yellow."""
GRID = 24
"""Cells along each side of the coarse image from which symmetry and bright fields are computed."""
THIRDS = 3
EDGE_STEP = 20
FLAT_SPREAD = 2.0
# A block of lettering: its size, the spread of its luma, the share of pixels near its two tones, changes along a row.
BLOCK_HEIGHT, BLOCK_WIDTH = 8, 32
TEXT_SPREAD, TEXT_TWO_TONE, TEXT_CHANGES = 72, 0.6, 3.5
TEXT_RUN = 3
"""Half-overlapping blocks in a row that make a line: 64 pixels."""


@dataclass(frozen=True, kw_only=True)
class ColourTable:
    """For each of 32 x 32 x 32 cells of sRGB: the index of its name, and in thousandths its chroma (at most 322) and
    its warmth (the part of the chroma that points to orange; negative where it points to blue).

    Whole numbers, because their sums are the same in any order and on any machine.
    """

    name_index: NDArray[np.uint8]
    chroma: NDArray[np.int16]
    warmth: NDArray[np.int16]


def colour_cells(rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
    """The index of the table's cell (...) for each pixel (..., 3)."""
    level = (rgb >> 3).astype(np.int32)
    cells: NDArray[np.int32] = (level[..., 0] * LEVELS + level[..., 1]) * LEVELS + level[..., 2]
    return cells


def shares(cells: NDArray[np.int32]) -> Shares:
    """The share of each colour, in the order of COLOURS and summing to 1.

    >>> shares(colour_cells(np.full((4, 4, 3), (255, 0, 0), dtype=np.uint8)))["red"]
    1.0
    """
    counts = np.bincount(colour_table().name_index[cells.ravel()], minlength=len(COLOURS))
    return {name: count / cells.size for name, count in zip(COLOURS, counts.tolist(), strict=True)}


def tint(cells: NDArray[np.int32]) -> tuple[float, float]:
    """Mean chroma, in [0, 0.322], and mean warmth, in OKLab's unit."""
    table = colour_table()
    chroma, warmth = (int(values[cells].sum()) / cells.size / 1000 for values in (table.chroma, table.warmth))
    return chroma, warmth


@lru_cache(maxsize=1)
def colour_table() -> ColourTable:
    """The table of all cells, computed once."""
    steps = np.arange(LEVELS) / (LEVELS - 1)
    lab = oklab(np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3))
    owners = [index for index, shades in enumerate(SHADES.values()) for _ in shades]
    shades = oklab(np.array([_components(shade) for shades in SHADES.values() for shade in shades]))
    weights = np.array([LIGHTNESS_WEIGHT, 1.0, 1.0])
    distances = (((lab[:, None] - shades) * weights) ** 2).sum(axis=-1)
    return ColourTable(
        name_index=np.array(owners, dtype=np.uint8)[distances.argmin(axis=1)],
        chroma=np.rint(np.hypot(lab[:, 1], lab[:, 2]) * 1000).astype(np.int16),
        warmth=np.rint(lab[:, 1:] @ np.array(WARM_DIRECTION) * 1000).astype(np.int16),
    )


def oklab(srgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB components (..., 3) in [0, 1] as OKLab (..., 3): lightness in [0, 1], green-red, blue-yellow."""
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_cones = [
        [0.4122214708, 0.2119034982, 0.0883024619],
        [0.5363325363, 0.6806995451, 0.2817188376],
        [0.0514459929, 0.1073969566, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 1.9779984951, 0.0259040371],
        [0.7936177850, -2.4285922050, 0.7827717662],
        [-0.0040720468, 0.4505937099, -0.8086757660],
    ]
    lab: NDArray[np.float64] = np.cbrt(linear @ np.array(to_cones)) @ np.array(to_lab)
    return lab


def _components(shade: str) -> list[float]:
    return [int(shade[at : at + 2], 16) / 255 for at in (1, 3, 5)]


@dataclass(frozen=True, kw_only=True)
class Composition:
    """`brightness` and `contrast` are mean and standard deviation of luma, as shares of its range; `detail` is the
    share of pixels on an edge; `symmetry` the correlation of the image with its mirror image, left for right, in
    [-1, 1]; `light` the mean luma of 3 x 3 fields in [0, 1], from the upper left; `text` is whether each third, from
    the top, holds something like lettering."""

    brightness: float
    contrast: float
    detail: float
    symmetry: float
    light: tuple[tuple[float, ...], ...]
    text: tuple[bool, ...]


def composition(rgb: NDArray[np.uint8]) -> Composition:
    """Measure an RGB image (height, width, 3); its lengths are meant for images of about 25,000 pixels."""
    luma = _luma(rgb)
    coarse = _coarse(luma)
    fields = coarse.reshape(THIRDS, GRID // THIRDS, THIRDS, GRID // THIRDS).mean(axis=(1, 3)) / 255
    return Composition(
        brightness=int(luma.sum()) / luma.size / 255,
        contrast=_deviation(luma) / 255,
        detail=_detail(luma),
        symmetry=_symmetry(coarse),
        light=tuple(tuple(row) for row in fields.tolist()),
        text=_text_thirds(luma),
    )


def _luma(rgb: NDArray[np.uint8]) -> NDArray[np.int16]:
    red, green, blue = (rgb[..., channel].astype(np.int32) for channel in range(3))
    luma: NDArray[np.int16] = ((77 * red + 150 * green + 29 * blue) >> 8).astype(np.int16)
    return luma


def _deviation(luma: NDArray[np.int16]) -> float:
    total, squares = int(luma.sum()), int((luma.astype(np.int64) ** 2).sum())
    return math.sqrt(luma.size * squares - total**2) / luma.size


def _coarse(luma: NDArray[np.int16]) -> NDArray[np.float64]:
    """The image as GRID x GRID means; a smaller image repeats its pixels."""
    for axis in (0, 1):
        size = luma.shape[axis]
        if size < GRID:
            luma = luma.take(np.arange(GRID) * size // GRID, axis=axis)
    rows, columns = ([index * size // GRID for index in range(GRID)] for size in luma.shape)
    sums = np.add.reduceat(np.add.reduceat(luma, rows, axis=0, dtype=np.int64), columns, axis=1)
    heights, widths = (np.diff([*starts, size]) for starts, size in zip((rows, columns), luma.shape, strict=True))
    means: NDArray[np.float64] = sums / np.outer(heights, widths)
    return means


def _detail(luma: NDArray[np.int16]) -> float:
    """The share of pixels that differ clearly from their right or lower neighbour."""
    edges = np.zeros(luma.shape, dtype=bool)
    edges[:, :-1] |= np.abs(np.diff(luma, axis=1)) > EDGE_STEP
    edges[:-1] |= np.abs(np.diff(luma, axis=0)) > EDGE_STEP
    return float(edges.mean())


def _symmetry(coarse: NDArray[np.float64]) -> float:
    away = coarse - coarse.mean()
    variance = float((away * away).mean())
    return float((away * away[:, ::-1]).mean()) / variance if variance > FLAT_SPREAD**2 else 1.0


def _text_thirds(luma: NDArray[np.int16]) -> tuple[bool, ...]:
    """Whether each third of the height holds a line of lettering."""
    lines = _text_lines(luma)
    if not lines.size:
        return (False,) * THIRDS
    third_of = (np.arange(len(lines)) * BLOCK_HEIGHT + BLOCK_HEIGHT // 2) * THIRDS // len(luma)
    return tuple(bool(lines[third_of == third].any()) for third in range(THIRDS))


def _text_lines(luma: NDArray[np.int16]) -> NDArray[np.bool_]:
    """For each row of blocks, whether enough of them in succession look like lettering."""
    if luma.shape[0] < BLOCK_HEIGHT or luma.shape[1] < BLOCK_WIDTH * 2:
        return np.zeros(0, dtype=bool)
    even, odd = _text_blocks(luma), _text_blocks(luma[:, BLOCK_WIDTH // 2 :])
    blocks = np.zeros((len(even), even.shape[1] + odd.shape[1]), dtype=bool)
    blocks[:, 0::2], blocks[:, 1::2] = even, odd
    runs = np.logical_and.reduce(
        [blocks[:, start : blocks.shape[1] - TEXT_RUN + 1 + start] for start in range(TEXT_RUN)]
    )
    lines: NDArray[np.bool_] = runs.any(axis=1)
    return lines


def _text_blocks(luma: NDArray[np.int16]) -> NDArray[np.bool_]:
    """(block rows, block columns): two tones, both present, changing often along the rows."""
    rows, columns = luma.shape[0] // BLOCK_HEIGHT, luma.shape[1] // BLOCK_WIDTH
    cut = luma[: rows * BLOCK_HEIGHT, : columns * BLOCK_WIDTH]
    blocks = cut.reshape(rows, BLOCK_HEIGHT, columns, BLOCK_WIDTH).swapaxes(1, 2)
    low, high = blocks.min(axis=(2, 3), keepdims=True), blocks.max(axis=(2, 3), keepdims=True)
    bright = blocks * 2 > low + high
    quarter = (high - low) // 4
    two_tone = ((blocks < low + quarter) | (blocks > high - quarter)).mean(axis=(2, 3))
    changes = (bright[..., 1:] != bright[..., :-1]).sum(axis=(2, 3)) / BLOCK_HEIGHT
    spread = (high - low)[..., 0, 0]
    is_text: NDArray[np.bool_] = (spread > TEXT_SPREAD) & (two_tone > TEXT_TWO_TONE) & (changes > TEXT_CHANGES)
    return is_text
