"""Choosing a baseline's point on validation, and nothing but validation.

Every point of the grid is fitted on the train lines without validation targets and judged by NDCG@10 over lists of the
target and 99 uniform negatives (fewer where the catalogue is small), drawn for tuning alone, of at most 1,000
validation users. What reads histories is judged on the model's window and on the full history, and the mean counts, so
that one point serves both rows. The first of equal points wins.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mllmrec.data.candidates import questions, with_candidates
from mllmrec.data.draws import uniform
from mllmrec.data.negatives import PoolSampler
from mllmrec.data.sequences import Interactions, Line
from mllmrec.evaluation.baselines.base import Baseline, with_full_history
from mllmrec.evaluation.baselines.families import Family, Fitting, Params
from mllmrec.evaluation.metrics import means, per_user
from mllmrec.evaluation.rankings import position_of, ranking_of
from mllmrec.loglines import RecordLog
from mllmrec.progress import progress
from mllmrec.records import RankingExample

METRIC, NEGATIVES, USERS = "NDCG@10", 99, 1000


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The chosen point, and what every point of the grid reached; `by` says what was measured, in words."""

    point: Params
    by: str
    seconds: float = 0.0
    grid: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Judge:
    """The mean of the metric over validation lists, at the window and at full history."""

    window: Sequence[RankingExample]
    full: Sequence[RankingExample]

    def __call__(self, baseline: Baseline) -> float:
        if not baseline.reads_history or self.window == self.full:
            return _mean(baseline, self.window)
        return (_mean(baseline, self.window) + _mean(baseline, self.full)) / 2

    def __str__(self) -> str:
        negatives = len(self.window[0].candidates) - 1
        return f"{METRIC}/uni{negatives} of {len(self.window)} validation users, window and full history"


def tune(name: str, family: Family, fitting: Fitting, judged: RecordLog) -> tuple[Baseline, Tuning]:
    """The baseline of the best point, fitted on the lines that tuning may count.

    `judged` is the working log of points, by `key_of`: those that stand in it were judged before an interruption and
    aren't fitted again, but for the chosen one.
    """
    lines, started = fitting.interactions.fit_lines(), time.monotonic()
    judge = make_judge(fitting)
    if judge is None:
        point = family.grid[0]
        told = Tuning(
            point=point, by="nothing: there are no validation users with a window, so the first point is used"
        )
        return family.make(point, fitting).fit(lines), told
    best, best_value, rows = None, float("-inf"), list[dict[str, Any]]()
    with progress(f"tuning {name}", len(family.grid)) as advance:
        for point in family.grid:
            baseline = None
            if key_of(point) not in judged:
                baseline = family.make(point, fitting)
                value = round(baseline.fit_judged(lines, judge), 6)
                judged.append([{"key": key_of(point), "row": {**point, **baseline.settled(), METRIC: value}}])
            rows.append(judged.rows()[key_of(point)]["row"])
            if rows[-1][METRIC] > best_value:
                best, best_value = baseline, rows[-1][METRIC]
            advance(1)
    chosen = max(rows, key=lambda row: float(row[METRIC]))
    point = {key: value for key, value in chosen.items() if key != METRIC}
    if best is None:
        best = family.make(point, fitting).fit(lines)
    return best, Tuning(point=point, by=str(judge), grid=rows, seconds=round(time.monotonic() - started, 3))


def key_of(point: Params) -> str:
    """A point in the working log.

    >>> key_of({"kind": "tfidf", "K": 50})
    '{"K": 50, "kind": "tfidf"}'
    """
    return json.dumps(dict(point), sort_keys=True)


def make_judge(fitting: Fitting) -> Judge | None:
    """The lists that tuning is judged on; None where no validation user has a window."""
    interactions = fitting.interactions
    lines = [line for line in interactions.lines("valid") if len(line.items) >= fitting.window]
    if not lines:
        return None
    asked, _ = questions(lines, "valid", fitting.window)
    asked.sort(key=lambda example: uniform(fitting.seed, "baselines/tuning users", example.example_id))
    window = _draw(asked[:USERS], interactions, fitting.seed)
    return Judge(window=window, full=with_full_history(window, _lines_of(window, lines)))


def _draw(asked: Sequence[RankingExample], interactions: Interactions, seed: int) -> list[RankingExample]:
    pool, known = interactions.pool("valid"), interactions.known("valid")
    widest = max(len(known[example.user_id].union(example.history)) for example in asked)
    num_neg = max(1, min(NEGATIVES, len(pool) - widest))
    sampler = PoolSampler(pool)
    return [
        with_candidates(example, sampler, known[example.user_id], num_neg, seed, "baselines/tuning")
        for example in asked
    ]


def _lines_of(examples: Sequence[RankingExample], lines: Sequence[Line]) -> list[Line]:
    users = {example.user_id for example in examples}
    return [line for line in lines if line.user_id in users]


def _mean(baseline: Baseline, examples: Sequence[RankingExample]) -> float:
    lists = zip(examples, baseline.score_lists(examples), strict=True)
    positions = [position_of(ranking_of(example, scores)) for example, scores in lists]
    return means(per_user(positions, [METRIC]))[0]
