"""What a pre-training run must remember to go on as if it had never stopped: weights, moments, and where it was.

Tensors lie in one safetensors file, all else in a JSON file beside it that is written last; a checkpoint whose files
don't belong together is taken for none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mllmrec.artifacts import read_json, sha256, write_json
from mllmrec.errors import ArtifactError

TENSORS, PLACE = "state.safetensors", "state.json"


@dataclass(kw_only=True)
class Place:
    """Where a run is: the level and the step within it, and all steps, tokens and seconds so far.

    `readings` are the held-out accuracies: level, step of the run, share answered right, seconds.
    """

    level: int = 0
    step: int = 0
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    readings: list[dict[str, Any]] = field(default_factory=list)


def write_state(
    folder: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer, place: Place, plan: Mapping[str, Any]
) -> None:
    """Save a checkpoint; `plan` is what must be the same for a run to go on from it."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"weight/{name}": weight.detach() for name, weight in module.named_parameters()}
    for name, weight in module.named_parameters():
        for kind, value in optimizer.state.get(weight, {}).items():
            tensors[f"{kind}/{name}"] = value
    fresh = folder / f"{TENSORS}.new"
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, fresh)
    fresh.replace(folder / TENSORS)
    write_json(folder / PLACE, {"plan": dict(plan), "place": asdict(place), "sha256": sha256(folder / TENSORS)})


def read_state(
    folder: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer, plan: Mapping[str, Any]
) -> Place:
    """Put a checkpoint's tensors into the module and the optimizer; the place to go on from, the start without one."""
    if not (folder / PLACE).exists():
        return Place()
    told = read_json(folder / PLACE)
    if told["plan"] != dict(plan):
        raise ArtifactError(
            f"{folder} holds a run made with {told['plan']}; this one has {dict(plan)}. Choose another --out, or "
            "delete that folder."
        )
    if told["sha256"] != sha256(folder / TENSORS):
        return Place()
    tensors = load_file(folder / TENSORS)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            weight.copy_(tensors[f"weight/{name}"])
            kinds = [key.split("/", 1)[0] for key in tensors if key.split("/", 1)[1] == name]
            optimizer.state[weight] = {kind: tensors[f"{kind}/{name}"] for kind in kinds if kind != "weight"}
    return Place(**told["place"])
