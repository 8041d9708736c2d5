"""Composition of made-up images, against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pictures import BLACK, WHITE, flat, noisy
from PIL import Image, ImageDraw, ImageFont

from mllmrec.vision.measurements import composition


def halves(left: tuple[int, int, int], right: tuple[int, int, int]) -> NDArray[np.uint8]:
    picture = flat(left)
    picture[:, 64:] = right
    return picture


def test_half_black_and_half_white() -> None:
    found = composition(halves(BLACK, WHITE))
    assert (found.brightness, found.contrast, found.symmetry) == (0.5, 0.5, -1)
    assert found.detail == 1 / 128, "one column of pixels differs from its right neighbour"
    assert found.light == ((0, 0.5, 1),) * 3
    assert not any(found.text)


@pytest.mark.parametrize("level", [0, 100, 255])
def test_an_image_in_one_grey(level: int) -> None:
    found = composition(flat((level, level, level)))
    assert found.brightness == pytest.approx(level / 255)
    assert (found.contrast, found.detail, found.symmetry, found.text) == (0, 0, 1, (False,) * 3)
    assert {value for row in found.light for value in row} == {level / 255}


def test_luma_weighs_green_most_and_blue_least() -> None:
    """Rec. 601 in 256ths: 77 + 150 + 29."""
    brightness = [composition(flat(colour)).brightness * 255 for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    assert brightness == [76, 149, 28]


def test_a_gradient_grows_brighter_without_edges() -> None:
    ramp = np.broadcast_to((np.arange(128) * 2).astype(np.uint8)[None, :, None], (192, 128, 3))
    found = composition(ramp)
    assert found.detail == 0
    assert found.symmetry == pytest.approx(-1, abs=1e-4)
    assert found.brightness == pytest.approx(127 / 255)
    assert found.contrast == pytest.approx(2 * ((128**2 - 1) / 12) ** 0.5 / 255), "a uniform distribution of 128 steps"
    top, middle, bottom = found.light
    assert top == middle == bottom
    assert top[0] < 0.2 < 0.45 < top[1] < 0.55 < 0.8 < top[2]


def test_a_picture_beside_its_mirror_image_is_symmetric() -> None:
    left = noisy(5, 192, 64)
    assert composition(np.hstack([left, left[:, ::-1]])).symmetry == pytest.approx(1)
    assert composition(np.hstack([left, 255 - left[:, ::-1]])).symmetry < -0.9
    assert abs(composition(np.hstack([left, noisy(6, 192, 64)])).symmetry) < 0.7


def test_edges_are_counted_once_a_pixel() -> None:
    picture = flat(BLACK, 10, 10)
    picture[4, 4] = WHITE
    assert composition(picture).detail == 0.03, "the pixel itself, the one left of it and the one above"


def test_bright_fields_are_where_they_are() -> None:
    picture = flat(BLACK)
    picture[128:, 86:] = WHITE
    light = composition(picture).light
    assert light[2][2] > 0.95
    assert sum(value for row in light for value in row) - light[2][2] < 0.1


def written(text: str, top: int, size: int = 26) -> NDArray[np.uint8]:
    image = Image.new("RGB", (128, 192), (20, 40, 90))
    ImageDraw.Draw(image).text((4, top), text, fill="white", font=ImageFont.load_default(size))
    return np.asarray(image)


@pytest.mark.parametrize(("top", "third"), [(10, 0), (80, 1), (150, 2)])
def test_lettering_is_found_in_its_third(top: int, third: int) -> None:
    assert composition(written("MEADOWS", top)).text == tuple(number == third for number in range(3))


def test_what_has_no_letters_shows_no_lettering() -> None:
    rng = np.random.default_rng(0)
    grain = (100 + rng.integers(-15, 15, (192, 128, 1)) + np.zeros((1, 1, 3), int)).astype(np.uint8)
    for picture in (flat(WHITE), halves(BLACK, WHITE), noisy(1, 192, 128), grain):
        assert not any(composition(picture).text)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (7, 7), (8, 64), (23, 25), (500, 49)])
def test_any_size_is_measured(size: tuple[int, int]) -> None:
    found = composition(noisy(1, *size))
    assert 0 <= found.brightness <= 1
    assert 0 <= found.contrast <= 0.5
    assert 0 <= found.detail <= 1
    assert -1 - 1e-9 <= found.symmetry <= 1 + 1e-9


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_the_mirror_image_has_the_same_figures_with_left_and_right_exchanged(
    height: int, width: int, seed: int
) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (24 * height, 24 * width, 3), dtype=np.uint8)
    found, mirrored = composition(picture), composition(picture[:, ::-1])
    assert mirrored.brightness == found.brightness
    assert mirrored.contrast == found.contrast
    assert mirrored.symmetry == pytest.approx(found.symmetry)
    assert mirrored.light == tuple(tuple(reversed(row)) for row in found.light)
