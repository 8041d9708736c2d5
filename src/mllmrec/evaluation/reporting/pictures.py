"""Posters small enough to travel inside the page, each made once.

Opening images that nobody vouches for is the business of another room, so a function that does it is handed in; here
the picture it returns is only encoded again, small.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

from PIL import Image

from mllmrec.backends.base import Picture
from mllmrec.data.raw_ids import RawIds
from mllmrec.data.sequences import Catalogue
from mllmrec.evaluation.reporting.page import Poster

LoadPicture = Callable[[str], Picture | None]
QUALITY = 72


class Posters:
    """The items of a dataset as the page shows them."""

    def __init__(
        self, catalogue: Catalogue, load_picture: LoadPicture | None = None, raw_ids: RawIds | None = None
    ) -> None:
        self._catalogue, self._load, self._raw_ids = catalogue, load_picture, raw_ids or RawIds()
        self._uris: dict[str, str | None] = {}

    def __call__(self, item_id: str, *, pictured: bool = True) -> Poster:
        """The item with its title, and with its picture where there is one and it is wanted."""
        uri = self._uri(item_id) if pictured else None
        raw, item = self._raw_ids.item(item_id), self._catalogue.get(item_id)
        return Poster(item_id=raw, title=item.title if item and item.title else f"Item {raw}", uri=uri)

    def user(self, user_id: str) -> str:
        """A user's id as the page shows it."""
        return self._raw_ids.user(user_id)

    def _uri(self, item_id: str) -> str | None:
        if item_id not in self._uris:
            picture = self._load(item_id) if self._load is not None else None
            self._uris[item_id] = _encoded(picture) if picture is not None else None
        return self._uris[item_id]


def _encoded(picture: Picture) -> str:
    """A JPEG as a data URI."""
    file = io.BytesIO()
    Image.fromarray(picture.rgb).save(file, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
