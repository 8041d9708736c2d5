"""What a check found, and how findings are counted, worded and laid out as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mllmrec.data.prompts import plain
from mllmrec.records import Table

Verdict = Literal["ok", "warning", "leak", "wrong", "not checked"]
FAILING: tuple[Verdict, ...] = ("leak", "wrong")

CONTENT = "content of the files"
LATER_TARGETS = "later targets in training"
DUPLICATES = "duplicates across splits"
TARGET_IN_HISTORY = "target in the history"
TARGET_IN_PROMPT = "target in the prompt, outside the list"
TWINS = "twins of the target in the user's line"
TARGETS_ALONE = "captions that targets alone have"
BARE_IDS = "bare ids of the target in words"
LATER_TRACES = "traces of validation and test"
NAMING_TRACES = "traces that name their target"
CONDITIONED_TRACES = "traces written with the answer in view"
LATER_HINTS = "hints in validation and test prompts"
FOREIGN_HINTS = "hints of another user"
CAPTIONS = "captions that name titles"
CONSUMED = "negatives the user consumed"
POSITION = "position of the target"
LOOKUP = "lookup of positions by target"
TARGET_KINDS = "targets that differ in kind"
SAME_NEGATIVES = "negatives that all lists share"
DRAW = "lists against their draw"
SHARED_LISTS = "lists shared between files"

CHECKS = (
    CONTENT,
    LATER_TARGETS,
    DUPLICATES,
    TARGET_IN_HISTORY,
    TARGET_IN_PROMPT,
    TWINS,
    TARGETS_ALONE,
    BARE_IDS,
    LATER_TRACES,
    NAMING_TRACES,
    CONDITIONED_TRACES,
    LATER_HINTS,
    FOREIGN_HINTS,
    CAPTIONS,
    CONSUMED,
    POSITION,
    LOOKUP,
    TARGET_KINDS,
    SAME_NEGATIVES,
    DRAW,
    SHARED_LISTS,
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The outcome of one check on one file: what was looked at, what was found there, and what that means.

    `where` is a file or a pair of them, of which `total` things were looked at (`noun` says what). `wrong` says that
    the content isn't what it should be, so that the file can't be vouched for. Statistical checks have a
    `probability`.
    """

    check: str
    where: str
    total: int = 0
    noun: str = ""
    found: str
    verdict: Verdict
    meaning: str = ""
    probability: float | None = None

    @property
    def looked_at(self) -> str:
        return f"{self.where}: {self.total:,} {self.noun}" if self.noun else self.where


def judged(
    check: str,
    where: str,
    total: int,
    noun: str,
    hits: Sequence[str],
    verdict: Verdict,
    *,
    meaning: str,
) -> Finding:
    """The finding of a check that looked at `total` things of a file; each hit says in words where it is.

    >>> judged(POSITION, "a.tsv", 1, "lines", [], "leak", meaning="").verdict
    'ok'
    """
    if not hits:
        unchecked: Verdict = "ok" if total else "not checked"
        return Finding(check=check, where=where, total=total, noun=noun, found="none", verdict=unchecked)
    return Finding(
        check=check,
        where=where,
        total=total,
        noun=noun,
        found=f"{len(hits):,} ({_share(len(hits), total)}), first: {plain(hits[0])}",
        verdict=verdict,
        meaning=meaning,
    )


def _share(count: int, total: int) -> str:
    return "<0.1%" if 1000 * count < total else f"{count / max(1, total):.1%}"


def laid_out(findings: Iterable[Finding], dataset: str) -> Table:
    """One row for each finding that isn't ok, and one for all that a check found in order."""
    found = list(findings)
    rows: list[tuple[str, ...]] = []
    for check in CHECKS:
        here = [each for each in found if each.check == check and each.verdict != "not checked"]
        rows += [(check, each.looked_at, each.found, each.verdict) for each in here if each.verdict != "ok"]
        if good := [each for each in here if each.verdict == "ok"]:
            rows.append((check, _together(good), _in_order(good), "ok"))
        if not here:
            rows.append((check, "nothing to look at", "", "not checked"))
    return Table(
        title=f"Audit of {dataset}",
        columns=("check", "looked at", "found", "verdict"),
        rows=tuple(rows),
        note="\n".join(_meanings(found)),
        justify="left",
    )


def _together(findings: Sequence[Finding]) -> str:
    """What several findings looked at, a line for each kind of thing; a file looked at in two ways counts once."""
    groups: dict[str, dict[str, int]] = {}
    for each in findings:
        files = groups.setdefault(each.noun, {})
        files[each.where.split(",")[0]] = each.total
    return "\n".join(
        f"{next(iter(files))}: {sum(files.values()):,} {noun}"
        if len(files) == 1
        else f"{len(files)} {'pairs' if _is_pair(next(iter(files))) else 'files'}: {sum(files.values()):,} {noun}"
        for noun, files in groups.items()
    )


def _is_pair(where: str) -> bool:
    return " against " in where or " and " in where


def _in_order(findings: Sequence[Finding]) -> str:
    """The least probable of what is still chance, or the one thing that all found."""
    least = min(findings, key=lambda each: 1.0 if each.probability is None else each.probability)
    return f"least likely: {least.found}" if least.probability is not None and len(findings) > 1 else least.found


def _meanings(findings: Iterable[Finding]) -> list[str]:
    """Each kind of finding explained once."""
    texts = {f"{each.verdict}: {each.check}. {each.meaning}": None for each in findings if each.meaning}
    return list(texts)
