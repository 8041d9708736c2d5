"""What a training loop of our own must remember to go on as if it had never stopped.

Weights and the optimizer's moments lie in one safetensors file; where the loop was, and what must be the same for it to
go on, in a JSON file beside it that is written last. Files that don't belong together count as none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mllmrec.artifacts import read_json, sha256, write_json

TENSORS, PLACE = "state.safetensors", "state.json"


def keep_state(
    folder: Path,
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    plan: Mapping[str, Any],
    place: Mapping[str, Any],
) -> None:
    """Save everything; a crash in between leaves the state kept before, or none."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"weight/{name}": weight.detach() for name, weight in module.named_parameters()}
    for name, weight in module.named_parameters():
        tensors |= {f"{kind}/{name}": value for kind, value in optimizer.state.get(weight, {}).items()}
    fresh = folder / f"{TENSORS}.new"
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, fresh)
    fresh.replace(folder / TENSORS)
    write_json(folder / PLACE, {"plan": dict(plan), "place": dict(place), "sha256": sha256(folder / TENSORS)})


def kept_place(folder: Path, plan: Mapping[str, Any]) -> dict[str, Any] | None:
    """Where a loop with this plan was; None when nothing was kept, or of another plan, or only half of it."""
    if not (folder / PLACE).exists() or not (folder / TENSORS).exists():
        return None
    told = read_json(folder / PLACE)
    if told["plan"] != dict(plan) or told["sha256"] != sha256(folder / TENSORS):
        return None
    place: dict[str, Any] = told["place"]
    return place


def restore_state(folder: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the kept weights and moments into the module and its optimizer."""
    tensors = load_file(folder / TENSORS)
    kinds = {key.split("/", 1)[0] for key in tensors} - {"weight"}
    with torch.no_grad():
        for name, weight in module.named_parameters():
            weight.copy_(tensors[f"weight/{name}"])
            kept = {kind: tensors[f"{kind}/{name}"] for kind in kinds if f"{kind}/{name}" in tensors}
            optimizer.state[weight] = kept
