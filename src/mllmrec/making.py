"""Artifacts in the making: whose unfinished work lies there, and a folder that is a model only when it is whole.

What has no manifest is the user's own: it is read, and never replaced without being told to. So that a stage which was
killed isn't taken for a user, `.<artifact>.making` lies beside an artifact from before its first file until after its
manifest. For a folder it is the draft into which all files are written first.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mllmrec.errors import ArtifactError
from mllmrec.manifests import Manifest, is_file, unmark
from mllmrec.settings.base import StageSettings

CONFIGURATIONS = ("config.json", "adapter_config.json")


@contextmanager
def making(artifact: Path, settings: StageSettings) -> Iterator[Path]:
    """Mark `artifact` as being made for the block, which ends with its manifest; yields the draft of a folder.

    Raises ArtifactError when the user's own file or model is there and `--overwrite` wasn't given. A block that fails
    or is interrupted leaves no draft.
    """
    marker = marker_of(artifact)
    if _is_foreign(artifact) and not settings.overwrite:
        raise ArtifactError(
            f"{artifact} is there and `mllmrec {settings.verb}` didn't make it: it has no manifest. Expected nothing "
            "of that name. Choose another one, move it away, or replace it with --overwrite."
        )
    drop_marker(artifact)
    if is_file(artifact):
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    else:
        marker.mkdir(parents=True)
    try:
        yield marker
    except BaseException:
        if not _holds_something(artifact) or Manifest.read(artifact) is not None:
            drop_marker(artifact)
        raise
    drop_marker(artifact)


def settle(draft: Path, folder: Path) -> None:
    """Put the files of a draft into their folder, in place of the weights that were there.

    The configuration goes first and comes last: without one the folder is no model.
    """
    unmark(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*(folder / name for name in CONFIGURATIONS), *folder.glob("*.safetensors*")):
        old.unlink(missing_ok=True)
    for path in sorted(draft.iterdir(), key=lambda path: (path.name in CONFIGURATIONS, path.name)):
        path.replace(folder / path.name)


def drop_marker(artifact: Path) -> None:
    """Remove what is left of a making, also of one that was killed after its manifest."""
    marker = marker_of(artifact)
    if marker.is_dir():
        shutil.rmtree(marker)
    else:
        marker.unlink(missing_ok=True)


def marker_of(artifact: Path) -> Path:
    return artifact.with_name(f".{artifact.name}.making")


def _is_foreign(artifact: Path) -> bool:
    """Whether a file or a model is there that no stage of this program makes or made."""
    return _holds_something(artifact) and not marker_of(artifact).exists() and Manifest.read(artifact) is None


def _holds_something(artifact: Path) -> bool:
    if is_file(artifact):
        return artifact.exists()
    return any((artifact / name).exists() for name in CONFIGURATIONS) or any(artifact.glob("*.safetensors"))
