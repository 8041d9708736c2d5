"""The colours of the posters, one palette for each tint.

Sky and ground take most of a poster, and whatever the place and the thing, the colour that takes most of it has a name
of its own in each palette, so that a captioner that begins with the main colour tells all of them apart in two words.
"""

from __future__ import annotations

from typing import NamedTuple


class Palette(NamedTuple):
    """`sky` and `far` fade upwards; `disc` is the sun or the moon, `near` and `ground` are what stands on the earth.

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
