"""Naming colours: plain cases by hand, the colour space against figures published for it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pictures import BLACK, RED, WHITE, flat

from mllmrec.vision.measurements import COLOURS, SHADES, colour_cells, oklab, shares, tint


def named(colour: tuple[int, int, int]) -> str:
    found = shares(colour_cells(flat(colour, 2, 2)))
    return next(name for name, share in found.items() if share == 1)


@pytest.mark.parametrize(
    ("srgb", "expected"),
    [
        ((1, 1, 1), (1.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        # Lightness, chroma and hue of the primaries as CSS Color 4 gives them for oklch().
        ((1, 0, 0), (0.62796, 0.25768 * math.cos(math.radians(29.234)), 0.25768 * math.sin(math.radians(29.234)))),
        ((0, 1, 0), (0.86644, 0.29483 * math.cos(math.radians(142.495)), 0.29483 * math.sin(math.radians(142.495)))),
        ((0, 0, 1), (0.45201, 0.31321 * math.cos(math.radians(264.052)), 0.31321 * math.sin(math.radians(264.052)))),
    ],
)
def test_oklab_of_known_colours(srgb: tuple[float, ...], expected: tuple[float, ...]) -> None:
    assert oklab(np.array(srgb, dtype=float)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        (BLACK, "black"),
        (WHITE, "white"),
        (RED, "red"),
        ((0, 255, 0), "green"),
        ((0, 0, 255), "blue"),
        ((255, 255, 0), "yellow"),
        ((255, 0, 255), "magenta"),
        ((0, 255, 255), "turquoise"),
        ((255, 128, 0), "orange"),
        ((128, 0, 128), "purple"),
        ((0, 0, 80), "dark blue"),
        ((128, 0, 0), "dark red"),
        ((0, 128, 128), "teal"),
        ((128, 128, 0), "olive"),
        ((128, 128, 128), "grey"),
        ((64, 64, 64), "dark grey"),
        ((192, 192, 192), "light grey"),
        ((255, 192, 203), "pink"),
        ((139, 90, 43), "brown"),
        ((245, 245, 220), "cream"),
        ((135, 206, 235), "light blue"),
        ((218, 165, 32), "gold"),
    ],
)
def test_plain_colours_have_their_plain_names(colour: tuple[int, int, int], name: str) -> None:
    assert named(colour) == name


def test_every_shade_is_called_by_its_own_name() -> None:
    for name, shades in SHADES.items():
        for shade in shades:
            assert named((int(shade[1:3], 16), int(shade[3:5], 16), int(shade[5:7], 16))) == name


def test_greys_have_no_tint() -> None:
    for level in range(256):
        chroma, warmth = tint(colour_cells(flat((level, level, level), 2, 2)))
        assert (chroma, warmth) == (0, 0)
        assert named((level, level, level)) in {"black", "dark grey", "grey", "light grey", "white"}


def test_shares_are_counted() -> None:
    picture = flat(WHITE, 10, 10)
    picture[:3] = RED
    picture[3] = BLACK
    found = shares(colour_cells(picture))
    assert {name: share for name, share in found.items() if share} == {"black": 0.1, "white": 0.6, "red": 0.3}
    assert tuple(found) == COLOURS


def test_red_and_orange_are_warm_and_blue_is_cool() -> None:
    warmth = {
        name: tint(colour_cells(flat(colour, 2, 2)))[1]
        for name, colour in {"red": RED, "orange": (255, 128, 0), "blue": (0, 0, 255), "sky": (100, 170, 230)}.items()
    }
    assert min(warmth["red"], warmth["orange"]) > 0.15
    assert max(warmth["blue"], warmth["sky"]) < -0.07


def test_half_the_colour_is_half_the_chroma() -> None:
    half = flat((128, 128, 128), 4, 4)
    half[:2] = RED
    assert tint(colour_cells(half))[0] == pytest.approx(tint(colour_cells(flat(RED, 4, 4)))[0] / 2)


def images() -> st.SearchStrategy[NDArray[np.uint8]]:
    sizes = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
    return sizes.map(lambda size: np.random.default_rng(size[2]).integers(0, 256, (*size[:2], 3), dtype=np.uint8))


@given(images())
@settings(max_examples=50, deadline=None)
def test_shares_sum_to_one_and_forget_where_pixels_are(picture: NDArray[np.uint8]) -> None:
    found = shares(colour_cells(picture))
    assert sum(found.values()) == pytest.approx(1)
    assert shares(colour_cells(picture[::-1, ::-1])) == found
    assert tint(colour_cells(picture[::-1])) == tint(colour_cells(picture))
