"""The captioner without a model: it measures an image and puts the measurements into one sentence of at most 50 words.

    Black (60%), red (15%) and brown (10%), touched with gold, make a dark, warm, vivid image of strong contrast and
    fine detail, nearly symmetric, brightest at the upper left, with text-like marks across the top, edged in black.

It knows colours, light and shapes, but not what the image shows: no people, objects or mood. That makes it fast, the
same on every machine, and a control: captions that name things have to be worth more than these.

Every measurement falls into a few named levels and shares are rounded to 5 %, so that similar images read alike.
Colours come first because prompts shorten captions from the end. A title may be one of these very words (`Red`): a
phrase that would spell it is replaced by another name, or left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mllmrec.vision.measurements import Composition, Shares, colour_cells, composition, shares, tint

if TYPE_CHECKING:
    from numpy.typing import NDArray

WRITER, VERSION = "pixels", "2026-11.1"
ABOUT = "image statistics put into words; no model has looked at the images"
WORKING_PIXELS = 128 * 192
"""The size to which images are reduced first; the lengths in the measurements are relative to it."""
RIM_PART = 24

Taken = Callable[[str], bool]

MAX_WORDS = 50
LISTED_COLOURS, LISTED_SHARE, ACCENT_SHARE = 3, 0.04, 0.015
# A colour is named for the rim or a third where its share there is at least this, and below WHOLE_SHARE in the whole.
RIM_SHARE, THIRD_SHARE, WHOLE_SHARE = 0.6, 0.4, 0.9
# Differences of mean brightness between fields of the image, in its range.
EVEN_LIGHT, LEAD, CENTRE_LEAD = 0.12, 0.05, 0.1

Levels = Sequence[tuple[float, str]]

OTHER_NAMES = {
    "black": "jet",
    "dark grey": "charcoal",
    "grey": "ash",
    "light grey": "silver",
    "white": "snow",
    "cream": "ivory",
    "beige": "sand",
    "tan": "camel",
    "brown": "chestnut",
    "dark red": "maroon",
    "red": "scarlet",
    "orange": "tangerine",
    "peach": "apricot",
    "pink": "rose",
    "magenta": "fuchsia",
    "gold": "amber",
    "yellow": "lemon",
    "olive": "khaki",
    "green": "emerald",
    "dark green": "pine",
    "lime": "chartreuse",
    "teal": "petrol",
    "turquoise": "cyan",
    "light blue": "azure",
    "blue": "cobalt",
    "dark blue": "navy",
    "slate blue": "steel",
    "purple": "violet",
    "lilac": "lavender",
}
"""The name of a colour where its usual name must not be used."""

ACCENTS = frozenset(
    {"red", "orange", "pink", "magenta", "gold", "yellow", "green", "lime", "teal", "turquoise", "light blue", "blue"}
    | {"purple", "lilac"}
)
"""Colours that are named even where their share is small."""

# Each level begins at its number; an empty name is left out.
BRIGHTNESS: Levels = ((0, "very dark"), (0.15, "dark"), (0.35, "mid-toned"), (0.55, "bright"), (0.75, "very bright"))
WARMTH: Levels = ((-1, "cool"), (-0.012, ""), (0.025, "warm"))
SATURATION: Levels = ((0, "colourless"), (0.012, "muted"), (0.035, ""), (0.085, "vivid"))
CONTRAST: Levels = ((0, "no"), (0.02, "soft"), (0.2, "medium"), (0.3, "strong"))
DETAIL: Levels = ((0, "no"), (0.005, "little"), (0.2, "medium"), (0.32, "fine"))
SYMMETRY: Levels = ((-1, "lopsided"), (0.1, ""), (0.65, "nearly symmetric"), (0.9, "symmetric"))

ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
POSITIONS = {
    ("top", "left"): "at the upper left",
    ("top", "centre"): "at the top centre",
    ("top", "right"): "at the upper right",
    ("top", ""): "at the top",
    ("middle", "left"): "at the left",
    ("middle", "centre"): "in the centre",
    ("middle", "right"): "at the right",
    ("middle", ""): "across the middle",
    ("bottom", "left"): "at the lower left",
    ("bottom", "centre"): "at the bottom centre",
    ("bottom", "right"): "at the lower right",
    ("bottom", ""): "at the bottom",
    ("", "left"): "down the left",
    ("", "centre"): "down the centre",
    ("", "right"): "down the right",
}


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Shares of colours in the whole image, its rim, its upper and its lower third; its tint and composition."""

    whole: Shares
    rim: Shares
    above: Shares
    below: Shares
    chroma: float
    warmth: float
    shapes: Composition


def anything_goes(_words: str) -> bool:
    """The `taken` of a caption without forbidden words."""
    return False


def describe(rgb: NDArray[np.uint8], taken: Taken = anything_goes) -> str:
    """One sentence of at most 50 words on an RGB image (height, width, 3) of at most about WORKING_PIXELS.

    `taken(text)` is whether the text must not be used, as it spells a title; other words are chosen only then.

    >>> describe(np.full((192, 128, 3), (255, 0, 0), dtype=np.uint8))
    'Red (100%) makes a dark, warm, vivid image of no contrast and no detail, symmetric, evenly lit.'
    """
    measured = measure(rgb)
    usual = sentence(measured, anything_goes)
    return sentence(measured, taken) if taken(usual) else usual


