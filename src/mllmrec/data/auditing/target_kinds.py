"""Candidate lists under audit: does a target differ in kind from its negatives?

A target without a title among titled negatives is the answer by construction, whatever the user's history says. For
each feature of an item the audit shows the HR@1 of ranking by it alone, beside chance and popularity.

A finding is a kind that all targets share and at most 1 in 1,000 negatives, or the reverse; items without a title that
are hardly ever negatives; or a feature that goes with being the target at p < 1e-4 when labels are dealt out anew among
candidates of like popularity, and that alone ranks better than popularity does on the same lists. What people choose
goes with popularity, so that popularity, and whether an item occurs in train at all, are shown without a verdict. So is
the order of ids: it goes with when an item came out, and people choose by that (MovieLens-1M, p = 1e-52).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mllmrec.data.auditing.chance import LEVEL, Bools, Floats, Integers, marked_probability, ordered_probability
from mllmrec.data.auditing.findings import TARGET_KINDS, Finding
from mllmrec.data.auditing.material import SPLITS, Material
from mllmrec.data.candidates.drawing import item_counts
from mllmrec.data.item_files import image_names
from mllmrec.records import RankingExample, Split, Table

FEW = 0.001
"""The share of negatives up to which a mark that they have, or lack, still gives targets away."""
LIKE_POPULARITY = 1.1
"""How many times as popular as the least popular item of a stratum the most popular one may be."""
POPULARITY, IN_TRAIN, TITLE, CAPTION, IMAGE = "popularity", "in train", "title", "caption", "image"
TITLE_LENGTH, ID_ORDER = "title length", "id order"
MARKS = (TITLE, CAPTION, IMAGE)
"""Features that an item has or lacks."""
SHOWN = (POPULARITY, IN_TRAIN, *MARKS, TITLE_LENGTH, ID_ORDER)
JUDGED = (*MARKS, TITLE_LENGTH)
UNKNOWN = ""
FOREIGN = (
    "Whoever made these lists chose negatives that differ from targets in what items of like popularity have, so that "
    "a ranker may win without knowing the user; figures on them compare with others on the same lists alone."
)

_NUMBERS = re.compile(r"(\d+)")


@dataclass(frozen=True, kw_only=True)
class FlatLists:
    """The candidates of many lists one after the other, as indices of items; `targets` marks one in each list."""

    items: Integers
    targets: Bools
    lengths: Integers

    @cached_property
    def starts(self) -> Integers:
        return np.cumsum(self.lengths) - self.lengths

    @property
    def chance(self) -> float:
        """HR@1 of guessing."""
        return float((1 / self.lengths).mean())

    def hit_rate(self, values: Floats) -> float:
        """HR@1 of ranking by a value of each item, ties at random, in the direction that does better."""
        return max(self._hit_rate(values), self._hit_rate(-values))

    def _hit_rate(self, values: Floats) -> float:
        listed = values[self.items]
        target = np.repeat(listed[self.targets], self.lengths)
        higher = np.add.reduceat((listed > target).astype(int), self.starts)
        equal = np.add.reduceat((listed == target).astype(int), self.starts)
        return float(np.where(higher == 0, 1 / equal, 0.0).mean())


class TargetKinds:
    """Features of one dataset's items, held against the lists of one file after the other.

    `rates` holds, for each file, HR@1 of guessing and of ranking by each feature.
    """

    def __init__(self, material: Material) -> None:
        self.material = material
        self.rates: dict[str, dict[str, float]] = {}

    def check(self, where: str, examples: Sequence[RankingExample], *, foreign: bool = False) -> Iterator[Finding]:
        """Findings on one file, whose HR@1 by each feature is kept for the table.

        Lists without their target, or without anything else, are left out. In lists that others made such a feature is
        a warning and no leak of the dataset.
        """
        listed = [own for own in examples if own.target_id in own.candidates and len(own.candidates) > 1]
        if not listed:
            return
        lists, popularity = self._lists(listed), self._popularity(listed[0].split)
        features = self._features | {POPULARITY: popularity, IN_TRAIN: (popularity > 0).astype(float)}
        rates = {"chance": lists.chance} | {name: lists.hit_rate(features[name]) for name in SHOWN}
        self.rates[where] = rates
        strata = strata_of(popularity)[lists.items]
        for name in JUDGED:
            values = features[name][lists.items]
            if name in MARKS:
                probability = marked_probability(values > 0, lists.targets, strata)
                separates = _separates(name, lists, values > 0, probability)
            else:
                probability, separates = ordered_probability(values, lists.targets, strata), False
            better = probability < LEVEL and rates[name] > rates[POPULARITY]
            finding = _finding(where, name, lists, values, rates, probability, separates or better)
            if foreign and finding.verdict == "leak":
                finding = replace(finding, verdict="warning", meaning=FOREIGN)
            yield finding

    def table(self) -> Table:
        """HR@1 of ranking by one feature alone, a row for each file."""
        return Table(
            title="HR@1 of ranking by one feature alone",
            columns=("lists", "chance", *SHOWN),
            rows=tuple((where, *(f"{rate:.3f}" for rate in rates.values())) for where, rates in self.rates.items()),
            note="Each in the direction that does better, ties at random. Popularity, being in train and the order of "
            "ids are shown and no finding; the others are judged among items of like popularity.",
        )

    def _lists(self, examples: Sequence[RankingExample]) -> FlatLists:
        index, unknown = self._index, self._index[UNKNOWN]
        lengths = np.array([len(example.candidates) for example in examples])
        slots = np.array([example.candidates.index(example.target_id) for example in examples])
        items = np.array([index.get(item, unknown) for example in examples for item in example.candidates])
        targets = np.zeros(len(items), dtype=bool)
        targets[np.cumsum(lengths) - lengths + slots] = True
        return FlatLists(items=items, targets=targets, lengths=lengths)

    def _popularity(self, split: Split) -> Floats:
        """How often each item occurs in train, for validation without its targets."""
        data = self.material.interactions
        counts = item_counts(data.fit_lines() if split == "valid" else data.train)
        return np.array([counts[item] for item in self._index], dtype=float)

    @cached_property
    def _index(self) -> dict[str, int]:
        """Each item of the catalogue and the lines in the order of ids, and what stands for any other item last."""
        material = self.material
        items = set(material.interactions.catalogue)
        items.update(item for split in SPLITS for line in material.interactions.lines(split) for item in line.items)
        return {item: at for at, item in enumerate([*sorted(items, key=_natural), UNKNOWN])}

    @cached_property
    def _features(self) -> dict[str, Floats]:
        material, catalogue = self.material, self.material.interactions.catalogue
        titles = [catalogue[item].title if item in catalogue else "" for item in self._index]
        images = image_names(material.files.images)
        return {
            TITLE: np.array([bool(title) for title in titles], dtype=float),
            CAPTION: np.array([item in material.captions.captions for item in self._index], dtype=float),
            IMAGE: np.array([item in images for item in self._index], dtype=float),
            TITLE_LENGTH: np.array([len(title) for title in titles], dtype=float),
            ID_ORDER: np.arange(len(self._index), dtype=float),
        }


def strata_of(popularity: Floats) -> Integers:
    """The stratum of each item: never in train, or about as often.

    >>> strata_of(np.array([0.0, 1.0, 2.0, 100.0, 110.0, 111.0])).tolist()
    [0, 1, 2, 3, 3, 4]
    """
    strata, least, number = dict[float, int](), 0.0, -1
    for count in np.unique(popularity):
        if number < 0 or count > LIKE_POPULARITY * least:
            least, number = count, number + 1
        strata[count] = number
    return np.array([strata[count] for count in popularity])


def _separates(name: str, lists: FlatLists, marked: Bools, probability: float) -> bool:
    """Whether a mark separates targets from negatives, on so many lists that it isn't chance.

    All of the ones have it and hardly any of the others; or, of titles, hardly a negative lacks one though targets do.
    """
    if np.log(lists.lengths).sum() < -math.log(LEVEL):
        return False
    targets, negatives = marked[lists.targets].mean(), marked[~lists.targets].mean()
    for ours, theirs in ((targets, negatives), (1 - targets, 1 - negatives)):
        if (ours == 1 and theirs <= FEW) or (theirs == 1 and ours <= FEW):
            return True
    return name == TITLE and 1 - negatives <= FEW < 1 - targets and probability < LEVEL


def _finding(
    where: str, name: str, lists: FlatLists, values: Floats, rates: dict[str, float], probability: float, wrong: bool
) -> Finding:
    targets, negatives = values[lists.targets].mean(), values[~lists.targets].mean()
    beside = f"HR@1 by it {rates[name]:.3f}, chance {rates['chance']:.3f}, popularity {rates[POPULARITY]:.3f}"
    what = (
        f"{targets:.1%} of targets and {negatives:.1%} of negatives"
        if name in MARKS
        else f"{targets:.1f} characters of targets and {negatives:.1f} of negatives"
    )
    return Finding(
        check=TARGET_KINDS,
        where=f"{where}, {name}",
        total=len(lists.lengths),
        noun="lists",
        result=f"{what}; {beside}; p = {probability:.2g}",
        verdict="leak" if wrong else "ok",
        meaning="A target differs from its negatives in what items of its popularity have, so that it is known "
        "without its user: give all items what they lack, and draw the lists again with `mllmrec candidates`."
        if wrong
        else "",
        probability=probability,
    )


def _natural(item_id: str) -> list[tuple[int, int, str]]:
    """A key by which numbers within ids are ordered as numbers."""
    parts = [part for part in _NUMBERS.split(item_id) if part]
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]
