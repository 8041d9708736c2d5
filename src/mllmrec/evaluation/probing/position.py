"""Does the place of a candidate in the list decide? Every list is rotated, so that a target stands in many slots.

A model that goes by content gives the same item first however the list is turned: its hit rate is the same in every
slot, its first choices visit all slots alike, and no first choice changes. Each of these is told, and none of them
mixes slots with users, since every user's target stands in every slot (or, where there are fewer rotations than
candidates, in every part of the list). Some range comes about by chance wherever a model wavers at all, so each comes
with how often chance alone makes one as large: what a user got in each slot is turned by a random number of slots.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllmrec.evaluation.probing.conditions import PLAIN, Condition, rotations
from mllmrec.evaluation.probing.sample import Ratios, Sample, intervals, kept
from mllmrec.evaluation.statistics import Interval
from mllmrec.records import RankingExample

SHOWN_SLOTS = 12
GROUPS = 10


def conditions(count: int, examples: Sequence[RankingExample]) -> list[Condition]:
    """As many rotations as were asked for, and as the shortest list has candidates."""
    return rotations(min(count, *(len(example.candidates) for example in examples)))


def probe(sample: Sample, turned: Sequence[Condition]) -> dict[str, Any]:
    """Hit rates and first choices by slot over all rotations, their ranges, and how often the first choice stays."""
    every = [PLAIN, *turned]
    groups = Groups(sample.examples)
    shape = (len(sample.examples), len(groups.names))
    hits, visits, chosen, asked = (np.zeros(shape) for _ in range(4))
    by_rotation, choices = [], [sample.first_choices(condition.name) for condition in every]
    for condition, chosen_U in zip(every, choices, strict=True):
        hit_U = sample.values(condition.name, ["HR@1"])[:, 0]
        by_rotation.append(hit_U)
        for user, example in enumerate(sample.examples):
            slots_C = groups.of(example, condition)
            np.add.at(chosen[user], slots_C, chosen_U[user])
            asked[user] += 1
            if example.target_id in example.candidates:
                slot = slots_C[example.candidates.index(example.target_id)]
                hits[user, slot] += hit_U[user]
                visits[user, slot] += 1
    accuracy, choice = Ratios(hits, visits, sample.seed), Ratios(chosen, asked, sample.seed)
    turns = np.column_stack(by_rotation)
    same_U = np.mean([kept(choices[0], other) for other in choices[1:]], axis=0)
    return {
        "rotations": len(every),
        "slots": [
            {"slot": name, "HR@1": told(right), "first_choices": told(share), "uniform": uniform}
            for name, right, share, uniform in zip(
                groups.names, accuracy.columns(), choice.columns(), groups.uniform(), strict=True
            )
        ],
        "range": told(accuracy.range()),
        "range_p": accuracy.p_value(),
        "choices_range": told(choice.range()),
        "choices_range_p": choice.p_value(),
        "rotations_range": told(Ratios(turns, np.ones_like(turns), sample.seed).range()),
        **intervals({"first_choice_kept": same_U}, sample.seed),
    }


def told(interval: Interval | None) -> dict[str, float] | None:
    """An interval as JSON; null where there is none, because no target stood there."""
    return None if interval is None else asdict(interval)


class Groups:
    """Slots as they are told: each by itself in a short list, tenths of a long one or of lists of unequal length."""

    def __init__(self, examples: Sequence[RankingExample]) -> None:
        self.lengths = [len(example.candidates) for example in examples]
        longest = max(self.lengths)
        self.single = longest == min(self.lengths) and longest <= SHOWN_SLOTS
        self.count = longest if self.single else min(GROUPS, *self.lengths)
        self.names = [str(slot + 1) if self.single else self._share(slot) for slot in range(self.count)]

    def of(self, example: RankingExample, condition: Condition) -> NDArray[np.int64]:
        """The group of the slot where each candidate stands under `condition`, candidates in their own order."""
        length = len(example.candidates)
        slots_C = (np.arange(length) - condition.shift(length)) % length
        return slots_C if self.single else slots_C * self.count // length

    def uniform(self) -> list[float]:
        """The share of first choices that falls to each group when all slots are alike."""
        shares = [np.bincount(np.arange(n) * self.count // n, minlength=self.count) / n for n in self.lengths]
        return [round(math.fsum(column) / len(column), 12) for column in np.transpose(shares).tolist()]

    def _share(self, group: int) -> str:
        return f"{100 * group // self.count}-{100 * (group + 1) // self.count} %"
