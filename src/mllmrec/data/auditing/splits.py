"""The splits under audit: what training could see of later windows.

A user on several lines is legal, and so are users that all splits share; that is how next-item data is split. A leak
is a later target, or a whole later window, on a line that is trained on.
"""

from __future__ import annotations

from collections.abc import Iterator

from mllmrec.data.auditing.findings import DUPLICATES, LATER_TARGETS, TARGET_IN_HISTORY, AuditVerdict, Finding, judged
from mllmrec.data.auditing.material import SPLITS, Material, attempt, one_holds
from mllmrec.data.sequences import Line
from mllmrec.records import Split
from mllmrec.storage.manifests import Manifest

PAIRS: tuple[tuple[Split, Split], ...] = (("train", "valid"), ("train", "test"), ("valid", "test"))


def check(material: Material) -> Iterator[Finding]:
    """Later targets and windows on earlier lines, repeated examples, and targets in their own history."""
    weight = _weight_of_repeats(material)
    for earlier, later in PAIRS:
        if lines_of(material, earlier) and lines_of(material, later):
            where = f"{name_of(material, earlier)} against {name_of(material, later)}"
            yield _later_targets(material, earlier, later, where)
            yield _duplicates(material, earlier, later, where, weight)
    for split in SPLITS:
        if lines := lines_of(material, split):
            yield _repeated_examples(lines, material.window, name_of(material, split))
            yield _target_in_history(lines, name_of(material, split), weight)


def lines_of(material: Material, split: Split) -> list[Line]:
    """The lines of a split, of train those that may be trained on."""
    return [line for lines in material.lines_by_user[split].values() for line in lines]


def name_of(material: Material, split: Split) -> str:
    """The file of a split, or what stands for it."""
    return "users held out of train.tsv" if split == "valid" and material.interactions.held_out else f"{split}.tsv"


def _later_targets(material: Material, earlier: Split, later: Split, where: str) -> Finding:
    """Targets that the user's earlier lines hold. One that the later line itself repeats is a repeat, not a leak."""
    before, later_lines, hits = material.lines_by_user[earlier], lines_of(material, later), []
    for line in later_lines:
        target, window = line.items[-1], line.items[-material.window :]
        if target not in line.items[:-1]:
            hits += [
                f"line {known.line_index + 1} holds {target}, the {later} target of user {line.user_id}"
                for known in before.get(line.user_id, [])
                if target in known.items and not one_holds([known], window)
            ]
    return judged(
        LATER_TARGETS,
        where,
        len(later_lines),
        "targets",
        hits,
        "leak",
        meaning="Who learns from the line has seen the answer, so training refuses: split the data again with "
        "`mllmrec prepare`.",
    )


def _duplicates(material: Material, earlier: Split, later: Split, where: str, weight: AuditVerdict) -> Finding:
    """Later windows that stand whole on an earlier line of their user: the same example id in both splits.

    Where repeats are kept, a window whose target stands in its history may come again, and counts as a repeat.
    """
    before, windows = material.lines_by_user[earlier], _windows(lines_of(material, later), material.window)
    hits = [
        f"user {line.user_id}, line {line.line_index + 1} of {later}"
        for line, window in windows
        if one_holds(before.get(line.user_id, []), window) and not (weight == "warning" and window[-1] in window[:-1])
    ]
    return judged(
        DUPLICATES,
        where,
        len(windows),
        "windows",
        hits,
        "leak",
        meaning="The same question and answer stand in both splits: remove them from the earlier one.",
    )


def _repeated_examples(lines: list[Line], length: int, where: str) -> Finding:
    seen, hits = set[tuple[str, tuple[str, ...]]](), []
    windows = _windows(lines, length)
    for line, window in windows:
        if (line.user_id, window) in seen:
            hits.append(f"user {line.user_id}, line {line.line_index + 1}")
        seen.add((line.user_id, window))
    return judged(
        DUPLICATES,
        f"within {where}",
        len(windows),
        "windows",
        hits,
        "warning",
        meaning="An example that occurs twice in a split counts once.",
    )


def _target_in_history(lines: list[Line], where: str, weight: AuditVerdict) -> Finding:
    hits = [
        f"line {line.line_index + 1}, user {line.user_id}: {line.items[-1]}"
        for line in lines
        if line.items[-1] in line.items[:-1]
    ]
    meaning = (
        "The answer stands earlier on its line. Repeats are kept here, so that is part of the task, and a model that "
        "repeats the history is the baseline to beat; `mllmrec prepare --drop-repeats` leaves them out."
        if weight == "warning"
        else "The answer stands earlier on its line, and nothing else is ever repeated here: prepare the data again."
    )
    return judged(TARGET_IN_HISTORY, where, len(lines), "lines", hits, weight, meaning=meaning)


def _weight_of_repeats(material: Material) -> AuditVerdict:
    """A warning where repeats are kept: where `prepare` says so, or where other items are repeated too."""
    manifest = attempt(material.files.card, Manifest.read, material.wrong)
    settings = manifest.result_settings if manifest is not None else None
    if isinstance(settings, dict) and "drop_repeats" in settings:
        return "leak" if settings["drop_repeats"] else "warning"
    lines = (line for split in SPLITS for line in material.interactions.lines(split))
    return "warning" if any(len(set(line.items[:-1])) < len(line.items) - 1 for line in lines) else "leak"


def _windows(lines: list[Line], length: int) -> list[tuple[Line, tuple[str, ...]]]:
    """The last window of each line that has one."""
    return [(line, line.items[-length:]) for line in lines if len(line.items) >= length]
