"""What makes a folder a model folder: a configuration, a tokenizer, and weights that are all there.

Only the headers of the weight files are read, so that looking at 8 GB takes milliseconds.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from mllmrec.artifacts import read_json
from mllmrec.errors import DataError

TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("tokenizer.model",))


def lacking(folder: Path) -> list[str]:
    """What is missing before `folder` can be loaded as a model; empty when nothing is."""
    faults = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any(all((folder / name).is_file() for name in names) for names in TOKENIZERS):
        faults.append("a tokenizer (tokenizer.json)")
    weights = weight_files(folder)
    if not weights:
        pickles = any(folder.glob("*.bin"))
        faults.append("weights (model.safetensors)" + ("; the .bin files here are not read" if pickles else ""))
    for path in weights:
        if not path.is_file():
            faults.append(path.name)
        elif fault := damage(path):
            faults.append(f"a whole {path.name} ({fault})")
    return faults


def weight_files(folder: Path) -> list[Path]:
    """The weight files that belong to the model, by name; those an index names are listed even when missing."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = read_json(index).get("weight_map", {}).values()
        return [folder / name for name in sorted(set(names))]
    return sorted(folder.glob("*.safetensors"))


def stored_parameters(folder: Path) -> int:
    """The number of parameters in the weight files, read from their headers."""
    return sum(
        math.prod(tensor["shape"])
        for path in weight_files(folder)
        for name, tensor in read_header(path).items()
        if name != "__metadata__"
    )


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: for each tensor its dtype, shape and place.

    The format is 8 bytes (little-endian length of the header), the header as JSON, then the tensors end to end.
    Raises DataError when the file is something else.
    """
    with path.open("rb") as file:
        start = file.read(8)
        num_bytes = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        text = file.read(num_bytes) if 0 < num_bytes < path.stat().st_size else b""
    try:
        header = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path} is no safetensors file. Download it again.") from error
    if not isinstance(header, dict):
        raise DataError(f"{path} is no safetensors file: its header is no object. Download it again.")
    return header


def damage(path: Path) -> str:
    """Why a weight file can't be read whole; empty when it can."""
    try:
        header = read_header(path)
    except DataError:
        return "it is no safetensors file"
    with path.open("rb") as file:
        start = 8 + int(struct.unpack("<Q", file.read(8))[0])
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    expected = start + max(ends, default=0)
    size = path.stat().st_size
    return f"{size:,} of {expected:,} bytes are here" if size < expected else ""
