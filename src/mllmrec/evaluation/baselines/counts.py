"""Baselines made of counts: chance, popularity, late popularity and last-item transitions, fitted in seconds.

Counts stay integers to the last division, so candidates that tie in counts tie in floats. A user may have several
lines; every line counts, so an interaction repeated in overlapping lines counts repeatedly.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import ClassVar, Self

from mllmrec.data.draws import uniform
from mllmrec.data.sequences import Line
from mllmrec.evaluation.baselines.base import Baseline
from mllmrec.records import RankingExample


class Random(Baseline):
    """A number drawn for each (example, candidate), whatever the order of users and candidates."""

    name: ClassVar[str] = "random"

    def __init__(self, seed: int = 42) -> None:
        self.seed = seed

    def fit(self, lines: Sequence[Line]) -> Self:
        del lines  # There is nothing to learn from them.
        return self

    def score(self, example: RankingExample) -> list[float]:
        return [uniform(self.seed, "baseline/random", f"{example.example_id} {item}") for item in example.candidates]


class Popularity(Baseline):
    """How often an item occurs in the training lines.

    >>> lines = [Line(user_id="1", items=("a", "b", "a"), line_index=0)]
    >>> example = RankingExample(
    ...     example_id="e", user_id="2", history=("b",), candidates=("a", "b", "new"), target_id="a", split="test"
    ... )
    >>> Popularity().fit(lines).score(example)
    [2.0, 1.0, 0.0]
    """

    name: ClassVar[str] = "popularity"

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def fit(self, lines: Sequence[Line]) -> Self:
        self.counts = Counter(item for line in lines for item in line.items)
        return self

    def score(self, example: RankingExample) -> list[float]:
        return [float(self.counts[item]) for item in example.candidates]


class Recency(Baseline):
    """Late popularity: an occurrence counts half as much for every `half_life` items that follow it in its line.

    Split files hold no timestamps, so the end of every line counts as the present.

    >>> lines = [Line(user_id="1", items=("a", "a", "b"), line_index=0)]
    >>> example = RankingExample(
    ...     example_id="e", user_id="2", history=("b",), candidates=("a", "b", "new"), target_id="a", split="test"
    ... )
    >>> Recency(half_life=1).fit(lines).score(example)
    [0.75, 1.0, 0.0]
    """

    name: ClassVar[str] = "recency"

    def __init__(self, half_life: float = 10) -> None:
        self.half_life = half_life
        self.weights: dict[str, float] = {}

    def fit(self, lines: Sequence[Line]) -> Self:
        ages: defaultdict[str, Counter[int]] = defaultdict(Counter)
        for line in lines:
            for age, item in enumerate(reversed(line.items)):
                ages[item][age] += 1
        self.weights = {item: self._weight(counts) for item, counts in ages.items()}
        return self

    def _weight(self, ages: Counter[int]) -> float:
        """Summed in the order of ages, so that equal counts make equal floats; very old ones still count."""
        halved = (count * max(math.pow(0.5, age / self.half_life), 1e-9) for age, count in sorted(ages.items()))
        return sum(halved, start=0.0)

    def score(self, example: RankingExample) -> list[float]:
        return [self.weights.get(item, 0.0) for item in example.candidates]


class Markov(Baseline):
    """What followed the last item in training, backing off to popularity.

    P(b | a) = (n(a, b) + PRIOR * n(b) / n) / (n(a, .) + PRIOR): the transition counts of neighbours in a line,
    smoothed by a Dirichlet prior worth PRIOR observations and shaped like popularity. With the default of one
    observation, popularity decides among candidates that followed equally often (mostly never). After an item that
    nothing ever followed, or an empty history, it is popularity alone.

    >>> lines = [Line(user_id="1", items=("a", "b", "b", "b"), line_index=0)]
    >>> example = RankingExample(
    ...     example_id="e", user_id="2", history=("a",), candidates=("a", "b", "new"), target_id="b", split="test"
    ... )
    >>> [round(score, 4) for score in Markov().fit(lines).score(example)]
    [0.125, 0.875, 0.0]
    """

    name: ClassVar[str] = "markov"

    def __init__(self, prior: int = 1) -> None:
        self.prior = prior
        self.counts: Counter[str] = Counter()
        self.transitions: dict[str, Counter[str]] = {}

    def fit(self, lines: Sequence[Line]) -> Self:
        self.counts = Counter(item for line in lines for item in line.items)
        transitions: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for line in lines:
            for before, after in zip(line.items, line.items[1:], strict=False):
                transitions[before][after] += 1
        self.transitions = dict(transitions)
        return self

    def score(self, example: RankingExample) -> list[float]:
        following = self.transitions.get(example.history[-1], Counter()) if example.history else Counter[str]()
        total = self.counts.total()
        whole = max(total, 1) * (following.total() + self.prior)
        return [(following[item] * total + self.prior * self.counts[item]) / whole for item in example.candidates]
