"""The confidence in each trace, the traces that are kept, and the artifact of `mllmrec assess` that records both.

    prediction = logistic(lift / sqrt(spread^2 + error^2))        spread: root mean square of all lifts
    confidence = (modality^2 x prediction^2 x steps x length)^(1/6)

The confidence is the weighted geometric mean of the parts, each in [0, 1], so that a good part can't make up for a bad
one. Parts that are missing (no scorer was given, a draft has no steps) are left out of the mean. A lift of zero gives a
prediction of 0.5, and a lift that is small against its standard error stays near it. A rejected trace has confidence 0.
Of the others a share is kept, the highest confidence first, ties broken by the modality margin and then by hash; or all
that reach a threshold.

The artifact stores every trace with its scores, its confidence and whether it is kept. Because the scores are stored,
another share or threshold is applied without scoring anything again. Rows are read one at a time, once to collect the
numbers that decide and once to be written; only these numbers are held in memory.

Of near-duplicates the most trusted is kept. A text is its set of three-word runs, and two texts are near-duplicates
when the Jaccard similarity of their sets is at least 4/5. All are found exactly without comparing all pairs: with the
runs of every text ordered from rare to common, two such sets of n runs share L of their first n - ceil(4n/5) + L, so
that a text is compared only with those it shares several rare runs with. One of a group stays, the others are repeats
of it, and nothing is compared with those again.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mllmrec.data.draws import uniform
from mllmrec.data.title_spellings import words
from mllmrec.storage.json_streams import read_list, write_list

WEIGHTS = {"modality": 2.0, "prediction": 2.0, "steps": 1.0, "length": 1.0}
LESS_TRUSTED, REPEATS = "is less trusted than those kept", "repeats another trace"

Row = dict[str, Any]
Rows = Iterator[tuple[str, Row]]
SHARED, OF = 4, 5
RUN_WORDS, NUM_HASHES, CHUNK = 3, 1 << 22, 1000
COMMON = 8
Runs = NDArray[np.integer[Any]]


class Parts(NamedTuple):
    """The parts of one trace's confidence, and the reason for which it is rejected, None where it isn't.

    `modality`, `prediction`, `steps` and `length` lie in [0, 1]; `lift` and `lift_error` are in nats. `prediction` is
    computed from them when the lifts of all traces are known.
    """

    modality: float
    modality_margin: float
    lift: float | None
    lift_error: float | None
    steps: float | None
    length: float
    reason: str | None
    prediction: float | None = None


class KeepRule(NamedTuple):
    """Which of the traces that aren't rejected are kept: the share `keep`, or all with confidence >= `threshold`."""

    keep: float
    threshold: float | None
    seed: int


class TraceVerdict(NamedTuple):
    """The decision on one trace. `reason` is why it isn't kept, None where it is."""

    prediction: float | None
    confidence: float
    keep: bool
    reason: str | None


def decide(assessed: Mapping[str, Parts], rule: KeepRule) -> dict[str, TraceVerdict]:
    """The verdict on each trace, by example id."""
    whole = with_predictions(assessed)
    trusted = {key: confidence(parts) for key, parts in whole.items() if parts.reason is None}
    if rule.threshold is not None:
        kept = {key for key, value in trusted.items() if value >= rule.threshold}
    else:
        kept = set(sorted(trusted, key=ranking(whole, rule.seed))[: round(rule.keep * len(trusted))])
    return {
        key: TraceVerdict(
            prediction=parts.prediction,
            confidence=trusted.get(key, 0.0),
            keep=key in kept,
            reason=parts.reason if parts.reason is not None or key in kept else LESS_TRUSTED,
        )
        for key, parts in whole.items()
    }


def ranking(assessed: Mapping[str, Parts], seed: int) -> Callable[[str], tuple[float, float, float]]:
    """A sort key that puts the most trusted first: by confidence, then by margin, then by hash."""

    def rank(key: str) -> tuple[float, float, float]:
        parts = assessed[key]
        return -confidence(parts), -parts.modality_margin, uniform(seed, "keep", key)

    return rank


