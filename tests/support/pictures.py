"""Made-up images and datasets of them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from workspaces import write_dataset

from mllmrec import Workspace

RED, BLUE, WHITE, BLACK = (255, 0, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def flat(colour: tuple[int, int, int], height: int = 192, width: int = 128) -> NDArray[np.uint8]:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def noisy(seed: int, height: int = 96, width: int = 64) -> NDArray[np.uint8]:
    """A picture unlike any other: coarse random blocks."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, size=(height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    return blocks.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]


def encoded(picture: NDArray[Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write_pictures(root: Path, files: Mapping[str, bytes], titles: Mapping[str, str], name: str = "shop") -> Workspace:
    """A dataset whose catalogue is `titles` and whose images/ holds `files` by name."""
    rows = "".join(f'{item},"{title}"\n' for item, title in titles.items())
    workspace = write_dataset(root, name, titles="item,title\n" + rows, train=f"u1\t{' '.join(titles)}\n")
    folder = workspace.dataset(name).images
    folder.mkdir()
    for file, data in files.items():
        (folder / file).write_bytes(data)
    return workspace
