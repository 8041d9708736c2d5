"""From the parts of a trace's assessment to one confidence, and from that to what is kept.

    prediction = logistic(lift / sqrt(spread^2 + error^2))        spread: root mean square of all lifts
    confidence = (modality^2 x prediction^2 x steps x length)^(1/6)

It is the weighted geometric mean of the parts, each in [0, 1], so that a good one can't make up for a bad one; without
a scorer, or for drafts without steps, the mean is taken over the parts that are there. A lift of zero gives a
prediction of one half, and one that its error doesn't tell from zero stays near it. A rejected trace has confidence 0.
What is kept is a share of the others, the highest confidence first, ties broken by the margin of the modality and then
by hash; or all that reach a threshold.

The artifact of `mllmrec assess`: every trace with its scores, its confidence and whether it is kept.

The scores are stored and the choice is made of them, so that it can be made again. Rows are read one at a time, once to
collect what decides and once to be written; only a few numbers of each are held.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mllmrec.data.draws import uniform
from mllmrec.reasoning.assessment.repetition import find_repeats
from mllmrec.storage.json_streams import read_list, write_list

WEIGHTS = {"modality": 2.0, "prediction": 2.0, "steps": 1.0, "length": 1.0}
LESS_TRUSTED = "is less trusted than those kept"

REPEATS = "repeats another trace"
Row = dict[str, Any]
Rows = Iterator[tuple[str, Row]]


class Parts(NamedTuple):
    """What is known of one trace: the parts of its confidence, and why it is rejected, if it is.

    `prediction` comes of `lift` and `lift_error` when all lifts are known.
    """

    modality: float
    modality_margin: float
    lift: float | None
    lift_error: float | None
    steps: float | None
    length: float
    reason: str | None
    prediction: float | None = None


class Choice(NamedTuple):
    """How to choose among the traces that aren't rejected: a share of them, or all that reach a threshold."""

    keep: float
    threshold: float | None
    seed: int


class Verdict(NamedTuple):
    """What came of one trace. `reason` is why it isn't kept."""

    prediction: float | None
    confidence: float
    keep: bool
    reason: str | None


def decide(assessed: Mapping[str, Parts], choice: Choice) -> dict[str, Verdict]:
    """Verdicts by key."""
    whole = with_predictions(assessed)
    trusted = {key: confidence(parts) for key, parts in whole.items() if parts.reason is None}
    if choice.threshold is not None:
        kept = {key for key, value in trusted.items() if value >= choice.threshold}
    else:
        kept = set(sorted(trusted, key=ranking(whole, choice.seed))[: round(choice.keep * len(trusted))])
    return {
        key: Verdict(
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
    """The same with every lift as a prediction; those of rejected traces set no scale."""
    lifts = [parts.lift for parts in assessed.values() if parts.reason is None and parts.lift is not None]
    spread = spread_of(lifts)
    return {key: parts._replace(prediction=prediction(parts, spread)) for key, parts in assessed.items()}


def confidence(parts: Parts) -> float:
    """The weighted geometric mean of the parts that are there, in [0, 1].

    >>> confidence(Parts(1.0, 2.5, None, None, None, 1.0, None, prediction=0.25))
    0.574349
    """
    found = {name: value for name in WEIGHTS if (value := getattr(parts, name)) is not None}
    if min(found.values()) <= 0:
        return 0.0
    total = sum(WEIGHTS[name] for name in found)
    return round(math.exp(sum(WEIGHTS[name] * math.log(value) for name, value in found.items()) / total), 6)


def prediction(parts: Parts, spread: float) -> float | None:
    """The lift as a number in (0, 1), one half for none."""
    if parts.lift is None:
        return None
    scale = math.hypot(spread, parts.lift_error or 0.0)
    return round((1 + math.tanh(parts.lift / (2 * scale))) / 2, 6) if scale else 0.5


def spread_of(lifts: Sequence[float]) -> float:
    """The root mean square; 0 for none."""
    return math.sqrt(math.fsum(lift * lift for lift in lifts) / len(lifts)) if lifts else 0.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The parts and the verdict of every trace, by example id."""

    parts: Mapping[str, Parts]
    verdicts: Mapping[str, Verdict]

    def counts(self) -> dict[str, Any]:
        """How many are kept, and how many aren't for which reason."""
        reasons = Counter(verdict.reason for verdict in self.verdicts.values() if verdict.reason is not None)
        return {
            "kept": sum(verdict.keep for verdict in self.verdicts.values()),
            "left_out": dict(reasons.most_common()),
        }


def write_verdicts(path: Path, rows: Callable[[], Rows], choice: Choice) -> Outcome:
    """Find repetitions, decide, and write the artifact; `rows` reads the assessed rows as often as it is asked.

    Of traces that say the same the most trusted stays: whose history they are about, where that can be told.
    """
    parts = {key: _parts(row) for key, row in rows()}
    texts = ((key, row["reasoning"]) for key, row in rows() if row["reason"] is None)
    repeats = find_repeats(texts, ranking(with_predictions(parts), choice.seed))
    parts |= {key: parts[key]._replace(reason=REPEATS) for key in repeats}
    outcome = Outcome(parts=parts, verdicts=decide(parts, choice))
    write_list(path, (_decided(row, outcome.verdicts[key], repeats.get(key)) for key, row in rows()))
    return outcome


def decide_again(path: Path, choice: Choice) -> tuple[Outcome, bool]:
    """Another choice from the stored scores; and whether it differs from the one that was stored."""
    parts, stored = dict[str, Parts](), dict[str, tuple[Any, ...]]()
    for row in read_list(path):
        key = row["example_id"]
        parts[key] = _parts(row)
        stored[key] = (row["scores"]["prediction"], row["confidence"], row["keep"], row["reason"])
    outcome = Outcome(parts=parts, verdicts=decide(parts, choice))
    changed = any(tuple(outcome.verdicts[key]) != before for key, before in stored.items())
    return outcome, changed


def stored_rows(path: Path) -> Rows:
    """The rows of a finished artifact as they were before anything was decided."""
    for row in read_list(path):
        reason = row["reason"] if row["reason"] not in (LESS_TRUSTED, REPEATS) else None
        scores = {name: value for name, value in row["scores"].items() if name not in ("prediction", "repeats")}
        kept = {name: value for name, value in row.items() if name not in ("scores", "confidence", "keep", "reason")}
        yield row["example_id"], {**kept, "scores": scores, "reason": reason}


def _parts(row: Row) -> Parts:
    names = ("modality", "modality_margin", "lift", "lift_error", "steps", "length")
    reason = row["reason"] if row["reason"] != LESS_TRUSTED else None
    return Parts(**{name: row["scores"][name] for name in names}, reason=reason)


def _decided(row: Row, verdict: Verdict, repeats: str | None) -> Row:
    kept = {name: value for name, value in row.items() if name not in ("scores", "confidence", "keep", "reason")}
    return {
        **kept,
        "scores": {**row["scores"], "prediction": verdict.prediction, "repeats": repeats},
        "confidence": verdict.confidence,
        "keep": verdict.keep,
        "reason": verdict.reason,
    }
