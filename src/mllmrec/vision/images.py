"""A dataset's images: images/<item>.<suffix>, found by id and read without trust.

The folder is listed once, so that a missing image costs nothing. It may itself be a link to where the images lie; a
link in it that leads out of it is refused, and so is whatever isn't a plain file, before a byte of it is read.
"""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

from mllmrec.backends.base import Picture
from mllmrec.data.images_folder import image_names
from mllmrec.vision.decoding import ImageError, read_picture

BYTES_LIMIT = 64 << 20


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

    def path(self, item_id: str) -> Path:
        """Where the image of an item lies, links followed; an ImageError when that is nowhere, or outside."""
        try:
            found = (self.folder / self._names[item_id]).resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise ImageError("broken link", str(error)) from error
        if not found.is_relative_to(self._home):
            raise ImageError("outside images/", str(found))
        return found

    def read(self, item_id: str) -> bytes:
        """The bytes of an item's image file; an ImageError when it is no plain file or can't be read."""
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
        """The image of an item as models take it; None when there is none, or none that can be used.

        For callers to whom an image is an extra: the caption stage is the one that records why an image can't be used.
        """
        try:
            return read_picture(self.read(item_id), max_pixels) if item_id in self else None
        except ImageError:
            return None

    def version(self, item_id: str) -> str:
        """A short hash of an image's bytes, another one when it is replaced; or why it can't be read, or has none."""
        if item_id not in self:
            return "missing"
        try:
            return hashlib.sha256(self.read(item_id)).hexdigest()[:16]
        except ImageError as error:
            return error.reason
