"""Findings: the result of one check on one file, and the table of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mllmrec.data.prompts import plain
from mllmrec.records import Table

AuditVerdict = Literal["ok", "warning", "leak", "wrong", "not checked"]
FAILING: tuple[AuditVerdict, ...] = ("leak", "wrong")

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
    """The result of one check on one file.

    `where` is a file or a pair of them, of which `total` things were looked at (`noun` says what); `result` says in
    words what is there, `meaning` what that implies and what to do. The verdict `wrong` says that the content isn't
    what it should be, so that the file can't be vouched for. Statistical checks have a `probability`.
    """

    check: str
    where: str
    total: int = 0
    noun: str = ""
    result: str
    verdict: AuditVerdict
    meaning: str = ""
    probability: float | None = None

    def facts(self) -> dict[str, Any]:
        """The finding as JSON values; `result` has the key `found` there."""
        return {"found" if name == "result" else name: value for name, value in asdict(self).items()}

    @property
    def looked_at(self) -> str:
        """The file and how much of it was looked at."""
        return f"{self.where}: {self.total:,} {self.noun}" if self.noun else self.where


def judged(
    check: str,
    where: str,
    total: int,
    noun: str,
    hits: Sequence[str],
    verdict: AuditVerdict,
    *,
    meaning: str,
) -> Finding:
    """The finding of a check that looked at `total` things of a file; each of `hits` describes a place in words.

    >>> judged(POSITION, "a.tsv", 1, "lines", [], "leak", meaning="").verdict
    'ok'
    """
    if not hits:
        unchecked: AuditVerdict = "ok" if total else "not checked"
        return Finding(check=check, where=where, total=total, noun=noun, result="none", verdict=unchecked)
    return Finding(
        check=check,
        where=where,
        total=total,
        noun=noun,
        result=f"{len(hits):,} ({_share(len(hits), total)}), first: {plain(hits[0])}",
        verdict=verdict,
        meaning=meaning,
    )


def _share(count: int, total: int) -> str:
    return "<0.1%" if 1000 * count < total else f"{count / max(1, total):.1%}"


def laid_out(findings: Iterable[Finding], dataset: str) -> Table:
    """A row for each finding that isn't ok, and one for all of a check that are."""
    findings = list(findings)
    rows: list[tuple[str, ...]] = []
    for check in CHECKS:
        here = [finding for finding in findings if finding.check == check and finding.verdict != "not checked"]
        rows += [(check, bad.looked_at, bad.result, bad.verdict) for bad in here if bad.verdict != "ok"]
        if good := [finding for finding in here if finding.verdict == "ok"]:
            rows.append((check, _together(good), _in_order(good), "ok"))
        if not here:
            rows.append((check, "nothing to look at", "", "not checked"))
    return Table(
        title=f"Audit of {dataset}",
        columns=("check", "looked at", "found", "verdict"),
        rows=tuple(rows),
        note="\n".join(_meanings(findings)),
        justify="left",
    )


def _together(findings: Sequence[Finding]) -> str:
    """What several findings looked at, a line for each kind of thing; a file looked at in two ways counts once."""
    groups: dict[str, dict[str, int]] = {}
    for finding in findings:
        files = groups.setdefault(finding.noun, {})
        files[finding.where.split(",")[0]] = finding.total
    return "\n".join(
        f"{next(iter(files))}: {sum(files.values()):,} {noun}"
        if len(files) == 1
        else f"{len(files)} {'pairs' if _is_pair(next(iter(files))) else 'files'}: {sum(files.values()):,} {noun}"
        for noun, files in groups.items()
    )


def _is_pair(where: str) -> bool:
    return " against " in where or " and " in where


def _in_order(findings: Sequence[Finding]) -> str:
    """The least probable result that is still chance, or the result that all have."""
    least = min(findings, key=lambda finding: 1.0 if finding.probability is None else finding.probability)
    return f"least likely: {least.result}" if least.probability is not None and len(findings) > 1 else least.result


def _meanings(findings: Iterable[Finding]) -> list[str]:
    """Each kind of finding explained once."""
    texts = {f"{own.verdict}: {own.check}. {own.meaning}": None for own in findings if own.meaning}
    return list(texts)
