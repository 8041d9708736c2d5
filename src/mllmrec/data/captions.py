"""Reading the captions file: {item: {title, caption}}, successes only."""

from __future__ import annotations

from typing import Literal

from mllmrec.artifacts import Workspace, read_json
from mllmrec.errors import ArtifactError, DataError

CaptionMode = Literal["auto", "on", "off"]


def read_captions(workspace: Workspace, dataset: str, mode: CaptionMode) -> dict[str, str]:
    """item id -> caption; empty when captions are off, or `auto` and there is no file.

    Raises ArtifactError when captions are asked for and there is no file.
    """
    path = workspace.captions(dataset)
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
