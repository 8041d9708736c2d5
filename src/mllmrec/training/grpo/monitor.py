"""Watching for reward inflation: does validation rise where the training reward does?

At each validation one row joins metrics.jsonl in the checkpoint folder, and the alarm looks at the last rows. A row
holds means of the training figures over the steps since the row before, from the trainer's own log lines, and the exact
validation metrics of the weights at that step. The trainer forgets what it hasn't logged when it stops, so a line is
logged before each checkpoint, and a resumed run writes the very rows it would have written. `Curves` draws the rows in
TensorBoard.

The verdict fits a line to the reward and one to the validation metric over the last rows. The reward is inflated when
its slope is positive, the 95 % interval wholly above zero, and that of validation is not. A rise too small to be
distinguished from none counts as none: the verdict then reports that validation doesn't show what the reward claims,
with the intervals.

With n readings y at steps x and Sxx = sum (x - mean x)^2 the least-squares slope is b = sum (x - mean x) y / Sxx. Its
interval depends on what the readings are, t being the quantile of Student's distribution:

* Means over fresh samples (training figures) scatter about the line. With r the residuals, s^2 = sum r^2 / (n - 2),
  the interval is b +- t(.975, n - 2) s / sqrt(Sxx).
* Exact metrics of one fixed set of users (validation) have no scatter, and the question is whether other users would
  have gained too. Each user has a slope b_u, and b is their mean. With s their standard deviation over U users the
  interval is b +- t(.975, U - 1) s / sqrt(U). A rise that levels off stays a rise, and a small drift of a few users is
  none.
"""

from __future__ import annotations

import itertools
import math
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.special import stdtrit
from transformers import TrainerCallback

from mllmrec.evaluation.metrics import FloatArray
from mllmrec.progress import note
from mllmrec.settings.training import GrpoSettings, TrainingSettings
from mllmrec.storage.workspace import read_jsonl
from mllmrec.training.callbacks import WATCHED, ValidationCallback, append_log
from mllmrec.training.checkpoints import LOG, TIMELINE
from mllmrec.training.grpo.rewards import CHOSEN

Row = dict[str, Any]
PARTS = ("hit_share", "format_share", "invalid_share")
COLUMNS = {
    "reward": "reward",
    "reward_std": "reward_std",
    "hit_share": "hit_share",
    "format_share": "format_share",
    "invalid_share": "invalid_share",
    "zero_advantage_share": "frac_reward_zero_std",
    "kl": "kl",
    "entropy": "entropy",
    "candidate_entropy": "candidate_entropy",
    "outside_mass": "outside_mass",
    "completion_tokens": "completions/mean_length",
    "thought_tokens": "thought_tokens",
    "thought_unfinished": "thought_unfinished",
}
"""Columns of metrics.jsonl, and the trainer's names for them."""

EQUAL_GROUPS = COLUMNS["zero_advantage_share"]
UNREWARDING = 0.9
"""Share of invalid answers, or of groups without advantage, from which on sampling is said to teach nothing."""

LEVEL = 0.95
FEWEST = 4
DIGITS = 12

FOLDER = "runs/timeline"


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
        """Report an alarm when it is new, and stop where that was asked for."""
        row = self.rows[-1]
        if not row.get("alarm"):
            return
        if not self.rows[-2].get("alarm"):
            note(f"Reward inflation: {judge(self.rows, self.validated.by_user, self.window)}.")
        if self.on_inflation == "stop":
            self.stopped_at = row["step"]
            control.should_training_stop = True
            note(f"Stopping at step {row['step']}, as --on-inflation stop asks; the best weights so far are kept.")


@dataclass(frozen=True, kw_only=True)
class InflationVerdict:
    """What a window of rows says: the slopes of the reward, of validation, and of the reward's parts."""

    first: int
    last: int
    reward: Slope
    validation: Slope
    parts: Mapping[str, Slope]

    @property
    def inflated(self) -> bool:
        return self.reward.rises and not self.validation.rises

    def __str__(self) -> str:
        parts = ", ".join(f"{name.replace('_', ' ')} {slope}" for name, slope in self.parts.items())
        return (
            f"from step {self.first} to {self.last} the training reward rose by {self.reward} and validation "
            f"{WATCHED} changed by {self.validation} (along fitted lines, 95 %). Of the reward's parts: {parts}"
        )


def judge(
    rows: Sequence[Mapping[str, Any]], by_user: Mapping[int, Sequence[float]], window: int
) -> InflationVerdict | None:
    """The verdict on the last `window` rows that hold a reward; None while there are fewer.

    `by_user` holds the validation metric of each user by step.
    """
    last = [row for row in rows if "reward" in row and row["step"] in by_user][-window:]
    if len(last) < window:
        return None
    steps = [row["step"] for row in last]
    series = {
        name: fit(steps, [row[name] for row in last]) for name in ("reward", *PARTS) if all(name in row for row in last)
    }
    validation = fit_users(steps, [by_user[step] for step in steps])
    return InflationVerdict(
        first=steps[0], last=steps[-1], reward=series.pop("reward"), validation=validation, parts=series
    )