def with_predictions(assessed: Mapping[str, Parts]) -> dict[str, Parts]:
    """`assessed` with every lift turned into a prediction; lifts of rejected traces don't count for the scale."""
    lifts = [parts.lift for parts in assessed.values() if parts.reason is None and parts.lift is not None]
    spread = spread_of(lifts)
    return {key: parts._replace(prediction=prediction(parts, spread)) for key, parts in assessed.items()}


def confidence(parts: Parts) -> float:
    """The weighted geometric mean of the parts that are there, in [0, 1].

    >>> confidence(Parts(1.0, 2.5, None, None, None, 1.0, None, prediction=0.25))
    0.574349
    """
    values = {name: value for name in WEIGHTS if (value := getattr(parts, name)) is not None}
    if min(values.values()) <= 0:
        return 0.0
    total = sum(WEIGHTS[name] for name in values)
    return round(math.exp(sum(WEIGHTS[name] * math.log(value) for name, value in values.items()) / total), 6)


def prediction(parts: Parts, spread: float) -> float | None:
    """The lift on a scale of 0 to 1: 0.5 for a lift of zero, None without one. `spread` is in nats."""
    if parts.lift is None:
        return None
    scale = math.hypot(spread, parts.lift_error or 0.0)
    return round((1 + math.tanh(parts.lift / (2 * scale))) / 2, 6) if scale else 0.5


def spread_of(lifts: Sequence[float]) -> float:
    """The root mean square of lifts in nats; 0 for no lifts."""
    return math.sqrt(math.fsum(lift * lift for lift in lifts) / len(lifts)) if lifts else 0.0


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """The parts and the verdict of every trace, by example id."""

    parts: Mapping[str, Parts]
    verdicts: Mapping[str, TraceVerdict]

    def counts(self) -> dict[str, Any]:
        """The number of traces kept, and of those left out by reason, the commonest reason first."""
        reasons = Counter(verdict.reason for verdict in self.verdicts.values() if verdict.reason is not None)
        return {
            "kept": sum(verdict.keep for verdict in self.verdicts.values()),
            "left_out": dict(reasons.most_common()),
        }


def write_verdicts(path: Path, rows: Callable[[], Rows], rule: KeepRule) -> Assessment:
    """Reject near-duplicates, decide, and write the artifact; `rows` is called once for each pass over the rows.

    Of near-duplicates the most trusted one stays, so a text copied between users stays with the history it fits best.
    """
    parts = {key: _parts(row) for key, row in rows()}
    texts = ((key, row["reasoning"]) for key, row in rows() if row["reason"] is None)
    repeats = find_repeats(texts, ranking(with_predictions(parts), rule.seed))
    parts |= {key: parts[key]._replace(reason=REPEATS) for key in repeats}
    assessment = Assessment(parts=parts, verdicts=decide(parts, rule))
    write_list(path, (_decided(row, assessment.verdicts[key], repeats.get(key)) for key, row in rows()))
    return assessment


def decide_again(path: Path, rule: KeepRule) -> tuple[Assessment, bool]:
    """Apply a rule to the stored scores; also returns whether any verdict differs from the stored one."""
    parts, stored = dict[str, Parts](), dict[str, tuple[Any, ...]]()
    for row in read_list(path):
        key = row["example_id"]
        parts[key] = _parts(row)
        stored[key] = (row["scores"]["prediction"], row["confidence"], row["keep"], row["reason"])
    assessment = Assessment(parts=parts, verdicts=decide(parts, rule))
    changed = any(tuple(assessment.verdicts[key]) != before for key, before in stored.items())
    return assessment, changed


def stored_rows(path: Path) -> Rows:
    """The rows of a finished artifact without what was decided about them."""
    for row in read_list(path):
        reason = row["reason"] if row["reason"] not in (LESS_TRUSTED, REPEATS) else None
        scores = {name: value for name, value in row["scores"].items() if name not in ("prediction", "repeats")}
        kept = {name: value for name, value in row.items() if name not in ("scores", "confidence", "keep", "reason")}
        yield row["example_id"], {**kept, "scores": scores, "reason": reason}


def _parts(row: Row) -> Parts:
    names = ("modality", "modality_margin", "lift", "lift_error", "steps", "length")
    reason = row["reason"] if row["reason"] != LESS_TRUSTED else None
    return Parts(**{name: row["scores"][name] for name in names}, reason=reason)


