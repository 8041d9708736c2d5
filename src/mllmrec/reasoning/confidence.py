"""From the parts of a trace's assessment to one confidence, and from that to what is kept.

    prediction = logistic(lift / sqrt(spread^2 + error^2))        spread: root mean square of all lifts
    confidence = (modality^2 x prediction^2 x steps x length)^(1/6)

It is the weighted geometric mean of the parts, each in [0, 1], so that a good one can't make up for a bad one; without
a scorer, or for drafts without steps, the mean is taken over the parts that are there. A lift of zero gives a
prediction of one half, and one that its error doesn't tell from zero stays near it. A rejected trace has confidence 0.
What is kept is a share of the others, the highest confidence first, ties broken by the margin of the modality and then
by hash; or all that reach a threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from mllmrec.data.draws import uniform

WEIGHTS = {"modality": 2.0, "prediction": 2.0, "steps": 1.0, "length": 1.0}
LESS_TRUSTED = "is less trusted than those kept"


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
