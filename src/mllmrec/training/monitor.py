"""Watching for reward inflation: does validation rise where the training reward does?

At each validation one row joins metrics.jsonl in the checkpoint folder (timeline.py says what is in it), and the alarm
looks at the last rows. The trainer forgets what it hasn't logged when it stops, so a line is logged before each
checkpoint, and a resumed run goes on with the very rows it would have written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from transformers import TrainerCallback

from mllmrec.progress import note
from mllmrec.training.callbacks import WATCHED, ValidationCallback, append_log
from mllmrec.training.checkpoints import LOG, TIMELINE
from mllmrec.training.curves import Curves
from mllmrec.training.timeline import Row, judge, read_rows, training_row


class MonitorCallback(TrainerCallback):
    """Writes the timeline, raises the alarm, and ends training when that is asked for.

    `validated` holds the validation metrics by step, and is called before this callback. Every process holds the same
    figures and comes to the same verdict; the first one writes.
    """

    def __init__(
        self,
        folder: Path,
        validated: ValidationCallback,
        *,
        window: int,
        on_inflation: Literal["warn", "stop"] = "warn",
        track: bool = False,
    ) -> None:
        self.folder, self.validated, self.window, self.on_inflation = folder, validated, window, on_inflation
        self.rows: list[Row] = []
        self.stopped_at: int | None = None
        self._logs: list[tuple[int, Mapping[str, Any]]] = []
        self._curves = Curves(folder) if track else None

    @property
    def alarms(self) -> list[int]:
        """The steps at which the alarm was raised."""
        return [row["step"] for row in self.rows if row.get("alarm")]

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.rows = read_rows(self.folder / TIMELINE, up_to=state.global_step)
        since = self._since()
        lines = read_rows(self.folder / LOG, up_to=state.global_step)
        self._logs = [(line["step"], line) for line in lines if "reward" in line and line["step"] > since]
        if self._curves is not None and state.is_world_process_zero:
            self._curves.open(state.global_step)
        if not self.rows and state.global_step in self.validated.readings:
            self._add({"step": state.global_step}, state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Have the trainer log what it holds before it is measured against validation, or saved."""
        if state.global_step in self.validated.readings or control.should_save:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not logs or "reward" not in logs:
            return
        self._logs.append((state.global_step, dict(logs)))
        if state.global_step in self.validated.readings:
            self._add({"step": state.global_step, **training_row(self._logs, self._since())}, state)
            self._logs = []
            self._judge(control)

    def close(self) -> None:
        """Close the curves, however training ended."""
        if self._curves is not None:
            self._curves.close()

    def details(self) -> dict[str, Any]:
        """What the manifest says about the alarm."""
        return {"inflation": {"alarms": self.alarms, "stopped_at": self.stopped_at}}

    def warnings(self) -> tuple[str, ...]:
        """What the run's summary should say about the alarm."""
        if not self.alarms:
            return ()
        end = f"training was stopped at step {self.stopped_at}" if self.stopped_at is not None else "training went on"
        return (
            f"The training reward rose while validation {WATCHED} didn't, at step(s) "
            f"{', '.join(map(str, self.alarms))}; {end}. The weights kept are those with the best "
            f"{self.validated.select_by} on validation. What the "
            f"reward paid for is in {self.folder / TIMELINE}.",
        )

    def _since(self) -> int:
        return self.rows[-1]["step"] if self.rows else 0

    def _add(self, row: Row, state: Any) -> None:
        """Complete a row with validation and verdict, and write it."""
        row |= {f"valid_{name}": value for name, value in self.validated.readings[row["step"]].items()}
        if (verdict := judge([*self.rows, row], self.validated.by_user, self.window)) is not None:
            row["reward_slope"], row["valid_slope"] = (
                [slope.value, slope.low, slope.high] for slope in (verdict.reward, verdict.validation)
            )
            row["alarm"] = verdict.inflated
        self.rows.append(row)
        if state.is_world_process_zero:
            append_log(self.folder, row["step"], row, TIMELINE)
            if self._curves is not None:
                self._curves.draw(row)

    def _judge(self, control: Any) -> None:
        """Tell an alarm when it is new, and stop where that was asked for."""
        row = self.rows[-1]
        if not row.get("alarm"):
            return
        if not self.rows[-2].get("alarm"):
            note(f"Reward inflation: {judge(self.rows, self.validated.by_user, self.window)}.")
        if self.on_inflation == "stop":
            self.stopped_at = row["step"]
            control.should_training_stop = True
            note(f"Stopping at step {row['step']}, as --on-inflation stop asks; the best weights so far are kept.")
