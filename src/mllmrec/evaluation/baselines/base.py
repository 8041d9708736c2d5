"""The interface of baselines, recommenders without language: fit on lines, score lists, score the whole catalogue.

    baseline = open_baseline("itemknn", fitting, "test").baseline    # baselines_fitted: tuned and fitted, or cached
    baseline.score(example)                  # one float a candidate
    baseline.score_lists(examples)           # the same for many, faster
    baseline.score_items(examples, items)    # (examples, items): the catalogue, for a retriever

What is known of a user is `example.history`, oldest first: the model's window as it is in a candidate file, or all
that came before the target (`with_full_history`). Nothing else of an example is looked at, its target least of all.

A higher score is a better guess. An item never seen in training scores lowest, tied with its like.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mllmrec.data.sequences import Line
from mllmrec.records import RankingExample, example_id

Floats = NDArray[np.float64]
BATCH = 256


class Baseline(ABC):
    """Something that learns from training lines and scores items.

    `reads_history` says whether more than the last item of a history matters, so that a longer one may help.
    """

    name: ClassVar[str]
    reads_history: ClassVar[bool] = False

    @abstractmethod
    def fit(self, lines: Sequence[Line]) -> Self:
        """Learn from training lines, oldest item first."""

    @abstractmethod
    def score(self, example: RankingExample) -> list[float]:
        """One score for each candidate, in their order."""

    def score_lists(self, examples: Sequence[RankingExample]) -> Iterator[list[float]]:
        """`score` of each example, in their order."""
        return map(self.score, examples)

    def score_items(self, examples: Sequence[RankingExample], items: Sequence[str]) -> Floats:
        """The score of every item for every example, (examples, items); their candidates don't matter."""
        return np.array([self.score(replace(example, candidates=tuple(items))) for example in examples], dtype=float)

    def fit_judged(self, lines: Sequence[Line], judge: Callable[[Baseline], float]) -> float:
        """Fit, and return what `judge` gives. A baseline that learns in rounds keeps the best of them by `judge`."""
        return judge(self.fit(lines))

    def settled(self) -> dict[str, Any]:
        """Parameters that `fit_judged` determined besides the point of the grid: the number of rounds."""
        return {}

    def save(self, folder: Path) -> None:
        """Write what `fit` learned into a folder; nothing by default, where fitting takes no longer than reading."""
        del folder

    def restore(self, folder: Path, lines: Sequence[Line]) -> Self:
        """Read what `save` wrote; by default fit again on the same lines."""
        del folder
        return self.fit(lines)


class CatalogueBaseline(Baseline):
    """A baseline that computes the scores of all items at once: `score_items` is written, the rest follows."""

    reads_history: ClassVar[bool] = True

    @abstractmethod
    def score_items(self, examples: Sequence[RankingExample], items: Sequence[str]) -> Floats: ...

    def score(self, example: RankingExample) -> list[float]:
        return next(self.score_lists([example]))

    def score_lists(self, examples: Sequence[RankingExample]) -> Iterator[list[float]]:
        for batch in batches(examples, BATCH):
            items = list(dict.fromkeys(item for example in batch for item in example.candidates))
            column = {item: index for index, item in enumerate(items)}
            for example, row in zip(batch, self.score_items(batch, items), strict=True):
                yield [float(row[column[item]]) for item in example.candidates]


def with_full_history(examples: Sequence[RankingExample], lines: Iterable[Line]) -> list[RankingExample]:
    """The examples with all that their line holds before the target in place of the window.

    An example that belongs to no line stays as it is. Where two lines end in the same window the longer one counts.

    >>> key = example_id("1", "d", ["c"])
    >>> example = RankingExample(
    ...     example_id=key, user_id="1", history=("c",), candidates=(), target_id="d", split="test"
    ... )
    >>> with_full_history([example], [Line(user_id="1", items=("a", "b", "c", "d"), line_index=0)])[0].history
    ('a', 'b', 'c')
    """
    lengths = {len(example.history) for example in examples}
    longest: dict[str, tuple[str, ...]] = {}
    for line in lines:
        *before, target = line.items
        for length in lengths:
            key = example_id(line.user_id, target, before[-length:] if length else [])
            if length <= len(before) and len(longest.get(key, ())) <= len(before):
                longest[key] = tuple(before)
    return [replace(example, history=longest.get(example.example_id, example.history)) for example in examples]


def batches(examples: Iterable[RankingExample], size: int) -> Iterator[list[RankingExample]]:
    """Lists of up to `size` examples."""
    remaining = iter(examples)
    while batch := list(islice(remaining, size)):
        yield batch
