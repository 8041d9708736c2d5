"""Checks of a blend: its scores, its weights and what each part adds, from the rankings of its parts.

Scores are standardised in plain Python. That weights are the best ones is seen from the slope of the loss at them,
which vanishes nowhere else, and the losses by which features and penalty were chosen are computed again by Newton's
method, which goes by the curvature where the first implementation searches along slopes. Where a part's rankings are
gone or were changed since, all of it is taken on trust.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mllmrec.data.draws import generator, uniform
from mllmrec.evaluation.verifying.checks import Checks
from mllmrec.evaluation.verifying.metrics import DETECTABLE, DRAWN_AT_ONCE, DRAWS, expected_names, resampled, value_of
from mllmrec.evaluation.verifying.rankings import target_of
from mllmrec.settings.evaluation import BlendedRunSettings
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import sha256

SCORES, WEIGHTS, ADDS = "blended scores", "weights of the blend", "what each part adds"
PENALTIES = ("1", "0.1", "0.01", "0.001", "0.0001", "1e-05")
CLOSE, CLOSE_LOSS, FLAT = 1e-9, 1e-6, 1e-6
STEPS, DIGITS = 50, 12


class PartsList(NamedTuple):
    """One list with the scores of every part."""

    row: dict[str, Any]
    scores: list[list[float]]

    @property
    def target(self) -> int:
        return int(self.row["candidates"].index(self.row["target_id"]))


class StackedLists(NamedTuple):
    """Lists of one length: features (lists, candidates, parts), and the index of each target."""

    features: Any
    targets: Any


def check_blend(
    checks: Checks,
    folder: Path,
    facts: Mapping[str, Any],
    manifest: Manifest,
    settings: BlendedRunSettings,
    roots: Sequence[Path],
) -> None:
    """Compare what metrics.json tells of a blend with what follows from the rankings of its parts."""
    blend, names = facts.get("blend"), list(settings.parts)
    if not checks.look(WEIGHTS, blend is not None, "metrics.json doesn't tell of a blend"):
        return
    assert blend is not None
    told = [sorted(blend["parts"]), sorted(blend["without"])]
    if not checks.equal(WEIGHTS, "the parts, and the parts left out", told, [sorted(names)] * 2):
        return
    fits: dict[int | None, Any] = {None: blend["whole"]}
    fits |= {names.index(name): own for name, own in blend["without"].items()}
    for left_out, own in fits.items():
        expected = sorted(name for part, name in enumerate(names) if part != left_out)
        if not checks.equal(WEIGHTS, "the parts with a weight", sorted(own["weights"]), expected):
            return
    lists = {split: _read_lists(blend, manifest, names, split, roots) for split in ("valid", "test")}
    if None in lists.values():
        checks.on_trust.append("how its parts were blended, because their rankings are no longer those it was made of")
        return
    valid, test = lists["valid"] or {}, lists["test"] or {}
    _check_scores(checks, folder, blend, names, test)
    fitted = [own for own in valid.values() if own.row["target_id"] in own.row["candidates"]]
    counts = {"fitted": len(fitted), "left_out": len(valid) - len(fitted)}
    checks.equal(WEIGHTS, "the number of lists", blend["lists"], counts)
    for left_out, own in fits.items():
        _check_weights(checks, own, [part for part in range(len(names)) if part != left_out], fitted, settings)
    _check_adds(checks, facts, names, list(test.values()), settings)


def standardised(scores: Sequence[float], kind: str) -> list[float]:
    """Scores, or their ranks, with mean 0 and deviation 1 over the list; zeros where all are equal.

    >>> standardised([4.0, 8.0], "scores"), standardised([1.0, 1.0, 9.0], "ranks") == standardised([2, 2, 5], "scores")
    ([-1.0, 1.0], True)
    """
    values = list(scores)
    if kind == "ranks":
        order = sorted(values)
        values = [order.index(score) + order.count(score) / 2 for score in values]
    if len(set(values)) == 1:
        return [0.0] * len(values)
    mean, deviation = statistics.fmean(values), statistics.pstdev(values)
    return [(value - mean) / deviation for value in values]


def _read_lists(
    blend: Mapping[str, Any], manifest: Manifest, names: Sequence[str], split: str, roots: Sequence[Path]
) -> dict[str, PartsList] | None:
    """The lists by example; None where the rankings of a part are gone or others now."""
    lists: dict[str, PartsList] = {}
    for name in names:
        paths = [root / blend["parts"][name][split] / "rankings.jsonl" for root in roots]
        path = next((path for path in paths if path.is_file()), None)
        if path is None or sha256(path) != manifest.inputs.get(f"{split} {name}"):
            return None
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            lists.setdefault(row["example_id"], PartsList(row, [])).scores.append(row["scores"])
    return lists


def _blended(own: PartsList, fit: Mapping[str, Any], names: Sequence[str]) -> list[float]:
    """The list's scores under some weights."""
    total = [0.0] * len(own.scores[0])
    for name, weight in fit["weights"].items():
        features = standardised(own.scores[names.index(name)], fit["features"])
        total = [score + weight * feature for score, feature in zip(total, features, strict=True)]
    return [round(score, DIGITS) for score in total]


