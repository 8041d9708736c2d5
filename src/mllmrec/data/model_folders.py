"""What makes a folder a model folder or an adapter folder: a usable configuration, and weights that are whole.

Only configurations and the headers of weight files are read, so that looking at 8 GB takes milliseconds and a misfit
is refused before a model loads. A model folder also has a tokenizer; an adapter is of a kind that can be scored.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from mllmrec.errors import ArtifactError, DataError
from mllmrec.storage.workspace import read_json

TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("tokenizer.model",))
CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
ADDITIVE = ("LORA", "ADALORA", "LOHA", "LOKR")
CONDITIONAL = ("alora_invocation_tokens", "arrow_config", "layer_replication", "megatron_config")
"""Options of LoRA with which it is no longer a sum of weights: it depends on the tokens, or adds layers."""
DRAWN = ("pissa_niter", "corda", "loftq", "lora_ga")
"""Initialisations of LoRA that change the model's weights, at random or by data that aren't kept."""


def lacking(folder: Path) -> list[str]:
    """What `folder` lacks to be loaded as a model, each in a few words; empty when nothing is missing."""
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
    """The header of a safetensors file: for each tensor its dtype, shape and offsets.

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


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds adapters."""
    return (folder / CONFIG).exists()


def require_adapter(folder: Path) -> dict[str, Any]:
    """The configuration of an adapter that adds to a model's weights, with its weights whole.

    Raises ArtifactError, naming the fault, for everything else: a folder without adapters, a kind that changes more
    than weights (prompt, prefix and P-tuning, (IA)3), weights that are pickled, cut short, empty or gone.
    """
    if not is_adapter(folder):
        raise ArtifactError(f"{folder} holds no adapter: {CONFIG} is missing. Name a LoRA checkpoint.")
    config = read_json(folder / CONFIG)
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind not in ADDITIVE:
        raise ArtifactError(
            f"{folder} holds an adapter of kind {kind or 'none'} (peft_type in {CONFIG}). Exact scoring and merging "
            f"need one that adds to a model's weights: {', '.join(ADDITIVE)}. Virtual tokens (prompt, prefix and "
            "P-tuning) and scaled activations ((IA)3) would be ignored or scored wrongly. Train a LoRA, with "
            "`mllmrec sft` or elsewhere."
        )
    if options := [name for name in CONDITIONAL if config.get(name)]:
        raise ArtifactError(
            f"{folder} holds a LoRA with {', '.join(options)} ({CONFIG}), which does more than add to a model's "
            "weights: exact scoring would be wrong. Train a LoRA without, with `mllmrec sft` or elsewhere."
        )
    start = str(config.get("init_lora_weights"))
    if start.startswith(DRAWN):
        raise ArtifactError(
            f"{folder} holds a LoRA that changed its model when it began (init_lora_weights = {start} in {CONFIG}) "
            "in a way that can't be repeated here. Expected an ordinary LoRA; convert it where it was trained, by "
            "PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...)."
        )
    if fault := _fault_of_weights(folder):
        raise ArtifactError(f"{folder} holds no whole adapter: {fault}")
    return dict(config)


def misnamed(source: str | Path) -> ArtifactError:
    """The refusal of adapters that were named as a model."""
    return ArtifactError(
        f"{source} holds adapters ({CONFIG}) and was named as a model. Merge them first with `mllmrec merge`, or name "
        "them with --tag (their folder lies in checkpoints/DATASET/) and their model with --backbone."
    )


def adapter_shapes(folder: Path) -> dict[str, list[int]]:
    """The shape of every tensor of an adapter, by its name in the file."""
    header = read_header(folder / WEIGHTS)
    return {name: tensor["shape"] for name, tensor in header.items() if name != "__metadata__"}


def _fault_of_weights(folder: Path) -> str:
    if not (folder / WEIGHTS).is_file():
        if (folder / PICKLE).is_file():
            return (
                f"{PICKLE} is a pickle, which may run code when it is read, and isn't read here. Expected {WEIGHTS}; "
                "save the adapter again with a recent PEFT, or convert the file with "
                "safetensors.torch.save_file(torch.load(..., weights_only=True), ...)."
            )
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:8])
        return f"{WEIGHTS} is missing; the folder holds {there}. Copy the whole adapter again, or train it again."
    if fault := damage(folder / WEIGHTS):
        return f"{WEIGHTS} is damaged ({fault}). Copy the whole adapter again, or train it again."
    if not adapter_shapes(folder):
        return f"{WEIGHTS} holds no weights. Copy the whole adapter again, or train it again."
    return ""
