"""The distribution of light and shapes over an image: brightness, contrast, detail, symmetry, bright fields, lettering.

All of it is computed from luma (Rec. 601, 0 to 255 as displays show it), in whole numbers wherever a threshold follows.
Lettering is recognized by its look alone: bands of blocks in two tones that change many times along a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