def training_row(logs: Sequence[tuple[int, Mapping[str, Any]]], since: int) -> Row:
    """Means over the steps since `since` of the trainer's (step, line); a line stands for the steps since the last one.

    >>> training_row([(1, {"reward": 0.0}), (4, {"reward": 1.0})], since=0)
    {'since': 0, 'reward': 0.75}
    """
    row: Row = {"since": since}
    steps = [since, *(step for step, _ in logs)]
    weights = [after - before for before, after in itertools.pairwise(steps)]
    for column, name in COLUMNS.items():
        logged = [
            (weight, line[name]) for weight, (_, line) in zip(weights, logs, strict=True) if _is_logged(line, name)
        ]
        if logged:
            row[column] = _mean(logged)
    positions = [name for name in (logs[-1][1] if logs else {}) if name.startswith(CHOSEN)]
    if positions:
        positions.sort(key=lambda name: int(name.removeprefix(CHOSEN)))
        lines = [line for _, line in logs]
        row["chosen_positions"] = [
            _mean([(weight, line[name]) for weight, line in zip(weights, lines, strict=True)]) for name in positions
        ]
    return row


def read_rows(path: Path, up_to: int) -> list[Row]:
    """The rows of a log as far as step `up_to`; none where there is no log."""
    return [dict(row) for row in read_jsonl(path) if row["step"] <= up_to] if path.exists() else []


def unrewarding(settings: TrainingSettings, log: Path) -> str:
    """What GRPO's closing note says where nearly all that it sampled taught nothing, by the run's log; else empty.

    Answers that name no candidate earn the same, and a group whose rewards are equal has no advantage. Whole lists have
    neither.
    """
    if not isinstance(settings, GrpoSettings) or settings.rollouts == "exact" or not log.exists():
        return ""
    rows = [row for row in read_jsonl(log) if EQUAL_GROUPS in row]
    if not rows:
        return ""
    equal, invalid = (statistics.fmean(row.get(name, 0.0) for row in rows) for name in (EQUAL_GROUPS, "invalid_share"))
    if max(equal, invalid) < UNREWARDING:
        return ""
    return (
        f"Of the answers that were sampled {invalid:.0%} name no candidate, and in {equal:.0%} of the groups all "
        "rewards are equal, so that there was next to nothing to learn from. Another --lr won't change that: train "
        "with --rollouts exact, which weighs all candidates of a list by their exact probabilities and samples nothing."
    )


@dataclass(frozen=True, kw_only=True)
class Slope:
    """A change per step, the bounds of its 95 % interval, and the number of steps it was fitted over."""

    value: float
    low: float
    high: float
    span: int

    @property
    def rises(self) -> bool:
        """The whole interval lies above zero."""
        return self.low > 0

    def __str__(self) -> str:
        """The change along the fitted line from its first step to its last."""
        value, low, high = (bound * self.span for bound in (self.value, self.low, self.high))
        return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def fit(steps: Sequence[int], values: Sequence[float]) -> Slope:
    """The slope of at least four readings at distinct steps, by their scatter about the line.

    >>> fit([0, 10, 20, 30], [0.0, 0.1, 0.2, 0.3])
    Slope(value=0.01, low=0.01, high=0.01, span=30)
    >>> str(fit([0, 1, 2, 3], [0.0, 1.0, 0.0, 1.0]))
    '+0.600 [-3.051, +4.251]'
    """
    assert len(steps) == len(values) >= FEWEST, "a slope needs at least four readings"
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    slope = float(_slopes(x, y[:, None])[0])
    residuals = y - y.mean() - slope * (x - x.mean())
    error = np.sqrt(residuals @ residuals / (len(x) - 2)) / np.linalg.norm(x - x.mean())
    return _interval(x, slope, float(error), degrees=len(x) - 2)


def fit_users(steps: Sequence[int], values: Sequence[Sequence[float]]) -> Slope:
    """The slope of the mean of `values` (steps, users), each from 0 to 1, by how the users' own slopes differ.

    >>> str(fit_users([0, 10], [[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]]))
    '+0.250 [-0.209, +0.709]'
    """
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    slopes = _slopes(x, y)
    num_users = len(slopes)
    error = slopes.std(ddof=1) / np.sqrt(num_users) if num_users > 1 else 1.0  # one user shows nothing
    return _interval(x, float(slopes.mean()), float(error), degrees=max(1, num_users - 1))


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


def _is_logged(line: Mapping[str, Any], name: str) -> bool:
    return isinstance(line.get(name), (int, float)) and math.isfinite(line[name])


def _mean(weighted: Sequence[tuple[int, float]]) -> float:
    return math.fsum(weight * value for weight, value in weighted) / sum(weight for weight, _ in weighted)


def _slopes(x: FloatArray, y: FloatArray) -> FloatArray:
    """The least-squares slope of each column."""
    away = x - x.mean()
    slopes: FloatArray = away @ y / (away @ away)
    return slopes


def _interval(x: FloatArray, slope: float, error: float, degrees: int) -> Slope:
    """Bounds are rounded where digits mean nothing: a flat series has the slope zero, not 1e-18."""
    reach = float(stdtrit(degrees, (1 + LEVEL) / 2)) * error
    value, low, high = (round(bound, DIGITS) + 0.0 for bound in (slope, slope - reach, slope + reach))
    return Slope(value=value, low=low, high=high, span=int(x.max() - x.min()))
