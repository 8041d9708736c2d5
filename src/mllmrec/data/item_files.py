"""The files of items: images/ of one dataset, and the captions.

An image is written whole, and fetched images are kept apart from those that somebody put there. The captions file is
{item: {title, caption}} and holds successes only.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from mllmrec.data.raw_ids import RawIds
from mllmrec.errors import ArtifactError, DataError
from mllmrec.storage.log_lines import logged_rows
from mllmrec.storage.workspace import IMAGE_SUFFIXES, Workspace, read_json, replacing

CaptionMode = Literal["auto", "on", "off"]


class ImagesFolder:
    """images/ of one dataset, and the file with the origin of the images that were fetched into it."""

    def __init__(self, path: Path, origins: Path) -> None:
        self.path, self.origins = path, origins
        self._names = image_names(path)
        self._rows: dict[str, dict[str, Any]] = read_json(origins) if origins.exists() else {}
        self._fetched = {item for item, row in (*self._rows.items(), *logged_rows(origins)) if "tmdb_id" in row}

    def name(self, item: str) -> str | None:
        """The file of an item's image, if there is one."""
        return self._names.get(item)

    def recall(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The records of a finished artifact, but for images that were taken away since."""
        return ((item, row) for item, row in self._rows.items() if "missing" in row or item in self._names)

    def fetched(self, item: str) -> bool:
        """Whether an earlier start fetched the image that is there."""
        return item in self._fetched

    def put(self, item: str, body: bytes, suffix: str) -> str:
        """Write an image, in place of the one that was fetched before; returns the name of its file."""
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
    """item id -> file name. Of several with one id the first suffix in the order of IMAGE_SUFFIXES counts.

    A file may bear an item's id or its raw id, as it stands or in percent-encoding; raw ids are those of the dataset
    in whose folder `folder` lies.
    """
    files, names = sorted(os.listdir(folder)) if folder.is_dir() else [], dict[str, str]()
    raw_items = RawIds.read(folder.parent / f"{folder.parent.name}_ids.csv").items
    safe = {unicodedata.normalize("NFC", raw): item for item, raw in raw_items.items()}
    for suffix in reversed(IMAGE_SUFFIXES):
        stems = {name: name[: -len(suffix)] for name in files if name.lower().endswith(suffix)}
        spelt = {name: unicodedata.normalize("NFC", stem) for name, stem in stems.items()} if safe else {}
        names |= {safe[unquote(stem)]: name for name, stem in spelt.items() if unquote(stem) in safe}
        names |= {safe[stem]: name for name, stem in spelt.items() if stem in safe}
        names |= {stem: name for name, stem in stems.items()}
    return names


def read_captions(workspace: Workspace, dataset: str, mode: CaptionMode) -> dict[str, str]:
    """item id -> caption; empty when captions are off, or `auto` and there is no file.

    Raises ArtifactError when captions are asked for and there is no file.
    """
    path = workspace.dataset(dataset).captions
    if mode == "off" or (mode == "auto" and not path.exists()):
        return {}
    if not path.exists():
        raise ArtifactError(
            f"--captions on needs {path}, which does not exist. Make it with `mllmrec caption --dataset {dataset}`, "
            "or use --captions off."
        )
    rows = read_json(path)
    if not isinstance(rows, dict):
        raise DataError(f"{path}: expected an object {{item: {{title, caption}}}}, found {type(rows).__name__}.")
    captions = {}
    for item, row in rows.items():
        caption = row.get("caption") if isinstance(row, dict) else None
        if not isinstance(caption, str):
            raise DataError(f"{path}: item {item} has no caption text. Expected {{title, caption}}.")
        captions[item] = caption
    return captions
