"""The timeline of a run as TensorBoard curves, beside those that the trainer draws by itself."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = "runs/timeline"


class Curves:
    """One curve for each figure of the rows, named timeline/..., and one for each position of the candidate list."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self._writer: Any = None

    def open(self, step: int) -> None:
        """Begin at `step`; what an interrupted run drew after it is hidden, and a fresh run begins a fresh folder."""
        from torch.utils.tensorboard import SummaryWriter

        if step == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._writer = SummaryWriter(log_dir=str(self.folder), purge_step=step + 1)

    def draw(self, row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            if isinstance(value, (int, float)) and name not in ("step", "since"):
                self._writer.add_scalar(f"timeline/{name}", float(value), row["step"])
        for position, share in enumerate(row.get("chosen_positions", ()), 1):
            self._writer.add_scalar(f"timeline_chosen/{position}", share, row["step"])
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
