"""The captioner without weights: it measures an image and says what it measured.

It knows colours, light and shapes and nothing of what is shown: no people, no places, no mood. That makes it quick, the
same on every machine, and a control: what a recommender gains from captions that name things has to be more than what
it gains from these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mllmrec.vision.colours import colour_cells, shares, tint
from mllmrec.vision.composition import composition
from mllmrec.vision.wording import Measured, Taken, sentence

if TYPE_CHECKING:
    from numpy.typing import NDArray

WRITER, VERSION = "pixels", "2026-11.1"
ABOUT = "image statistics put into words; no model has looked at the images"
WORKING_PIXELS = 128 * 192
"""The size to which images are brought first: lengths in the measurements belong to it."""
RIM_PART = 24


def anything_goes(_words: str) -> bool:
    return False


def describe(rgb: NDArray[np.uint8], taken: Taken = anything_goes) -> str:
    """One sentence of at most 50 words on a (height, width, 3) image of at most about WORKING_PIXELS.

    `taken` tells whether a text says what must not be said; only then does the sentence go around it.

    >>> describe(np.full((192, 128, 3), (255, 0, 0), dtype=np.uint8))
    'Red (100%) makes a dark, warm, vivid image of no contrast and no detail, symmetric, evenly lit.'
    """
    measured = measure(rgb)
    usual = sentence(measured, anything_goes)
    return sentence(measured, taken) if taken(usual) else usual


def measure(rgb: NDArray[np.uint8]) -> Measured:
    cells = colour_cells(rgb)
    height, width = cells.shape
    third, rim = -(-height // 3), max(1, min(height, width) // RIM_PART)
    sides = (cells[:rim], cells[-rim:], cells[:, :rim], cells[:, -rim:])
    chroma, warmth = tint(cells)
    return Measured(
        whole=shares(cells),
        rim=shares(np.concatenate([side.ravel() for side in sides])),
        above=shares(cells[:third]),
        below=shares(cells[-third:]),
        chroma=chroma,
        warmth=warmth,
        shapes=composition(rgb),
    )
