"""The colours of the posters: each theme has a palette for daylight and one for night.

Sky and ground take most of a poster, and no two palettes come to the same two colours by name, the larger one first, so
that a captioner that names colours tells all of them apart.
"""

from __future__ import annotations

from typing import NamedTuple

from mllmrec.demo.world import DAY, NIGHT


class Palette(NamedTuple):
    """`sky` and `far` fade upwards; `disc` is the sun or the moon, `near` and `ground` are what stands on the earth.

    The thing itself is drawn in `ink` (its shape), `body` and `shine` (its lights); `paper` is the lettering.
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


PALETTES: dict[tuple[str, str], Palette] = {
    ("Amber", DAY): Palette(
        ("#c8921a", "#dcac3c"), "#fbf0cf", "#b98a3c", "#94622f", "#704524", "#43240f", "#b0651c", "#f2bd4a", "#fbf0cf"
    ),
    ("Amber", NIGHT): Palette(
        ("#3c2210", "#6c4424"), "#e0ac3a", "#553318", "#3a2110", "#24130a", "#1c0f08", "#7c4c20", "#f7d27a", "#f0c766"
    ),
    ("Cobalt", DAY): Palette(
        ("#74b0e4", "#b0d6f2"), "#ffffff", "#4c88d4", "#2660c4", "#1a44a4", "#0e2668", "#2a62c8", "#dcecfa", "#f4f9ff"
    ),
    ("Cobalt", NIGHT): Palette(
        ("#0c1644", "#1a2a66"), "#b4d2f4", "#1c3c94", "#1a3c9c", "#102a78", "#060c2a", "#2450b4", "#cfe2fa", "#bcd8f8"
    ),
    ("Willow", DAY): Palette(
        ("#a6d43c", "#c8e27c"), "#fbf8dc", "#74b848", "#3f9a3c", "#2a7c34", "#153c1c", "#3c8c34", "#eef4a8", "#fbf8dc"
    ),
    ("Willow", NIGHT): Palette(
        ("#0f3018", "#244c2e"), "#cfe48c", "#1c4426", "#15381e", "#0c2413", "#081a0d", "#2c6434", "#dcf09c", "#cfe48c"
    ),
    ("Granite", DAY): Palette(
        ("#b2b6ba", "#d2d4d6"), "#fafafa", "#94989c", "#74787c", "#585c60", "#282a2c", "#6e7276", "#f2f2f2", "#fafafa"
    ),
    ("Granite", NIGHT): Palette(
        ("#303234", "#4c5054"), "#c6cacc", "#3c4043", "#323537", "#2b2d2f", "#0c0c0d", "#5a5f62", "#dcdfe0", "#c6cacc"
    ),
    ("Velvet", DAY): Palette(
        ("#ec94ac", "#f4b4c4"), "#fff0e6", "#dc5490", "#c82c80", "#a01864", "#5a0c3c", "#c82c80", "#ffd9e4", "#fff0e6"
    ),
    ("Velvet", NIGHT): Palette(
        ("#3c144e", "#642882"), "#f0a4bc", "#562070", "#44165c", "#2a0c3c", "#1c0828", "#7c3ca0", "#f8c8d8", "#f0a4bc"
    ),
    ("Comet", DAY): Palette(
        ("#a48ccc", "#e8b8a4"), "#fff8ee", "#8c88b4", "#6c7c98", "#506484", "#2c3450", "#70688c", "#fbe6d2", "#fff4e6"
    ),
    ("Comet", NIGHT): Palette(
        ("#06060c", "#14141c"), "#f6e27c", "#1c1c24", "#2c2c34", "#0c0c12", "#08080c", "#5c5434", "#fff4b8", "#f6e27c"
    ),
    ("Harbor", DAY): Palette(
        ("#54cccc", "#a0e4e0"), "#ffffff", "#44aaac", "#248c8e", "#146c70", "#0c3c40", "#1c7c80", "#eafaf8", "#ffffff"
    ),
    ("Harbor", NIGHT): Palette(
        ("#0c3e42", "#186468"), "#8cdcd8", "#104a4e", "#0c3438", "#062024", "#041619", "#1c7074", "#c4f2ee", "#8cdcd8"
    ),
    ("Saffron", DAY): Palette(
        ("#ec7c20", "#f8a848"), "#fae04c", "#d85c20", "#c84018", "#a02c14", "#5c140c", "#d0481c", "#fdeea0", "#fdeea0"
    ),
    ("Saffron", NIGHT): Palette(
        ("#480e12", "#84181c"), "#f09038", "#64141a", "#480e12", "#2c080c", "#200608", "#a8281c", "#fbc070", "#f4a04c"
    ),
}