def _check_scores(
    checks: Checks, folder: Path, blend: Mapping[str, Any], names: Sequence[str], test: Mapping[str, PartsList]
) -> None:
    for number, line in enumerate((folder / "rankings.jsonl").read_text(encoding="utf-8").splitlines(), 1):
        row = json.loads(line)
        own = test.get(row["example_id"])
        if own is None or own.row["candidates"] != row["candidates"]:
            checks.look(SCORES, False, f"line {number}: the parts ranked no such list")
            continue
        expected = _blended(own, blend["whole"], names)
        far = max(abs(one - two) for one, two in zip(row["scores"], expected, strict=True))
        checks.look(SCORES, far <= CLOSE, f"line {number}: a score is off by {far:.1e} from that of the weights")


def _check_weights(
    checks: Checks,
    fit: Mapping[str, Any],
    parts: Sequence[int],
    lists: Sequence[PartsList],
    settings: BlendedRunSettings,
) -> None:
    """The slope at the weights, and the losses of users left out by which features and penalty were chosen."""
    kinds = ["scores", "ranks"] if settings.features == "auto" else [settings.features]
    checks.equal(WEIGHTS, "the features that were tried", list(fit["held_out_loss"]), kinds)
    names = [settings.parts[part] for part in parts]
    what = f"of {', '.join(names)}"
    folds = np.array(
        [int(uniform(settings.fold_seed, "blend/folds", own.row["user_id"]) * settings.folds) for own in lists]
    )
    again: dict[tuple[str, str], float] = {}
    for kind in kinds:
        features = [np.array([standardised(own.scores[part], kind) for part in parts]).T for own in lists]
        targets = [own.target for own in lists]
        if kind == fit["features"]:
            weights = np.array([fit["weights"][name] for name in names])
            _, slope, _ = _loss(weights, _by_length(features, targets), fit["penalty"])
            steep = float(np.abs(slope).max())
            checks.look(WEIGHTS, steep <= FLAT, f"the weights {what} aren't the best ones: the slope is {steep:.1e}")
        losses = _held_out(features, targets, folds.tolist())
        for penalty in PENALTIES:
            again[kind, penalty] = losses[penalty]
            reported = fit["held_out_loss"].get(kind, {}).get(penalty)
            name = f"the held-out loss {what} with {kind} and penalty {penalty}"
            checks.near(WEIGHTS, name, reported, again[kind, penalty], CLOSE_LOSS)
    chosen = again.get((fit["features"], f"{fit['penalty']:g}"), math.inf)
    best = min(again, key=again.__getitem__)
    difference = f"{fit['features']} and penalty {fit['penalty']:g} were taken {what}, and {' and '.join(best)} do best"
    checks.look(WEIGHTS, chosen <= again[best] + CLOSE_LOSS, difference)


def _held_out(features: Sequence[Any], targets: Sequence[int], folds: Sequence[int]) -> dict[str, float]:
    """For each penalty the mean loss of each fold's lists under weights fitted on the others."""
    totals = dict.fromkeys(PENALTIES, 0.0)
    for fold in set(folds):
        numbers = [[n for n, own in enumerate(folds) if (own == fold) == inside] for inside in (True, False)]
        inside, outside = (_by_length([features[n] for n in own], [targets[n] for n in own]) for own in numbers)
        for penalty in PENALTIES:
            weights = _newton(outside, float(penalty))
            totals[penalty] += len(numbers[0]) * _loss(weights, inside, 0.0)[0]
    return {penalty: total / len(targets) for penalty, total in totals.items()}


def _newton(lists: Sequence[StackedLists], penalty: float) -> Any:
    """The best weights, by Newton's method with steps halved until the loss falls."""
    weights = np.zeros(lists[0].features.shape[2])
    for _ in range(STEPS):
        loss, slope, curvature = _loss(weights, lists, penalty)
        step = np.linalg.solve(curvature, slope)
        if np.abs(step).max() < 1e-9:
            break
        size = 1.0
        while size > 1e-6 and _loss(weights - size * step, lists, penalty)[0] > loss:
            size /= 2
        weights = weights - size * step
    return weights


