"""The four kinds of probes: groups of users by popularity and history length, slots of the list, changed prompts.

Popularity. Counted in training lines alone, as log(1 + count). Reported are: how much more popular than its candidates
the model's first choice is, beside the same for the right answers (some of the lean is deserved) and for the most
popular candidate (the largest lean possible); how well popularity alone ranks the same lists; and both rankers for
targets of the head, the middle and the tail, each of which holds a third of all training interactions.

History length. Every prompt shows the same number of items, so users are grouped by the number of items before the
target on their whole line. Bins hold about equally many users, and equal lengths fall in one bin.

Position. Every list is rotated, so that a target stands in many slots. A model that uses content alone ranks the same
item first in every rotation: its hit rate is equal in every slot, its first choices fall on all slots alike, and no
first choice changes. All three are reported, and none of them mixes slots with users, since every user's target stands
in every slot (or, with fewer rotations than candidates, in every part of the list). A model that wavers at all shows
some range by chance; the p-value is how often a range as large comes about when each user's slots are rotated at
random.

Changed prompts. The same users are scored twice, and the differences are paired.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllmrec.data.sequences import Line
from mllmrec.evaluation.comparison.statistics import Interval, minimum_detectable
from mllmrec.evaluation.metrics import FloatArray
from mllmrec.evaluation.probing.conditions import PLAIN, Condition, rotations
from mllmrec.evaluation.probing.sample import Ratios, Sample, first_choice, intervals, kept
from mllmrec.records import RankingExample, example_id

BANDS = ("head", "middle", "tail")
BINS = 4
SHOWN_SLOTS = 12
"""Lists of at most as many candidates are reported slot by slot, longer ones in `SLOT_GROUPS` parts."""
SLOT_GROUPS = 10

BoolArray = NDArray[np.bool_]


def probe_popularity(sample: Sample, counts: Mapping[str, int]) -> dict[str, Any]:
    """Lift and agreement, popularity alone on the same lists, and head, middle and tail."""
    values, alone = sample.values("plain"), sample.values("popularity")
    return {
        "log_popularity": intervals(_lifts(sample, counts), sample.seed),
        "groups": [
            group_facts(sample, "all", np.ones(len(values), dtype=bool), values, alone),
            *(
                group_facts(sample, band, members, values, alone)
                for band, members in _bands(sample.examples, counts).items()
            ),
        ],
    }


def count_items(lines: Sequence[Line]) -> Counter[str]:
    """How often each item occurs in training lines."""
    return Counter(item for line in lines for item in line.items)


def popularity_scores(examples: Sequence[RankingExample], counts: Mapping[str, int]) -> list[FloatArray]:
    """The scores of popularity alone, one array of candidates for each example: the condition `popularity`."""
    return [np.array([counts.get(item, 0) for item in example.candidates], dtype=float) for example in examples]


def bands(counts: Mapping[str, int]) -> dict[str, str]:
    """The band of every item that training knows: each of the three holds about a third of all occurrences.

    Items are taken from the most popular down; those that occur equally often are in one band.

    >>> bands({"a": 4, "b": 3, "c": 2, "d": 1, "e": 1, "f": 1})
    {'a': 'head', 'b': 'middle', 'c': 'middle', 'd': 'tail', 'e': 'tail', 'f': 'tail'}
    """
    total = sum(counts.values())
    band_of: dict[str, str] = {}
    above = 0
    by_count: dict[int, list[str]] = {}
    for item, count in counts.items():
        by_count.setdefault(count, []).append(item)
    for count in sorted(by_count, reverse=True):
        band = BANDS[(3 * above >= total) + (3 * above >= 2 * total)]
        band_of |= dict.fromkeys(by_count[count], band)
        above += count * len(by_count[count])
    return band_of


def group_facts(sample: Sample, name: str, members: BoolArray, values: FloatArray, alone: FloatArray) -> dict[str, Any]:
    """The metrics of some users, model and popularity alone, and their paired difference; none for no users."""
    facts: dict[str, Any] = {"group": name, "num_users": int(members.sum())}
    if facts["num_users"]:
        ours, theirs = values[members], alone[members]
        columns = {
            f"{kind} {metric}": part[:, index]
            for kind, part in (("model", ours), ("popularity", theirs), ("difference", ours - theirs))
            for index, metric in enumerate(sample.names)
        }
        by_column = intervals(columns, sample.seed)
        facts["metrics"] = {
            metric: {kind: by_column[f"{kind} {metric}"] for kind in ("model", "popularity", "difference")}
            for metric in sample.names
        }
    return facts


def probe_lengths(sample: Sample, lengths: Sequence[int]) -> dict[str, Any]:
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
    bounds: list[list[int]] = []
    shorter, last_part = 0, -1
    for length, users in sorted(numbers.items()):
        part = shorter * count // len(lengths)
        if part != last_part:
            bounds.append([length, length])
        bounds[-1][1] = length
        shorter, last_part = shorter + users, part
    return [(low, high) for low, high in bounds]


def probe_position(sample: Sample, turned: Sequence[Condition]) -> dict[str, Any]:
    """Hit rates and first choices by slot over all rotations, their ranges, and how often the first choice stays."""
    every = [PLAIN, *turned]
    groups = SlotGroups(sample.examples)
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
            {"slot": name, "HR@1": interval_facts(right), "first_choices": interval_facts(share), "uniform": uniform}
            for name, right, share, uniform in zip(
                groups.names, accuracy.columns(), choice.columns(), groups.uniform(), strict=True
            )
        ],
        "range": interval_facts(accuracy.range()),
        "range_p": accuracy.p_value(),
        "choices_range": interval_facts(choice.range()),
        "choices_range_p": choice.p_value(),
        "rotations_range": interval_facts(Ratios(turns, np.ones_like(turns), sample.seed).range()),
        **intervals({"first_choice_kept": same_U}, sample.seed),
    }


def rotations_for(count: int, examples: Sequence[RankingExample]) -> list[Condition]:
    """At most `count` rotations, and no more than the shortest list has candidates."""
    return rotations(min(count, *(len(example.candidates) for example in examples)))


class SlotGroups:
    """How slots are reported: one by one for short lists of equal length, else in tenths of the list."""

    def __init__(self, examples: Sequence[RankingExample]) -> None:
        self.lengths = [len(example.candidates) for example in examples]
        longest = max(self.lengths)
        self.single = longest == min(self.lengths) and longest <= SHOWN_SLOTS
        self.count = longest if self.single else min(SLOT_GROUPS, *self.lengths)
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


def interval_facts(interval: Interval | None) -> dict[str, float] | None:
    """An interval as JSON; null where there is none, because no target stood there."""
    return None if interval is None else asdict(interval)


def probe_change(sample: Sample, conditions: Sequence[str], plain: str = "plain") -> dict[str, dict[str, Any]]:
    """For each condition: every metric without and with the change, the difference, and what is detectable."""
    if not conditions:
        return {}
    before, chosen = sample.values(plain), sample.first_choices(plain)
    columns: dict[str, FloatArray] = {f"{plain} {name}": before[:, i] for i, name in enumerate(sample.names)}
    detectable: dict[str, list[float]] = {}
    for condition in conditions:
        after = sample.values(condition)
        detectable[condition] = minimum_detectable(after - before)
        for index, name in enumerate(sample.names):
            columns[f"{condition} {name}"] = after[:, index]
            columns[f"{condition} {name} difference"] = (after - before)[:, index]
        columns[f"{condition} kept"] = kept(chosen, sample.first_choices(condition))
    by_column = intervals(columns, sample.seed)
    return {
        condition: {
            "metrics": {
                name: {
                    "plain": by_column[f"{plain} {name}"],
                    "changed": by_column[f"{condition} {name}"],
                    "difference": by_column[f"{condition} {name} difference"],
                    "minimum_detectable": least if np.isfinite(least) else None,
                }
                for name, least in zip(sample.names, detectable[condition], strict=True)
            },
            "first_choice_kept": by_column[f"{condition} kept"],
        }
        for condition in conditions
    }


def _bands(examples: Sequence[RankingExample], counts: Mapping[str, int]) -> dict[str, BoolArray]:
    """Band -> which users' targets are in it; what training never saw is tail."""
    band_of = bands(counts)
    own = np.array([band_of.get(example.target_id, "tail") for example in examples])
    return {band: own == band for band in BANDS}


def _lifts(sample: Sample, counts: Mapping[str, int]) -> dict[str, FloatArray]:
    """Columns of users: log-popularity of the candidates and, minus that, of choice, target and most popular."""
    rows = []
    pairs = zip(sample.examples, sample.first_choices("plain"), sample.scores["popularity"], strict=True)
    for example, chosen_C, counts_C in pairs:
        logs_C = np.log1p(counts_C)
        mean = logs_C.mean()
        target = np.log1p(counts.get(example.target_id, 0))
        rows.append((mean, chosen_C @ logs_C - mean, target - mean, logs_C.max() - mean, chosen_C @ logs_C - target))
    columns = ("candidates", "first_choice_lift", "target_lift", "most_popular_lift", "first_choice_minus_target")
    lifts: dict[str, FloatArray] = dict(zip(columns, np.array(rows).T, strict=True))
    alone = [first_choice(counts_C) for counts_C in sample.scores["popularity"]]
    return lifts | {"agreement": kept(sample.first_choices("plain"), alone)}


def _name(low: int, high: int) -> str:
    return f"{low} items" if low == high else f"{low}-{high} items"
