"""What a pre-training run must remember to go on as if it had never stopped: weights, moments, and where it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from mllmrec.errors import ArtifactError
from mllmrec.storage.workspace import read_json
from mllmrec.training.pretraining import POSITION, keep_state, kept_position, restore_state


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
    keep_state(folder, module, optimizer, plan, asdict(place))


def read_state(
    folder: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer, plan: Mapping[str, Any]
) -> Place | None:
    """Put a checkpoint's tensors into the module and the optimizer; the place to go on from, None without one."""
    if (folder / POSITION).exists() and (told := read_json(folder / POSITION)["plan"]) != dict(plan):
        raise ArtifactError(
            f"{folder} holds a run made with {told}; this one has {dict(plan)}. Choose another --out, or "
            "delete that folder."
        )
    place = kept_position(folder, plan)
    if place is None:
        return None
    restore_state(folder, module, optimizer)
    return Place(**place)
