"""A dataset's images, images/<item>.<suffix>: looked up by item id and decoded to RGB of bounded size.

The folder is listed once, so that a missing image costs nothing. The folder may be a link to where the images lie; a
link in it that leads out of it is refused, and so is anything but a regular file, before a byte of it is read.

Posters come from the web: palettes, alpha, CMYK, 16 bits, orientation in EXIF, animations, HTML with the suffix of an
image. What can be decoded becomes upright plain RGB; anything else raises `ImageError` with a reason of a few fixed
words, by which failures are counted. Only a few formats are tried, whatever the suffix says, because Pillow also knows
formats that call other programs.
"""

from __future__ import annotations

import hashlib
import io
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mllmrec.data.item_files import image_names
from mllmrec.errors import DataError
from mllmrec.models.base import Picture

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

BYTES_LIMIT = 64 << 20
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "AVIF", "TIFF")
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF87a", b"GIF89a", b"II*\x00", b"MM\x00*")
AVIF_BRANDS = (b"ftypavif", b"ftypavis")
# Limits on an image before it is decoded, by its header.
PIXEL_LIMIT = 50_000_000
SIDE_RATIO_LIMIT = 100
JPEG_QUALITY = 95
ORIENTATION = 0x0112
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


class ImageFolder:
    """The images of one dataset, by item id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._home = folder.resolve()
        self._names = image_names(folder)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def name(self, item_id: str) -> str:
        """The file of an item's image."""
        return self._names[item_id]

    def path(self, item_id: str) -> Path:
        """The image file of an item, links followed. Raises ImageError where it is missing or outside the folder."""
        try:
            path = (self.folder / self._names[item_id]).resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise ImageError("broken link", str(error)) from error
        if not path.is_relative_to(self._home):
            raise ImageError("outside images/", str(path))
        return path

    def read(self, item_id: str) -> bytes:
        """The bytes of an item's image file. Raises ImageError where it is no regular file or can't be read."""
        path = self.path(item_id)
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("not a file", str(path))
            if status.st_size > BYTES_LIMIT:
                raise ImageError("file too large", f"{path} has {status.st_size} bytes, at most {BYTES_LIMIT} are read")
            return path.read_bytes()
        except OSError as error:
            raise ImageError("unreadable", str(error)) from error

    def picture(self, item_id: str, max_pixels: int) -> Picture | None:
        """The image of an item, of at most `max_pixels`, for a model; None without a usable one.

        For callers to whom an image is optional: the caption stage records why an image can't be used.
        """
        try:
            return read_picture(self.read(item_id), max_pixels) if item_id in self else None
        except ImageError:
            return None

    def version(self, item_id: str) -> str:
        """A short hash of an image's bytes; `missing`, or the reason, where there is none or it can't be read."""
        if item_id not in self:
            return "missing"
        try:
            return hashlib.sha256(self.read(item_id)).hexdigest()[:16]
        except ImageError as error:
            return error.reason

    def fault(self, item_id: str) -> str:
        """Why an item's image can't be used, in a few fixed words, by its header; empty where nothing is wrong."""
        try:
            count_pixels(self.read(item_id))
        except ImageError as error:
            return error.reason
        return ""


class ImageError(DataError):
    """An image that can't be used; `reason` is a few fixed words by which failures are counted."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


def read_rgb(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """The image as RGB (height, width, 3), upright, over white where transparent, of at most `max_pixels`. Raises
    ImageError."""
    with _opened(data) as image:
        return np.asarray(_shown(image, max_pixels))


def read_picture(data: bytes, max_pixels: int) -> Picture:
    """The image for a model. `encoded` is the file itself where it is plain RGB of at most `max_pixels`.

    Raises ImageError.
    """
    with _opened(data) as image:
        bare = image.mode == "RGB" and "exif" not in image.info and getattr(image, "n_frames", 1) == 1
        as_it_is = bare and image.width * image.height <= max_pixels
        shown = _shown(image, max_pixels)
        rgb = np.asarray(shown)
        if as_it_is and image.format == "JPEG":
            return Picture(rgb=rgb, encoded=data, media_type="image/jpeg")
        if as_it_is and image.format == "PNG":
            return Picture(rgb=rgb, encoded=data, media_type="image/png")
        file = io.BytesIO()
        shown.save(file, "JPEG", quality=JPEG_QUALITY)
        return Picture(rgb=rgb, encoded=file.getvalue(), media_type="image/jpeg")


def count_pixels(data: bytes) -> int:
    """Width times height, from the header alone. Raises ImageError."""
    with _opened(data) as image:
        return image.width * image.height


@contextmanager
def _opened(data: bytes) -> Iterator[Image]:
    """A verified image, not yet decoded. Any error inside the block becomes an ImageError.

    A decoder that is fed arbitrary bytes fails in arbitrary ways, so every exception counts as the image's fault.
    """
    if not data:
        raise ImageError("empty file")
    try:
        with warnings.catch_warnings():
            # Pillow's warnings about odd files are of no use here: an image is read, or it is a failure.
            warnings.simplefilter("ignore")
            with _open(data) as image:
                _check_size(*image.size)
                image.verify()
            with _open(data) as image:
                yield image
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(_reason(error, data), f"{type(error).__name__}: {error}") from error


def _open(data: bytes) -> Image:
    from PIL import Image

    return Image.open(io.BytesIO(data), formats=FORMATS)


def _check_size(width: int, height: int) -> None:
    """Refuse decompression bombs, and slivers that vision models can't take."""
    if width * height > PIXEL_LIMIT:
        raise ImageError("too many pixels", f"{width} x {height}; at most {PIXEL_LIMIT} are decoded")
    if max(width, height) > SIDE_RATIO_LIMIT * min(width, height):
        raise ImageError("too narrow", f"{width} x {height}; sides may differ {SIDE_RATIO_LIMIT} times")


def _reason(error: Exception, data: bytes) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, (Image.DecompressionBombError, MemoryError)):
        return "too many pixels"
    is_known = data.startswith(SIGNATURES) or data[4:12] in AVIF_BRANDS
    if isinstance(error, UnidentifiedImageError) and not is_known:
        return "not an image"
    return "truncated" if "truncated" in str(error).lower() else "corrupt"


def _shown(image: Image, max_pixels: int) -> Image:
    """The first frame as bounded RGB, turned the way its EXIF orientation says."""
    from PIL import Image

    shrink = (max_pixels / (image.width * image.height)) ** 0.5
    if shrink < 1:
        # A JPEG can be decoded at a half, a quarter or an eighth of its size: here never below what is wanted.
        image.draft(None, (int(image.width * shrink) + 1, int(image.height * shrink) + 1))
    turn = _turn(image)
    shown = _bounded(_rgb(image), max_pixels)
    return shown.transpose(Image.Transpose[turn]) if turn else shown


def _turn(image: Image) -> str | None:
    """The transposition that EXIF asks for; None where EXIF can't be parsed, as decoding doesn't depend on it."""
    try:
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:
        return None


def _rgb(image: Image) -> Image:
    from PIL import Image

    if image.mode.startswith("I"):
        # Pillow would clip 16 bits at 255.
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")
    return image.convert("RGB")


def _bounded(image: Image, max_pixels: int) -> Image:
    """The image with at most `max_pixels`, its sides in proportion as before, up to rounding."""
    from PIL import Image

    width, height = image.size
    if width * height <= max_pixels:
        return image
    scale = (max_pixels / (width * height)) ** 0.5
    width = max(1, int(width * scale))
    return image.resize((width, max(1, min(int(height * scale), max_pixels // width))), Image.Resampling.LANCZOS)
