"""The words of the pixel captioner: second names of colours, levels of measurements, names of places."""

from __future__ import annotations

from collections.abc import Sequence

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
"""What a colour is called where its own name must not be used."""

ACCENTS = frozenset(
    {"red", "orange", "pink", "magenta", "gold", "yellow", "green", "lime", "teal", "turquoise", "light blue", "blue"}
    | {"purple", "lilac"}
)
"""Colours that catch the eye where there is little of them."""

# Each level begins at its number; an empty one goes without saying.
BRIGHTNESS: Levels = ((0, "very dark"), (0.15, "dark"), (0.35, "mid-toned"), (0.55, "bright"), (0.75, "very bright"))
WARMTH: Levels = ((-1, "cool"), (-0.012, ""), (0.025, "warm"))
SATURATION: Levels = ((0, "colourless"), (0.012, "muted"), (0.035, ""), (0.085, "vivid"))
CONTRAST: Levels = ((0, "no"), (0.02, "soft"), (0.2, "medium"), (0.3, "strong"))
DETAIL: Levels = ((0, "no"), (0.005, "little"), (0.2, "medium"), (0.32, "fine"))
SYMMETRY: Levels = ((-1, "lopsided"), (0.1, ""), (0.65, "nearly symmetric"), (0.9, "symmetric"))

VERTICAL, HORIZONTAL = ("top", "middle", "bottom"), ("left", "centre", "right")
PLACES = {
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


def level(levels: Levels, value: float) -> str:
    """The name of the level that `value` reaches.

    >>> level(BRIGHTNESS, 0.2), level(BRIGHTNESS, 0.75)
    ('dark', 'very bright')
    """
    return [name for begin, name in levels if value >= begin][-1]
