"""images/ of one dataset: which file is an item's image, and how images are put there.

Each appears whole, and what was fetched is told from the rest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mllmrec.artifacts import IMAGE_SUFFIXES, partial, read_json, replacing


class ImagesFolder:
    """images/ of one dataset, and the file that tells the origin of what was fetched into it."""

    def __init__(self, path: Path, origins: Path) -> None:
        self.path, self.origins = path, origins
        self._names = image_names(path)
        self._rows: dict[str, dict[str, Any]] = read_json(origins) if origins.exists() else {}
        self._fetched = {item for item, row in (*self._rows.items(), *_logged(origins)) if "tmdb_id" in row}

    def name(self, item: str) -> str | None:
        """The file of an item's image, if there is one."""
        return self._names.get(item)

    def recall(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The records of a finished artifact, but for images that were taken away since."""
        return ((item, row) for item, row in self._rows.items() if "missing" in row or item in self._names)

    def fetched(self, item: str) -> bool:
        """Whether an earlier start fetched the image that is there."""
        return item in self._fetched

    def place(self, item: str, body: bytes, suffix: str) -> str:
        """Give an image its place, in place of the one that was fetched before."""
        name = f"{item}{suffix}"
        with replacing(self.path / name, "wb") as file:
            file.write(body)
        if self._names.get(item, name) != name:
            (self.path / self._names[item]).unlink(missing_ok=True)
        self._names[item] = name
        return name

    def clean(self) -> None:
        """Remove drafts that a killed process left."""
        for draft in self.path.glob(".*.tmp"):
            draft.unlink()


def image_names(folder: Path) -> dict[str, str]:
    """item id -> file name. Of several with one id the first suffix in the order of IMAGE_SUFFIXES counts."""
    found, names = os.listdir(folder) if folder.is_dir() else [], dict[str, str]()
    for suffix in reversed(IMAGE_SUFFIXES):
        names |= {name.removesuffix(suffix): name for name in found if name.endswith(suffix)}
    return names


def _logged(origins: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records in the working log of an interrupted start, whatever its settings were."""
    log = partial(origins)
    for line in log.read_bytes().splitlines(keepends=True) if log.exists() else ():
        record = json.loads(line) if line.endswith(b"\n") else {}
        if "row" in record:
            yield record["key"], record["row"]
