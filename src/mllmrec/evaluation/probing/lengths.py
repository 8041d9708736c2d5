"""Is the model better for users with long histories?

Every prompt shows the same number of items, so users are set apart by what they had chosen in all: the items before
the target on their line. Bins hold about as many users each, and equal lengths are in one bin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from mllmrec.data.sequences import Line
from mllmrec.evaluation.probing.popularity import group_facts
from mllmrec.evaluation.probing.sample import Sample
from mllmrec.records import RankingExample, example_id

BINS = 4


def probe(sample: Sample, lengths: Sequence[int]) -> dict[str, Any]:
    """The metrics of model and popularity alone in each bin of `lengths`, one length for each user."""
    values, alone = sample.values("plain"), sample.values("popularity")
    lengths_U = np.array(lengths)
    return {
        "groups": [
            group_facts(sample, _name(low, high), (lengths_U >= low) & (lengths_U <= high), values, alone)
            for low, high in bins(lengths)
        ]
    }


def history_lengths(examples: Sequence[RankingExample], lines: Sequence[Line]) -> list[int]:
    """How many items came before each target on its line; those in the prompt where no line is known."""
    windows = {len(example.history) for example in examples}
    known: dict[str, int] = {}
    for line in lines:
        for window in windows:
            if len(line.items) > window:
                history = line.items[len(line.items) - 1 - window : -1]
                known[example_id(line.user_id, line.items[-1], history)] = len(line.items) - 1
    return [known.get(example.example_id, len(example.history)) for example in examples]


def bins(lengths: Sequence[int], count: int = BINS) -> list[tuple[int, int]]:
    """(shortest, longest) of at most `count` bins that hold about as many of `lengths` each.

    >>> bins([9, 9, 9, 9, 12, 15, 20, 40])
    [(9, 9), (12, 15), (20, 40)]
    >>> bins([20, 20, 20])
    [(20, 20)]
    """
    numbers = Counter(lengths)
    found: list[list[int]] = []
    shorter, last_part = 0, -1
    for length, users in sorted(numbers.items()):
        part = shorter * count // len(lengths)
        if part != last_part:
            found.append([length, length])
        found[-1][1] = length
        shorter, last_part = shorter + users, part
    return [(low, high) for low, high in found]


def _name(low: int, high: int) -> str:
    return f"{low} items" if low == high else f"{low}-{high} items"