def measure(rgb: NDArray[np.uint8]) -> Measurements:
    """Measure an RGB image (height, width, 3)."""
    cells = colour_cells(rgb)
    height, width = cells.shape
    third, rim = -(-height // 3), max(1, min(height, width) // RIM_PART)
    sides = (cells[:rim], cells[-rim:], cells[:, :rim], cells[:, -rim:])
    chroma, warmth = tint(cells)
    return Measurements(
        whole=shares(cells),
        rim=shares(np.concatenate([side.ravel() for side in sides])),
        above=shares(cells[:third]),
        below=shares(cells[-third:]),
        chroma=chroma,
        warmth=warmth,
        shapes=composition(rgb),
    )


def sentence(image: Measurements, taken: Taken) -> str:
    """The measurements as a sentence, without texts for which `taken` is true."""
    listed, accent = _dominant(image.whole)
    colours = series([_with_share(name, image.whole[name], taken) for name in listed])
    touch = _named("touched with", accent, taken)
    subject = f"{colours}, {touch}," if touch else colours
    text = f"{subject} {'make' if len(listed) > 1 else 'makes'} {_kind(image, taken)}"
    for aside in _asides(image, taken):
        if aside and not taken(aside) and len(f"{text} {aside}".split()) <= MAX_WORDS:
            text += f", {aside}"
    return f"{text[0].upper()}{text[1:]}."


def series(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`.

    >>> series(["top", "middle", "bottom"])
    'top, middle and bottom'
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def level(levels: Levels, value: float) -> str:
    """The name of the level that `value` reaches.

    >>> level(BRIGHTNESS, 0.2), level(BRIGHTNESS, 0.75)
    ('dark', 'very bright')
    """
    return [name for begin, name in levels if value >= begin][-1]


def _dominant(shares: Shares) -> tuple[list[str], str | None]:
    """The colours to be listed, largest first, and the largest accent beside them."""
    ranked = sorted(shares, key=lambda name: -shares[name])
    listed = [name for name in ranked[:LISTED_COLOURS] if name == ranked[0] or shares[name] >= LISTED_SHARE]
    accents = (name for name in ranked if name in ACCENTS and name not in listed and shares[name] >= ACCENT_SHARE)
    return listed, next(accents, None)


def _with_share(name: str, share: float, taken: Taken) -> str:
    """`red (15%)`, or the first of its alternatives that isn't taken."""
    percent = f" ({max(1, int(share * 20 + 0.5)) * 5}%)"
    other = OTHER_NAMES[name]
    return _first_free((name + percent, name, other + percent, other), taken)


def _named(phrase: str, name: str | None, taken: Taken) -> str:
    return _first_free((f"{phrase} {name}", f"{phrase} {OTHER_NAMES[name]}", ""), taken) if name else ""


def _first_free(options: Sequence[str], taken: Taken) -> str:
    """The first that isn't taken; the last one where all are."""
    return next((option for option in options if not taken(option)), options[-1])


def _kind(image: Measurements, taken: Taken) -> str:
    """`a dark, warm image of strong contrast and fine detail`."""
    shapes = image.shapes
    features = (
        level(BRIGHTNESS, shapes.brightness),
        level(WARMTH, image.warmth),
        level(SATURATION, image.chroma),
    )
    adjectives = ", ".join(feature for feature in features if feature and not taken(feature))
    contrast, detail = level(CONTRAST, shapes.contrast), level(DETAIL, shapes.detail)
    surface = (f"{contrast} contrast", "detail" if contrast == detail == "medium" else f"{detail} detail")
    of = " and ".join(feature for feature in surface if not taken(feature))
    return (f"a {adjectives} image" if adjectives else "an image") + (f" of {of}" if of else "")


def _asides(image: Measurements, taken: Taken) -> Iterator[str]:
    """The further phrases, the most informative first."""
    yield level(SYMMETRY, image.shapes.symmetry)
    yield _light(image.shapes.light)
    if lettered := [name for name, has_text in zip(ROWS, image.shapes.text, strict=True) if has_text]:
        yield f"with text-like marks across the {series(lettered)}"
    above = _leading(image.above, image.whole, THIRD_SHARE)
    below = _leading(image.below, image.whole, THIRD_SHARE)
    if above and below and above != below:
        yield f"{above} above and {below} below"
    yield _named("edged in", _leading(image.rim, image.whole, RIM_SHARE), taken)


def _light(fields: Sequence[Sequence[float]]) -> str:
    """Where the brightest rows and columns of a 3 x 3 division are, if they stand out."""
    flat = [value for row in fields for value in row]
    if max(flat) - min(flat) < EVEN_LIGHT:
        return "evenly lit"
    vertical = _standing_out([sum(row) / 3 for row in fields], ROWS)
    horizontal = _standing_out([sum(column) / 3 for column in zip(*fields, strict=True)], COLUMNS)
    if vertical or horizontal:
        return f"brightest {POSITIONS[vertical, horizontal]}"
    centre = fields[1][1] - (sum(flat) - fields[1][1]) / 8
    return "brightest in the centre" if centre > CENTRE_LEAD else "lit in patches"


def _standing_out(values: Sequence[float], names: Sequence[str]) -> str:
    """The name of the largest value where it leads clearly."""
    second, first = sorted(values)[-2:]
    return names[values.index(first)] if first - second > LEAD else ""


def _leading(part: Shares, whole: Shares, share: float) -> str | None:
    """The colour that holds `share` of a part and isn't nearly all there is."""
    name = max(part, key=lambda name: part[name])
    return name if part[name] >= share and whole[name] < WHOLE_SHARE else None
