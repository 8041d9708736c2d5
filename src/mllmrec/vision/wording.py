"""Putting measurements into words: one sentence of at most 50 words, the most telling part first.

    Black (60%), red (15%) and brown (10%), touched with gold, make a dark, warm, vivid image of strong contrast and
    fine detail, nearly symmetric, brightest at the upper left, with text-like marks across the top, edged in black.

Every measurement is cut into a few named levels and shares are rounded to 5 %, so that like images read alike. Colours
come first because prompts shorten captions from the end. A title may be made of these very words (`Red`): what would
spell it is said in other words, or left out.

The words of the pixel captioner: second names of colours, levels of measurements, names of places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mllmrec.vision.colours import Shares
from mllmrec.vision.composition import Composition

Taken = Callable[[str], bool]

MAX_WORDS = 50
LISTED_COLOURS, LISTED_SHARE, ACCENT_SHARE = 3, 0.04, 0.015
# A colour that holds so much of the rim or of a third is told there, unless it holds so much of the whole.
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


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Shares of colours on the whole image, along its rim, in its upper and its lower third; its tint and shapes."""

    whole: Shares
    rim: Shares
    above: Shares
    below: Shares
    chroma: float
    warmth: float
    shapes: Composition


def sentence(image: Measured, taken: Taken) -> str:
    """Say what was measured. `taken` tells which words must not be used."""
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


def _dominant(shares: Shares) -> tuple[list[str], str | None]:
    """The colours to be listed, largest first, and the largest accent beside them."""
    ranked = sorted(shares, key=lambda name: -shares[name])
    listed = [name for name in ranked[:LISTED_COLOURS] if name == ranked[0] or shares[name] >= LISTED_SHARE]
    accents = (name for name in ranked if name in ACCENTS and name not in listed and shares[name] >= ACCENT_SHARE)
    return listed, next(accents, None)


def _with_share(name: str, share: float, taken: Taken) -> str:
    """`red (15%)`, or as much of it as may be said."""
    percent = f" ({max(1, int(share * 20 + 0.5)) * 5}%)"
    other = OTHER_NAMES[name]
    return _first_free((name + percent, name, other + percent, other), taken)


def _named(saying: str, name: str | None, taken: Taken) -> str:
    return _first_free((f"{saying} {name}", f"{saying} {OTHER_NAMES[name]}", ""), taken) if name else ""


def _first_free(options: Sequence[str], taken: Taken) -> str:
    """The first that may be said; the last one where none may."""
    return next((option for option in options if not taken(option)), options[-1])


def _kind(image: Measured, taken: Taken) -> str:
    """`a dark, warm image of strong contrast and fine detail`."""
    shapes = image.shapes
    traits = (
        level(BRIGHTNESS, shapes.brightness),
        level(WARMTH, image.warmth),
        level(SATURATION, image.chroma),
    )
    adjectives = ", ".join(trait for trait in traits if trait and not taken(trait))
    contrast, detail = level(CONTRAST, shapes.contrast), level(DETAIL, shapes.detail)
    surface = (f"{contrast} contrast", "detail" if contrast == detail == "medium" else f"{detail} detail")
    of = " and ".join(trait for trait in surface if not taken(trait))
    return (f"a {adjectives} image" if adjectives else "an image") + (f" of {of}" if of else "")


def _asides(image: Measured, taken: Taken) -> Iterator[str]:
    """What else there is to say, the most telling first."""
    yield level(SYMMETRY, image.shapes.symmetry)
    yield _light(image.shapes.light)
    if lettered := [name for name, found in zip(VERTICAL, image.shapes.text, strict=True) if found]:
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
    vertical = _standing_out([sum(row) / 3 for row in fields], VERTICAL)
    horizontal = _standing_out([sum(column) / 3 for column in zip(*fields, strict=True)], HORIZONTAL)
    if vertical or horizontal:
        return f"brightest {PLACES[vertical, horizontal]}"
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


def level(levels: Levels, value: float) -> str:
    """The name of the level that `value` reaches.

    >>> level(BRIGHTNESS, 0.2), level(BRIGHTNESS, 0.75)
    ('dark', 'very bright')
    """
    return [name for begin, name in levels if value >= begin][-1]
