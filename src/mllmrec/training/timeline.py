"""The timeline of a GRPO run: what a row of metrics.jsonl holds, and what a window of rows says about inflation.

A row stands for a validation. Its training figures are means over the steps since the row before, from the trainer's
own log lines; beside them are the exact validation metrics of the weights at that step.

The verdict fits a line to the reward and one to the validation metric over the last rows (slopes.py). The reward is
inflated when its slope is positive, the 95 % interval wholly above zero, and that of validation is not. A rise too
small to be told from none counts as none: the verdict then says that validation doesn't show what the reward claims,
and tells the intervals.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllmrec.artifacts import read_jsonl
from mllmrec.training.callbacks import WATCHED
from mllmrec.training.rewards import CHOSEN
from mllmrec.training.slopes import Slope, fit, fit_users

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
}
"""Columns of metrics.jsonl, and the trainer's names for them."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
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


def judge(rows: Sequence[Mapping[str, Any]], by_user: Mapping[int, Sequence[float]], window: int) -> Verdict | None:
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
    return Verdict(first=steps[0], last=steps[-1], reward=series.pop("reward"), validation=validation, parts=series)


def training_row(logs: Sequence[tuple[int, Mapping[str, Any]]], since: int) -> Row:
    """Means over the steps since `since` of the trainer's (step, line); a line stands for the steps since the last one.

    >>> training_row([(1, {"reward": 0.0}), (4, {"reward": 1.0})], since=0)
    {'since': 0, 'reward': 0.75}
    """
    row: Row = {"since": since}
    steps = [since, *(step for step, _ in logs)]
    weights = [after - before for before, after in itertools.pairwise(steps)]
    for column, name in COLUMNS.items():
        told = [(weight, line[name]) for weight, (_, line) in zip(weights, logs, strict=True) if _told(line, name)]
        if told:
            row[column] = _mean(told)
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


def _told(line: Mapping[str, Any], name: str) -> bool:
    return isinstance(line.get(name), (int, float)) and math.isfinite(line[name])


def _mean(weighted: Sequence[tuple[int, float]]) -> float:
    return math.fsum(weight * value for weight, value in weighted) / sum(weight for weight, _ in weighted)
