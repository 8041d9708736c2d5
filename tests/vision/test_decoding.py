"""Reading images: every kind becomes plain RGB, and whatever can't be read is an ImageError with a stable reason."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import BLUE, RED, WHITE, encoded, flat, noisy
from PIL import Image, ImageOps

from mllmrec.errors import DataError
from mllmrec.vision import images as decoding
from mllmrec.vision.images import ImageError, count_pixels, read_picture, read_rgb

LARGE = 1 << 20
REASONS = {"empty file", "not an image", "truncated", "corrupt", "too many pixels", "too narrow"}


def top_left(data: bytes) -> tuple[int, ...]:
    return tuple(read_rgb(data, LARGE)[0, 0].tolist())


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        read_rgb(data, LARGE)
    with pytest.raises(ImageError) as again:
        read_picture(data, LARGE)
    assert again.value.reason == caught.value.reason
    return caught.value.reason


# ---- kinds


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
def test_lossless_files_come_back_as_they_were(kind: str, options: dict[str, bool]) -> None:
    assert np.array_equal(read_rgb(encoded(noisy(1), kind, **options), LARGE), noisy(1))


def test_jpeg_comes_back_as_it_was_up_to_its_loss() -> None:
    found = read_rgb(encoded(noisy(1), "JPEG", quality=95), LARGE).astype(int)
    assert found.shape == noisy(1).shape
    assert np.abs(found - noisy(1)).mean() < 8


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparent_pixels_are_white_and_half_transparent_ones_half_white(kind: str) -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 51)])
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert read_rgb(encoded(image, kind, **options), LARGE).tolist() == [
        [[255, 0, 0], [255, 255, 255], [204, 204, 204]]
    ]


def test_grey_with_alpha_lies_over_white() -> None:
    image = Image.new("LA", (2, 1))
    image.putdata([(0, 255), (0, 0)])
    assert read_rgb(encoded(image), LARGE).tolist() == [[[0, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palette_is_looked_up_and_its_transparent_entry_is_white(kind: str) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putdata([0, 1])
    assert read_rgb(encoded(image, kind), LARGE).tolist() == [[list(RED), list(BLUE)]]
    assert read_rgb(encoded(image, kind, transparency=1), LARGE).tolist() == [[list(RED), list(WHITE)]]


def test_a_transparent_colour_of_a_png_without_alpha_is_white() -> None:
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    assert read_rgb(encoded(image, transparency=BLUE), LARGE).tolist() == [[list(RED), list(WHITE)]]


def test_cmyk_is_turned_into_rgb() -> None:
    red, green, blue = top_left(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    assert red > 240
    assert max(green, blue) < 16


def test_one_bit_and_grey_images_become_rgb() -> None:
    assert top_left(encoded(Image.new("1", (4, 4), 1))) == WHITE
    assert top_left(encoded(Image.new("L", (4, 4), 77))) == (77, 77, 77)


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    assert read_rgb(encoded(values), LARGE)[0, :, 0].tolist() == [0, 0, 1, 128, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_carried_out(orientation: int) -> None:
    image = Image.fromarray(noisy(orientation, 32, 48))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, exif=exif)
    with Image.open(io.BytesIO(data)) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    assert np.array_equal(read_rgb(data, LARGE), expected)
    assert expected.shape == ((32, 48, 3) if orientation <= 4 else (48, 32, 3))


def test_an_orientation_that_means_nothing_leaves_the_image_as_it_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    assert np.array_equal(read_rgb(encoded(noisy(1), exif=exif), LARGE), noisy(1))
    assert np.array_equal(read_rgb(encoded(noisy(1), exif=b"Exif\0\0no exif at all"), LARGE), noisy(1))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_read(kind: str) -> None:
    frames = [Image.fromarray(flat(colour, 16, 16)) for colour in (RED, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)
    assert top_left(data) == RED


def test_of_a_stereo_photograph_the_first_picture_is_read() -> None:
    frames = [Image.fromarray(flat(colour, 16, 16)) for colour in (RED, BLUE)]
    picture = read_picture(encoded(frames[0], "MPO", save_all=True, append_images=frames[1:]), LARGE)
    assert picture.rgb[8, 8].tolist() == pytest.approx(RED, abs=4)
    assert picture.encoded.count(b"\xff\xd8\xff") == 1, "the second picture stays here"


def test_the_content_decides_and_not_the_suffix_of_a_file() -> None:
    """A TGA is a format that is not tried, whatever it is called."""
    assert top_left(encoded(flat(RED, 8, 8), "GIF")) == RED
    assert top_left(encoded(flat(RED, 8, 8), "TIFF")) == RED
    assert reason(encoded(flat(RED, 8, 8), "TGA")) == "not an image"


def test_an_avif_is_read() -> None:
    colour = read_rgb(encoded(flat(RED, 32, 32), "AVIF"), LARGE)[16, 16]
    assert colour.tolist() == pytest.approx(RED, abs=12)


def test_an_eps_that_would_call_another_program_is_no_image() -> None:
    assert reason(encoded(flat(RED, 8, 8), "EPS")) == "not an image"


# ---- bounds


@pytest.mark.parametrize(("width", "height"), [(400, 300), (300, 400), (1000, 20), (20, 1000), (101, 100)])
def test_a_large_image_is_scaled_down_in_its_proportions(width: int, height: int) -> None:
    found = read_rgb(encoded(Image.new("RGB", (width, height), RED)), 10_000)
    scale = (10_000 / (width * height)) ** 0.5
    assert found.shape[0] * found.shape[1] <= 10_000
    assert abs(found.shape[1] - width * scale) <= 1
    assert abs(found.shape[0] - height * scale) <= 1
    assert (found == RED).all()


def test_an_image_of_just_the_bound_is_left_alone() -> None:
    assert np.array_equal(read_rgb(encoded(noisy(3, 100, 100)), 10_000), noisy(3, 100, 100))


def test_scaling_down_is_like_lanczos_also_where_a_jpeg_is_decoded_at_a_smaller_size() -> None:
    smooth = Image.fromarray(noisy(2)).resize((1600, 1200), Image.Resampling.BICUBIC)
    expected = np.asarray(smooth.resize((160, 120), Image.Resampling.LANCZOS)).astype(int)
    for data in (encoded(smooth), encoded(smooth, "JPEG", quality=95)):
        found = read_rgb(data, 160 * 120).astype(int)
        assert found.shape == expected.shape
        assert np.abs(found - expected).mean() < 3


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    assert reason(png_header(10_000, 10_000)) == "too many pixels"
    assert reason(png_header(100_000, 100_000)) == "too many pixels"


def test_the_bound_of_pixels_is_the_modules_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "PIXEL_LIMIT", 100)
    assert read_rgb(encoded(flat(RED, 10, 10)), LARGE).shape == (10, 10, 3)
    assert reason(encoded(flat(RED, 10, 11))) == "too many pixels"


def test_a_sliver_is_refused() -> None:
    assert read_rgb(encoded(flat(RED, 100, 1)), LARGE).shape == (100, 1, 3)
    assert reason(encoded(flat(RED, 101, 1))) == "too narrow"
    assert reason(encoded(flat(RED, 1, 101))) == "too narrow"


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# ---- what can't be read


def test_nothing_and_no_image_are_told_apart() -> None:
    assert reason(b"") == "empty file"
    assert reason(b"<!DOCTYPE html><title>404 Not Found</title>") == "not an image"
    assert reason(b"\0" * 100) == "not an image"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "TIFF"])
def test_an_image_that_breaks_off_is_a_failure(kind: str) -> None:
    data = encoded(noisy(1, 192, 128), kind)
    assert reason(data[: len(data) // 2]) in {"truncated", "corrupt"}
    assert reason(data[:12]) in {"truncated", "corrupt"}


def test_a_jpeg_that_breaks_off_is_called_truncated() -> None:
    data = encoded(noisy(1, 192, 128), "JPEG")
    assert reason(data[: len(data) // 2]) == "truncated"


def test_a_changed_byte_of_a_png_is_noticed_by_its_checksum() -> None:
    data = bytearray(encoded(noisy(1)))
    data[len(data) // 2] ^= 0xFF
    assert reason(bytes(data)) == "corrupt"


def test_an_image_error_is_a_data_error_that_tells_more_than_its_reason() -> None:
    with pytest.raises(DataError, match="too narrow: 101 x 1; sides may differ 100 times"):
        read_rgb(encoded(flat(RED, 1, 101)), LARGE)


def test_reading_remarks_nothing_to_the_user(recwarn: pytest.WarningsRecorder) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    read_rgb(encoded(image, transparency=b"\x00\xff"), LARGE)
    assert not recwarn.list


# ---- what models are given


@pytest.mark.parametrize(("kind", "media_type"), [("JPEG", "image/jpeg"), ("PNG", "image/png")])
def test_a_plain_file_goes_to_a_server_as_it_is(kind: str, media_type: str) -> None:
    data = encoded(noisy(1), kind)
    picture = read_picture(data, LARGE)
    assert (picture.encoded, picture.media_type) == (data, media_type)
    assert np.array_equal(picture.rgb, read_rgb(data, LARGE))


@pytest.mark.parametrize(
    "data",
    [
        encoded(noisy(1), "WEBP", lossless=True),
        encoded(noisy(1), "BMP"),
        encoded(Image.new("RGBA", (32, 32), (255, 0, 0, 128))),
        encoded(noisy(1), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
        encoded(noisy(1, 300, 300)),
    ],
    ids=["webp", "bmp", "transparent", "turned", "large"],
)
def test_any_other_file_goes_as_a_new_jpeg_that_shows_the_same(data: bytes) -> None:
    picture = read_picture(data, 80_000)
    assert picture.media_type == "image/jpeg"
    with Image.open(io.BytesIO(picture.encoded)) as sent:
        assert sent.format == "JPEG"
        assert not sent.getexif()
        assert np.abs(np.asarray(sent).astype(int) - picture.rgb).mean() < 8


def test_an_animation_does_not_go_to_a_server() -> None:
    frames = [Image.fromarray(noisy(number)) for number in range(2)]
    picture = read_picture(encoded(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=100), LARGE)
    assert picture.media_type == "image/jpeg"


def test_pixels_are_counted_by_the_header() -> None:
    data = encoded(noisy(1, 96, 64), "JPEG")
    assert count_pixels(data) == 96 * 64
    assert count_pixels(data[:-20]) == 96 * 64
    with pytest.raises(ImageError):
        count_pixels(b"<html>")


# ---- fuzz

SAMPLES = [
    encoded(noisy(1), "JPEG"),
    encoded(noisy(1), "JPEG", progressive=True),
    encoded(Image.new("CMYK", (32, 32)), "JPEG"),
    encoded(noisy(1)),
    encoded(Image.new("P", (32, 32)), transparency=0),
    encoded(noisy(1).astype(np.uint16)[..., 0] * 257),
    encoded(noisy(1), "WEBP"),
    encoded(Image.new("RGBA", (32, 32)), "WEBP", lossless=True),
    encoded(noisy(1), "BMP"),
    encoded(noisy(1), "GIF"),
]
changes = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12)


def read_or_refuse(data: bytes) -> str:
    """The reason of refusal; "read" when the image came out within its bound. Anything else escapes."""
    try:
        picture = read_picture(data, 4096)
    except ImageError as error:
        return error.reason
    height, width, channels = picture.rgb.shape
    return "read" if picture.rgb.dtype == np.uint8 and 0 < height * width <= 4096 and channels == 3 else "wrong"


@given(st.sampled_from(SAMPLES), changes, st.floats(0.05, 1))
@settings(max_examples=150, deadline=None)
def test_corrupt_bytes_crash_nothing(sample: bytes, changed: list[tuple[float, int]], kept: float) -> None:
    data = bytearray(sample)
    for place, value in changed:
        data[int(place * len(data))] = value
    assert read_or_refuse(bytes(data[: int(kept * len(data))])) in {"read", *REASONS}


@given(st.binary(max_size=200), st.sampled_from([b"", *(sample[:40] for sample in SAMPLES)]))
@settings(max_examples=100, deadline=None)
def test_arbitrary_bytes_behind_a_good_beginning_crash_nothing(tail: bytes, head: bytes) -> None:
    assert read_or_refuse(head + tail) in {"read", *REASONS}


@pytest.mark.real_data
def test_corrupt_posters_crash_nothing(real_data: Path) -> None:
    rng = random.Random(0)
    for path in rng.sample(sorted((real_data / "movielens" / "images").iterdir()), 120):
        data = bytearray(path.read_bytes())
        for _ in range(rng.randint(1, 20)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        kept = rng.randint(1, len(data)) if rng.random() < 0.3 else len(data)
        assert read_or_refuse(bytes(data[:kept])) in {"read", *REASONS}