def _by_length(features: Sequence[Any], targets: Sequence[int]) -> list[StackedLists]:
    lengths = [len(own) for own in features]
    chosen = [[number for number, own in enumerate(lengths) if own == length] for length in sorted(set(lengths))]
    return [
        StackedLists(np.stack([features[number] for number in own]), np.array([targets[number] for number in own]))
        for own in chosen
    ]


def _loss(weights: Any, lists: Sequence[StackedLists], penalty: float) -> tuple[float, Any, Any]:
    """The penalised mean loss at some weights, its slope and its curvature."""
    loss, slope, curvature = penalty / 2 * float(weights @ weights), penalty * weights, penalty * np.eye(len(weights))
    count = sum(len(own.targets) for own in lists)
    for features, targets in lists:
        utilities = features @ weights
        utilities -= utilities.max(axis=1, keepdims=True)
        chances = np.exp(utilities)
        chances /= chances.sum(axis=1, keepdims=True)
        rows = np.arange(len(targets))
        weighted = chances[:, :, None] * features
        expected = weighted.sum(axis=1)
        loss -= float(np.log(chances[rows, targets]).sum()) / count
        slope = slope + (expected - features[rows, targets]).sum(axis=0) / count
        spread = np.tensordot(weighted, features, axes=([0, 1], [0, 1])) - expected.T @ expected
        curvature = curvature + spread / count
    return loss, slope, curvature


def _check_adds(
    checks: Checks, facts: Mapping[str, Any], names: Sequence[str], test: Sequence[PartsList], settings: Any
) -> None:
    """The differences between the blend and the blend of the others, with interval, p-value and detectable size."""
    blend = facts["blend"]
    metrics = [name for name in expected_names(settings.top_k) if name not in facts["vacuous"]]
    verdict = "NDCG@3" if "NDCG@3" in metrics else metrics[-1]
    checks.equal(ADDS, "the metric of the verdict", blend["metric"], verdict)
    whole, columns = _values(test, blend["whole"], names, metrics), dict[tuple[str, str], Any]()
    for name, own in blend["without"].items():
        checks.equal(ADDS, f"the metrics of {name}", list(own["adds"]), metrics)
        others = _values(test, own, names, metrics)
        columns |= {(name, metric): whole[metric] - others[metric] for metric in metrics}
    bounds = dict(zip(columns, resampled(list(columns.values()), settings.seed), strict=True))
    chances = dict(zip(columns, _sign_p_values(list(columns.values()), settings.seed), strict=True))
    for metric in metrics:
        family = sorted((chances[name, metric], name) for name in names)
        highest = 0.0
        for smaller, (chance, name) in enumerate(family):
            highest = max(highest, min(1.0, (len(names) - smaller) * chance))
            column = columns[name, metric]
            spread = statistics.stdev(column.tolist()) if len(column) > 1 else math.inf
            expected = {
                "value": float(column.mean()),
                "low": bounds[name, metric][0],
                "high": bounds[name, metric][1],
                "p": chance,
                "p_holm": highest,
                "detectable": DETECTABLE * spread / len(column) ** 0.5,
            }
            reported = blend["without"][name]["adds"].get(metric, {})
            for key, value in expected.items():
                checks.near(ADDS, f"{key} of {name} in {metric}", reported.get(key), value, CLOSE)


def _values(
    test: Sequence[PartsList], fit: Mapping[str, Any], names: Sequence[str], metrics: Sequence[str]
) -> dict[str, Any]:
    """Each metric of each user under some weights."""
    users = [target_of(own.row | {"scores": _blended(own, fit, names)}, False, 1) for own in test]
    return {metric: np.array([value_of(metric, user.positions) for user in users]) for metric in metrics}


def _sign_p_values(columns: Sequence[Any], seed: int) -> list[float]:
    """The share of random choices of signs that make a mean difference as large as each column's."""
    num_users = len(columns[0])
    rng = np.random.default_rng(generator(seed, "statistics", "signs").getrandbits(128))
    differences, reached = np.stack(columns, axis=1), np.zeros(len(columns))
    least = np.abs(differences.sum(axis=0)) - 1e-9 * np.abs(differences).sum(axis=0)
    for start in range(0, DRAWS, DRAWN_AT_ONCE):
        rows = min(DRAWN_AT_ONCE, DRAWS - start)
        bits = np.unpackbits(np.frombuffer(rng.bytes(rows * (num_users // 8 + 1)), dtype=np.uint8))
        signs = np.where(bits.reshape(rows, -1)[:, :num_users] == 1, 1.0, -1.0)
        reached += (np.abs(signs @ differences) >= least).sum(axis=0)
    shares: list[float] = ((1 + reached) / (1 + DRAWS)).tolist()
    return shares
