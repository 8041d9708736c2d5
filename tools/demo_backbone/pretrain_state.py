"""The state from which a pre-training run resumes as if it had never stopped: weights, moments, and position."""

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
class RunPosition:
    """The position of a run: the level and the step within it, and all steps, tokens and seconds so far.

    `readings` are the held-out accuracies: level, step of the run, share answered right, seconds.
    """

    level: int = 0
    step: int = 0
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    readings: list[dict[str, Any]] = field(default_factory=list)


def write_state(
    folder: Path,
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    position: RunPosition,
    plan: Mapping[str, Any],
) -> None:
    """Save a checkpoint; `plan` is what must be the same for a run to go on from it."""
    keep_state(folder, module, optimizer, plan, asdict(position))


def read_state(
    folder: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer, plan: Mapping[str, Any]
) -> RunPosition | None:
    """Load a checkpoint into the module and the optimizer; returns its position, None without a checkpoint.

    Raises ArtifactError for a checkpoint of another plan.
    """
    if (folder / POSITION).exists() and (recorded := read_json(folder / POSITION)["plan"]) != dict(plan):
        raise ArtifactError(
            f"{folder} holds a run made with {recorded}; this one has {dict(plan)}. Choose another --out, or "
            "delete that folder."
        )
    position = kept_position(folder, plan)
    if position is None:
        return None
    restore_state(folder, module, optimizer)
    return RunPosition(**position)
