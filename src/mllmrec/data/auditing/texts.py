"""Texts under audit: captions and traces.

A caption that names its title tells more than the image shows, and so does one that holds a trace.

Captions are made of images, and nobody who makes them knows which items a split asks for. Where nearly no other item
has a caption, or a word, though among items of like popularity some should, captions were written with the targets in
view. Popularity decides in part what has an image, so items are compared only with items that are about as popular in
training, and those that never occur there with each other.

Of traces the audit asks whose windows they are, and whether they name their target or were written knowing it.
Training joins a trace to its own window alone and leaves out what names its target, so that most of this can't reach
a model. The audit reports what lies in the files all the same: traces are also read by people and by other programs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from mllmrec.data.auditing.chance import LEVEL
from mllmrec.data.auditing.findings import (
    CAPTIONS,
    CONDITIONED_TRACES,
    CONTENT,
    LATER_HINTS,
    LATER_TRACES,
    NAMING_TRACES,
    TARGETS_ALONE,
    Finding,
    judged,
)
from mllmrec.data.auditing.material import Material, TraceFile, TraceRow, ends_with, one_holds
from mllmrec.data.auditing.splits import lines_of, name_of
from mllmrec.data.candidates.drawing import item_counts
from mllmrec.data.title_spellings import words
from mllmrec.records import Split

MOST_OTHERS, ITEMS_ALIKE = 0.001, 50
HAVING = ""
"""The mark of an item that has a caption at all, beside its words."""
LATER: tuple[Split, ...] = ("test", "valid")
KNOWN_LATER = (
    "The reference implementation knows no validation users and writes a trace for every line; training never joins "
    "the ones of held-out users."
)


def check_captions(material: Material) -> Iterator[Finding]:
    """Captions that name their own title, that hold a trace, and entries that are no captions."""
    captions, odd = material.captions.captions, material.captions.odd
    name = material.files.captions.name
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
    name = material.files.captions.name
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


def check_traces(material: Material) -> Iterator[Finding]:
    """Every reasoning file; the first one is the one that training reads."""
    for rank, file in enumerate(material.traces):
        yield _odd(file)
        yield from _later(material, file)
        yield _naming(material, file, read=rank == 0)
        yield _conditioned(file)


def later_split(material: Material, row: TraceRow) -> Split | None:
    """The split whose window, target or user a trace was written for; None when it is of a line that is trained on."""
    user, data = row.user_id, material.interactions
    trained = material.lines_by_user["train"].get(user, [])
    if one_holds(trained, row.span):
        return None
    later = {split: lines for split in LATER if (lines := material.all_lines[split].get(user))}
    for split, lines in later.items():
        if ends_with(lines, row.span):
            return split
    if data.held_out and "valid" in later:
        return "valid"
    seen = {item for line in trained for item in line.items}
    for split, lines in later.items():
        if not trained or (row.target_id not in seen and any(line.items[-1] == row.target_id for line in lines)):
            return split
    return None


def _odd(file: TraceFile) -> Finding:
    return judged(
        CONTENT,
        file.path.name,
        len(file.rows) + len(file.odd),
        "records",
        file.odd,
        "wrong",
        meaning="A trace names its user and its target: make the file again.",
    )


def _later(material: Material, file: TraceFile) -> Iterator[Finding]:
    """Traces of later windows; those that fit no window at all, which training leaves out."""
    later: dict[Split, list[str]] = {split: [] for split in LATER}
    stray = []
    for row in file.rows:
        split = later_split(material, row)
        if split is not None:
            later[split].append(_where(row))
        elif not row.intact or not one_holds(material.lines_by_user["train"].get(row.user_id, []), row.span):
            stray.append(_where(row))
    for split, hits in later.items():
        known = split == "valid" and file.of_reference and material.interactions.held_out
        yield judged(
            LATER_TRACES,
            f"{file.path.name}, {split}",
            len(file.rows),
            "traces",
            hits,
            "warning" if known else "leak",
            meaning=KNOWN_LATER
            if known
            else f"A trace shows training what the user of a {split} window chose there: "
            "make the file again from training windows alone, with `mllmrec pseudo-cot` and `mllmrec refine`.",
        )
    yield judged(
        CONTENT,
        f"{file.path.name}, windows",
        len(file.rows),
        "traces",
        stray,
        "warning" if file.of_reference else "wrong",
        meaning="These traces fit no window of their user's lines: the data has changed since, or they are another "
        "user's. "
        + ("Training leaves them out." if file.of_reference else "Training refuses the file; write it anew."),
    )


def _naming(material: Material, file: TraceFile, *, read: bool) -> Finding:
    """Kept traces that name their target by id or by title."""
    kept = [row for row in file.rows if row.kept]
    hits = [_where(row) for row in kept if material.naming.names(row.reasoning, row.target_id, row.history)]
    return judged(
        NAMING_TRACES,
        file.path.name,
        len(kept),
        "kept traces",
        hits,
        "leak" if read else "warning",
        meaning="A hint that holds the answer teaches to read it off, and rewards rise while ranking falls. Training "
        "leaves such traces out; `mllmrec assess` rejects them"
        + (", and its file, not this one, is what training reads." if not read else "."),
    )


def _conditioned(file: TraceFile) -> Finding:
    hits = [_where(row) for row in file.rows if row.conditioned]
    return judged(
        CONDITIONED_TRACES,
        file.path.name,
        len(file.rows),
        "traces",
        hits,
        "warning",
        meaning="Their writer was shown the target (`mllmrec refine --answer-conditioned`, or the reference's refiner, "
        "which always is), so they may lead to it without naming it: report such results as answer-conditioned.",
    )


def _where(row: TraceRow) -> str:
    return f"record {row.number}, user {row.user_id}"
