"""Tuning, fitting and caching of baselines: each is tuned once, fitted once, and read from its cache the next time.

    fitting = Fitting(workspace=workspace, dataset="movielens", interactions=interactions, window=10, seed=42)
    fitted = open_baseline("itemknn", fitting, "test")
    fitted.baseline.score_items(examples, items)          # (examples, items)

For the test split a baseline learns from all of train.tsv; for validation, and while it is tuned, from the same lines
without the validation targets. The cache is data/<dataset>/processed/baselines/<name>_w<window>_s<seed>/: `tuned` holds
the chosen point with the metrics of the whole grid, `test` the model fitted with it for test, where that differs. A
cache whose inputs or settings changed since is made anew, and a note says so. A baseline with nothing to tune isn't
cached. Tuning that was interrupted goes on after the last point that it judged.

A point is chosen on validation alone. Every point of the grid is fitted on the train lines without validation targets
and judged by NDCG@10 over lists of the target and 99 uniform negatives (fewer where the catalogue is small), drawn for
tuning alone, of at most 1,000 validation users. A baseline that reads histories is judged on the model's window and on
the full history by the mean of both, so that one point serves both rows. The first of equal points wins.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mllmrec.data.candidates.drawing import questions, with_candidates
from mllmrec.data.candidates.negatives import PoolSampler
from mllmrec.data.draws import uniform
from mllmrec.data.sequences import Interactions, Line
from mllmrec.evaluation.baselines.base import Baseline, with_full_history
from mllmrec.evaluation.baselines.families import FAMILIES, Family, Fitting, Params, check_installed
from mllmrec.evaluation.metrics import means, per_user
from mllmrec.evaluation.ranking.rankings import position_of, ranking_of
from mllmrec.progress import note, progress
from mllmrec.records import RankingExample, Split
from mllmrec.settings.evaluation import BaselineFitSettings
from mllmrec.storage.locks import locked
from mllmrec.storage.log_lines import header_of, log_of_its_own
from mllmrec.storage.manifests import Manifest, altered, differences, hash_files, unmark, write_manifest
from mllmrec.storage.record_log import RecordLog

METRIC, NEGATIVES, USERS = "NDCG@10", 99, 1000


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A baseline that can score, how it came about, and whether it was read from the cache."""

    baseline: Baseline
    tuning: Tuning | None
    fit_seconds: float
    cached: bool


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


def open_baseline(name: str, fitting: Fitting, split: Split) -> Fitted:
    """The named baseline, tuned and fitted for `split`. Raises SettingsError when its library isn't installed."""
    check_installed([name])
    family, started = FAMILIES[name], time.monotonic()
    if not family.tuned:
        baseline = family.make(family.grid[0], fitting).fit(lines_for(fitting, split))
        return Fitted(baseline=baseline, tuning=None, fit_seconds=time.monotonic() - started, cached=False)
    with locked(_folder(name, fitting), wait=True):
        of_train = split == "valid" or not fitting.interactions.held_out
        fitted = _tuned(name, fitting) if of_train else _refitted(name, fitting)
        for log in _folder(name, fitting).glob("*.partial.jsonl"):
            log.unlink()
        return fitted


def read_fitted(name: str, fitting: Fitting, split: Split) -> Fitted | None:
    """A tuned baseline from its cache, or None where there is none that holds. Nothing is written."""
    of_train = split == "valid" or not fitting.interactions.held_out
    folder = _folder(name, fitting) / ("tuned" if of_train else "test")
    if (kept := _kept(folder, name, fitting)) is None:
        return None
    return _restored(name, kept, folder, lines_for(fitting, split), fitting)


def lines_for(fitting: Fitting, split: Split) -> Sequence[Line]:
    """The training lines from which a baseline may learn before it ranks `split`."""
    return fitting.interactions.train if split == "test" else fitting.interactions.fit_lines()


def fit_inputs(name: str, fitting: Fitting) -> dict[str, str]:
    """Hashes by role of all that decides what a tuned baseline learns, besides seed and window."""
    family, workspace = FAMILIES[name], fitting.workspace
    if not family.tuned:
        return {}
    files = workspace.dataset(fitting.dataset)
    inputs = files.source_hashes(("train", "valid"))
    if family.reads_texts:
        inputs |= hash_files(captions=files.captions)
        inputs["embedder"] = fitting.embedder
    return inputs | {"grid": hashlib.sha256(json.dumps(family.grid, sort_keys=True).encode()).hexdigest()}


