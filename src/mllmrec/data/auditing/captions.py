"""Captions under audit: those that name a title or hold a trace, and those that targets alone have.

A caption that names its title tells more than the image shows, and so does one that holds a trace.

Captions are made of images, and nobody who makes them knows which items a split asks for. Where nearly no other item
has a caption, or a word, though among items of like popularity some should, captions were written with the targets in
view. Popularity decides in part what has an image, so items are compared only with items that are about as popular in
training, and those that never occur there with each other.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from mllmrec.data.auditing.chance import LEVEL
from mllmrec.data.auditing.findings import CAPTIONS, CONTENT, LATER_HINTS, TARGETS_ALONE, Finding, judged
from mllmrec.data.auditing.material import Material
from mllmrec.data.auditing.splits import lines_of, name_of
from mllmrec.data.candidates.drawing import item_counts
from mllmrec.data.title_spellings import words
from mllmrec.records import Split

MOST_OTHERS, ITEMS_ALIKE = 0.001, 50
HAVING = ""
"""The mark of an item that has a caption at all, beside its words."""


def check_captions(material: Material) -> Iterator[Finding]:
    """Captions that name their own title, that hold a trace, and entries that are no captions."""
    captions, odd = material.captions.captions, material.captions.odd
    name = material.workspace.captions(material.dataset).name
    if not captions and not odd:
        return
    yield judged(
        CONTENT,
        name,
        len(captions) + len(odd),
        "captions",
        odd,
        "wrong",
        meaning="Each caption should be {title, caption}: make the file again with `mllmrec caption`.",
    )
    own = [item for item, text in captions.items() if material.naming.names(text, item)]
    yield judged(
        CAPTIONS,
        name,
        len(captions),
        "captions",
        [f"item {item}" for item in own],
        "warning",
        meaning="A caption that repeats its title adds nothing and hides what the image alone is worth; "
        "`mllmrec caption` asks again where a title is named.",
    )
    traced = [f"item {item}" for item, text in captions.items() if material.trace_texts.within(text)]
    yield judged(
        LATER_HINTS,
        name,
        len(captions),
        "captions",
        traced,
        "leak",
        meaning="A training trace stands in a caption, and captions are shown in every prompt: make them again.",
    )


def check_target_captions(material: Material) -> Iterator[Finding]:
    """Whether captions, or a word in them, go with being a target of validation or test."""
    captions = material.captions.captions
    marks = defaultdict[str, list[str]](list)
    for item, caption in captions.items():
        if item in material.interactions.catalogue:
            for mark in {HAVING, *words(caption)}:
                marks[mark].append(item)
    for split in ("valid", "test"):
        if marks and (lines := lines_of(material, split)):
            yield _finding(material, split, {line.items[-1] for line in lines}, marks)


def target_shares(
    items: Sequence[str], popularity: Mapping[str, int], targets: frozenset[str] | set[str]
) -> dict[str, float]:
    """The share of targets among items of about an item's popularity.

    >>> target_shares(["a", "b", "c"], {"a": 2, "b": 1}, {"a"})
    {'c': 0.0, 'b': 0.5, 'a': 0.5}
    """
    ranked = sorted(items, key=lambda item: (popularity.get(item, 0), item))
    never = [item for item in ranked if not popularity.get(item, 0)]
    seen = ranked[len(never) :]
    strata = [never, *(seen[start : start + ITEMS_ALIKE] for start in range(0, len(seen), ITEMS_ALIKE))]
    return {item: sum(own in targets for own in stratum) / len(stratum) for stratum in strata for item in stratum}


def _finding(material: Material, split: Split, targets: set[str], marks: Mapping[str, list[str]]) -> Finding:
    popularity = item_counts(material.interactions.train)
    shares = target_shares(material.interactions.catalogue.ids, popularity, targets)
    level = math.log(LEVEL / len(marks))
    distinctive = []
    for mark, items in marks.items():
        others = sum(item not in targets for item in items)
        if others <= MOST_OTHERS * len(items):
            chance = sum(math.log(shares[item]) for item in items if item in targets)
            if chance < level:
                what = f"the word {mark!r}" if mark else "a caption"
                distinctive.append(f"{what}: {len(items) - others:,} targets have it, {others:,} other items")
    name = material.workspace.captions(material.dataset).name
    return judged(
        TARGETS_ALONE,
        f"{name}, targets of {name_of(material, split)}",
        len(marks),
        "words and having a caption",
        distinctive,
        "leak",
        meaning="Items that a split asks for have what hardly any other item has, though others are as popular, so "
        "that the target is known by it: make captions for all items that have an image.",
    )
