"""Does the model recommend what is popular anyway, and is it good beyond that?

Popularity is counted in training lines alone, as log(1 + count). Three things are told: how much more popular than its
candidates the model's first choice is, beside the same of the right answers (some of it is deserved) and of the most
popular candidate (all there is); how well popularity alone would have ranked the same lists; and both rankers for
targets of the head, the middle and the tail, which each hold a third of all that was ever chosen in training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllmrec.data.sequences import Line
from mllmrec.evaluation.metrics import FloatArray
from mllmrec.evaluation.probing.sample import Sample, first_choice, intervals, kept
from mllmrec.records import RankingExample

BoolArray = NDArray[np.bool_]

BANDS = ("head", "middle", "tail")


def count_items(lines: Sequence[Line]) -> Counter[str]:
    """How often each item occurs in training lines."""
    return Counter(item for line in lines for item in line.items)


def scores(examples: Sequence[RankingExample], counts: Mapping[str, int]) -> list[FloatArray]:
    """What popularity alone scores: the condition `popularity` of a sample."""
    return [np.array([counts.get(item, 0) for item in example.candidates], dtype=float) for example in examples]


def probe(sample: Sample, counts: Mapping[str, int]) -> dict[str, Any]:
    """Lift and agreement, popularity alone on the same lists, and head, middle and tail."""
    values, alone = sample.values("plain"), sample.values("popularity")
    found = intervals(_lifts(sample, counts), sample.seed)
    return {
        "log_popularity": found,
        "groups": [
            group_facts(sample, "all", np.ones(len(values), dtype=bool), values, alone),
            *(
                group_facts(sample, band, members, values, alone)
                for band, members in _bands(sample.examples, counts).items()
            ),
        ],
    }


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
        told = intervals(columns, sample.seed)
        facts["metrics"] = {
            metric: {kind: told[f"{kind} {metric}"] for kind in ("model", "popularity", "difference")}
            for metric in sample.names
        }
    return facts


def bands(counts: Mapping[str, int]) -> dict[str, str]:
    """The band of every item that training knows: each of the three holds about a third of all occurrences.

    Items are taken from the most popular down; those that occur equally often are in one band.

    >>> bands({"a": 4, "b": 3, "c": 2, "d": 1, "e": 1, "f": 1})
    {'a': 'head', 'b': 'middle', 'c': 'middle', 'd': 'tail', 'e': 'tail', 'f': 'tail'}
    """
    total = sum(counts.values())
    found: dict[str, str] = {}
    above = 0
    by_count: dict[int, list[str]] = {}
    for item, count in counts.items():
        by_count.setdefault(count, []).append(item)
    for count in sorted(by_count, reverse=True):
        band = BANDS[(3 * above >= total) + (3 * above >= 2 * total)]
        found |= dict.fromkeys(by_count[count], band)
        above += count * len(by_count[count])
    return found


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
    found: dict[str, FloatArray] = dict(zip(columns, np.array(rows).T, strict=True))
    alone = [first_choice(counts_C) for counts_C in sample.scores["popularity"]]
    return found | {"agreement": kept(sample.first_choices("plain"), alone)}
