"""The backbone that comes with the package, as a model folder like any other."""

from __future__ import annotations

import shutil
from pathlib import Path

from mllmrec.artifacts import sha256
from mllmrec.errors import ArtifactError

SHIPPED = Path(__file__).parent / "backbone"
CARD = "README.md"


def install(folder: Path) -> Path:
    """Copy the shipped backbone to `folder`, so that a recipe can name it; one that lies there already stays.

    Raises ArtifactError when another model is in its place.
    """
    for source in sorted(path for path in SHIPPED.iterdir() if path.is_file()):
        copy = folder / source.name
        if not copy.exists():
            folder.mkdir(parents=True, exist_ok=True)
            fresh = copy.with_name(f".{copy.name}.new")
            shutil.copyfile(source, fresh)
            fresh.replace(copy)
        elif source.name != CARD and sha256(copy) != sha256(source):
            raise ArtifactError(
                f"{copy} is not the file that comes with the package: {folder} holds another model. Move it away, or "
                "choose another folder."
            )
    return folder
