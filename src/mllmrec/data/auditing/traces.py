"""Traces under audit: whose windows they are, whether they name their target, whether they were written knowing it.

Training joins a trace to its own window alone and leaves out what names its target, so that most of this can't reach
a model. The audit reports what lies in the files all the same: traces are also read by people and by other programs.
"""

from __future__ import annotations

from collections.abc import Iterator

from mllmrec.data.auditing.findings import (
    CONDITIONED_TRACES,
    CONTENT,
    LATER_TRACES,
    NAMING_TRACES,
    Finding,
    judged,
)
from mllmrec.data.auditing.material import Material, TraceFile, TraceRow, ends_with, one_holds
from mllmrec.records import Split

LATER: tuple[Split, ...] = ("test", "valid")
KNOWN_LATER = (
    "The reference implementation knows no validation users and writes a trace for every line; training never joins "
    "the ones of held-out users."
)


def check(material: Material) -> Iterator[Finding]:
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