def tune(name: str, family: Family, fitting: Fitting, judged: RecordLog) -> tuple[Baseline, Tuning]:
    """The baseline of the best point, fitted on the lines that tuning may count.

    `judged` is the working log of points, by `key_of`: those that it holds were judged before an interruption and
    aren't fitted again, but for the chosen one.
    """
    lines, started = fitting.interactions.fit_lines(), time.monotonic()
    judge = make_judge(fitting)
    if judge is None:
        point = family.grid[0]
        tuning = Tuning(
            point=point, by="nothing: there are no validation users with a window, so the first point is used"
        )
        return family.make(point, fitting).fit(lines), tuning
    best, best_value, rows = None, float("-inf"), list[dict[str, Any]]()
    with progress(f"tuning {name}", len(family.grid)) as advance:
        for point in family.grid:
            baseline, key = None, key_of(point)
            if judged.left([key]):
                baseline = family.make(point, fitting)
                value = round(baseline.fit_judged(lines, judge), 6)
                judged.append(key, "row", {**point, **baseline.settled(), METRIC: value})
            rows.extend(row for _, row in judged.rows([key]))
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


def _tuned(name: str, fitting: Fitting) -> Fitted:
    """The best point of the grid, as it was fitted to be judged."""
    folder, started = _folder(name, fitting) / "tuned", time.monotonic()
    if (kept := _kept(folder, name, fitting)) is not None:
        return _restored(name, kept, folder, fitting.interactions.fit_lines(), fitting)
    with closing(_log(folder, name, fitting)) as judged:
        judged.read()
        if known := judged.recorded():
            note(f"{name}: {len(known)} of {len(FAMILIES[name].grid)} points were judged before.")
        baseline, tuning = tune(name, FAMILIES[name], fitting, judged)
    return _keep(baseline, tuning, folder, name, fitting, started)


def _refitted(name: str, fitting: Fitting) -> Fitted:
    """The best point once more, on all train lines."""
    tuned = _kept(_folder(name, fitting) / "tuned", name, fitting)
    tuning = Tuning(**tuned.details["tuning"]) if tuned else _tuned(name, fitting).tuning
    assert tuning is not None, "tuning makes one"
    folder, lines, started = _folder(name, fitting) / "test", fitting.interactions.train, time.monotonic()
    kept = _kept(folder, name, fitting)
    if kept is not None and kept.details["tuning"] == asdict(tuning):
        return _restored(name, kept, folder, lines, fitting)
    return _keep(FAMILIES[name].make(tuning.point, fitting).fit(lines), tuning, folder, name, fitting, started)


def _restored(name: str, kept: Manifest, folder: Path, lines: Sequence[Line], fitting: Fitting) -> Fitted:
    tuning = Tuning(**kept.details["tuning"])
    baseline = FAMILIES[name].make(tuning.point, fitting).restore(folder, lines)
    return Fitted(baseline=baseline, tuning=tuning, fit_seconds=kept.seconds, cached=True)


def _keep(baseline: Baseline, tuning: Tuning, folder: Path, name: str, fitting: Fitting, started: float) -> Fitted:
    folder.mkdir(parents=True, exist_ok=True)
    unmark(folder)
    baseline.save(folder)
    manifest = write_manifest(
        folder, _settings(name, fitting), fit_inputs(name, fitting), started=started, details={"tuning": asdict(tuning)}
    )
    return Fitted(baseline=baseline, tuning=tuning, fit_seconds=manifest.seconds, cached=False)


def _kept(folder: Path, name: str, fitting: Fitting) -> Manifest | None:
    """The manifest of a cache that still holds; None when there is none or it is stale."""
    manifest = Manifest.read(folder)
    if manifest is None:
        return None
    settings = _settings(name, fitting)
    stale = [
        *differences("setting", settings.completed(manifest.result_settings), settings.result_settings()),
        *differences("input", manifest.inputs, fit_inputs(name, fitting)),
        *(f"{output} is gone or was altered" for output in altered(folder, manifest)),
    ]
    if stale:
        note(f"{folder} is stale: {'; '.join(stale)}. {name} is fitted anew where it is needed.")
    return None if stale else manifest


def _log(folder: Path, name: str, fitting: Fitting) -> RecordLog:
    """The working log of tuning; what was judged on other inputs or with other settings has another name."""
    header = header_of(_settings(name, fitting).result_settings(), fit_inputs(name, fitting))
    if logs := sorted(folder.parent.glob(f"{folder.name}-*.partial.jsonl")):
        names = ", ".join(path.name for path in logs)
        note(f"{folder.parent}: an earlier version wrote {names} in another form; the points in it are judged again.")
    return RecordLog(log_of_its_own(folder, header), header)


def _settings(name: str, fitting: Fitting) -> BaselineFitSettings:
    known: Mapping[str, Any] = {"dataset": fitting.dataset, "name": name, "seed": fitting.seed}
    return BaselineFitSettings(**known, min_inter=fitting.window, root=str(fitting.workspace.root))


def _folder(name: str, fitting: Fitting) -> Path:
    processed = fitting.workspace.dataset(fitting.dataset).processed
    return processed / "baselines" / f"{name}_w{fitting.window}_s{fitting.seed}"


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