def _decided(row: Row, verdict: TraceVerdict, repeats: str | None) -> Row:
    kept = {name: value for name, value in row.items() if name not in ("scores", "confidence", "keep", "reason")}
    return {
        **kept,
        "scores": {**row["scores"], "prediction": verdict.prediction, "repeats": repeats},
        "confidence": verdict.confidence,
        "keep": verdict.keep,
        "reason": verdict.reason,
    }


def find_repeats(texts: Iterable[tuple[str, str]], rank: Callable[[str], Any] | None = None) -> dict[str, str]:
    """For (key, text) pairs, a mapping of each repeat's key to the key of the text that it repeats.

    Of near-duplicates the one whose key `rank` puts first stays; without `rank` the first in order.

    >>> pairs = [("a", "one two three four"), ("b", "five six seven"), ("c", "One two three, four!")]
    >>> find_repeats(pairs), find_repeats(pairs, lambda key: -ord(key))
    ({'c': 'a'}, {'a': 'c'})
    """
    keys, sets = hashed_runs(texts)
    order = sorted(range(len(keys)), key=lambda at: rank(keys[at])) if rank is not None else range(len(keys))
    frequency = np.bincount(np.concatenate([np.empty(0, np.int32), *sets]), minlength=1)
    by_run: defaultdict[int, array[int]] = defaultdict(lambda: array("i"))
    repeats: dict[str, str] = {}
    for position, at in enumerate(order):
        rare = _rarest(sets[at], frequency)
        enough = min(COMMON, -(-SHARED * len(sets[at]) // OF))
        candidates = (order[other] for other in _sharing(rare, by_run, enough))
        original = next((other for other in candidates if alike(sets[at], sets[other])), None)
        if original is not None:
            repeats[keys[at]] = keys[original]
            continue
        for run in rare:
            by_run[run].append(position)
    return repeats


def alike(one: Runs, other: Runs) -> bool:
    """Whether two sets, given as sorted hashes, have a Jaccard similarity of at least 4/5."""
    shorter, longer = sorted((len(one), len(other)))
    if OF * shorter < SHARED * longer:
        return False
    common = len(np.intersect1d(one, other, assume_unique=True))
    return OF * common >= SHARED * (shorter + longer - common)


def hashed_runs(texts: Iterable[tuple[str, str]]) -> tuple[list[str], list[Runs]]:
    """The keys, and of each text the set of its runs as sorted hashes."""
    from sklearn.feature_extraction.text import HashingVectorizer

    counter = HashingVectorizer(analyzer=_runs, n_features=NUM_HASHES, alternate_sign=False, norm=None)
    keys, sets, pairs = list[str](), list[Runs](), iter(texts)
    while chunk := list(islice(pairs, CHUNK)):
        counted = counter.transform([text for _, text in chunk])
        counted.sort_indices()
        keys += [key for key, _ in chunk]
        sets += [counted.indices[start:end].astype(np.int32) for start, end in pairwise(counted.indptr)]
    return keys, sets


def _rarest(own: Runs, frequency: Runs) -> list[int]:
    """The first runs of a text from rare to common, without those that no other text has."""
    ordered = own[np.argsort(frequency[own], kind="stable")]
    length = len(own) - -(-SHARED * len(own) // OF) + COMMON
    return [run for run in ordered[:length].tolist() if frequency[run] > 1]


def _sharing(rare: Sequence[int], by_run: Mapping[int, array[int]], enough: int) -> list[int]:
    """The positions, ascending, of the earlier texts that have at least `enough` of these runs."""
    lists = [np.frombuffer(by_run[run], dtype=np.int32) for run in rare if run in by_run]
    if len(lists) < enough:
        return []
    counts = np.bincount(np.concatenate(lists))
    positions: list[int] = np.flatnonzero(counts >= enough).tolist()
    return positions


def _runs(text: str) -> Sequence[str]:
    """The runs of three words; a shorter text is one run."""
    written = words(text)
    return [" ".join(written[at : at + RUN_WORDS]) for at in range(max(1, len(written) - RUN_WORDS + 1))]
