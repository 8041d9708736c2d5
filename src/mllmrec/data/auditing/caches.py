"""The prompt caches of the reference implementation under audit.

None of their prompts is ever shown to a model here, but published figures may stem from them, and known defects of
that implementation leave traces in them: reasoning of training in test prompts, looked up by a row number that is
another user's; reasoning that was written with the answer in view; the same lists for every stage; files that were
made from other data than their names let believe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mllmrec.data.auditing.cache_files import (
    IN_EVERY_PROMPT,
    CachedPrompt,
    CacheName,
    Mention,
    instructions,
    read_rows,
)
from mllmrec.data.auditing.findings import (
    CONTENT,
    FOREIGN_HINTS,
    LATER_HINTS,
    NAMING_TRACES,
    TARGET_IN_PROMPT,
    Finding,
    judged,
)
from mllmrec.data.auditing.material import Material
from mllmrec.data.sequences import Line
from mllmrec.records import RankingExample, example_id

STALE = (
    "The rows don't belong to the lines of today's split: the cache was made from other data or another --min-inter, "
    "which its name doesn't tell, and the reference uses it all the same. Remove it."
)
LATER = (
    "Prompts of {split} carry chains of thought, which are written for training lines alone: figures from this cache "
    "don't count. Remove it, and let `mllmrec evaluate` write prompts."
)
FOREIGN = (
    "The reasoning in these prompts was written for another user: it is stored by the line of the file and was looked "
    "up by the row after short lines were left out. Remove the cache; `mllmrec` joins traces by example."
)
NAMED = "The reasoning in these prompts names the right answer, which is then only read off. Remove the cache."
TOLD = "The prompt names the right answer beside the candidate list. Remove the cache."


@dataclass(frozen=True, kw_only=True)
class Hint:
    """Reasoning found in one prompt; `line` is the one the prompt stands for, None where that is unclear."""

    where: str
    text: str
    target_id: str
    line: Line | None


@dataclass(kw_only=True)
class CacheContent:
    """What one pass over a cache gathers; `examples` are the rows that fit their line."""

    name: CacheName
    num_rows: int = 0
    odd: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    hints: list[Hint] = field(default_factory=list)
    examples: list[RankingExample] = field(default_factory=list)


def gather(material: Material, path: Path) -> CacheContent:
    """Read a cache once, row by row."""
    name = CacheName.of(path, material.window)
    content, kept = CacheContent(name=name), name.kept(material.interactions.lines(name.split))
    spelled = instructions(read_rows(name.path))
    for row in read_rows(name.path):
        content.num_rows += 1
        if isinstance(row, str):
            content.odd.append(row)
        else:
            line = kept[row.number] if row.number < len(kept) else None
            _take(material, content, row, line, spelled)
    if content.num_rows < len(kept):
        content.stale.append(f"{content.num_rows:,} rows for {len(kept):,} lines")
    _drop_instructions(content)
    return content


def check(material: Material, content: CacheContent) -> Iterator[Finding]:
    """The findings on one cache, but for its lists, which are judged like all others."""
    name, split, rows = content.name.path.name, content.name.split, content.num_rows
    yield judged(
        CONTENT,
        name,
        rows,
        "rows",
        content.odd,
        "wrong",
        meaning="A row holds a prompt and its answer: remove the file.",
    )
    yield judged(CONTENT, f"{name}, lines", rows, "rows", content.stale, "warning", meaning=STALE)
    yield judged(TARGET_IN_PROMPT, name, rows, "prompts", content.told, "leak", meaning=TOLD)
    if split != "train":
        hits = [hint.where for hint in content.hints]
        yield judged(LATER_HINTS, name, rows, "prompts", hits, "leak", meaning=LATER.format(split=split))
    owned = [(hint, owners) for hint in content.hints if (owners := _owners(material, hint)) is not None]
    foreign = [hint.where for hint, is_own in owned if not is_own]
    yield judged(FOREIGN_HINTS, name, len(owned), "known traces", foreign, "warning", meaning=FOREIGN)
    naming = [hint.where for hint in content.hints if _names_target(material, hint)]
    yield judged(NAMING_TRACES, name, len(content.hints), "hints", naming, "leak", meaning=NAMED)


def _take(
    material: Material, content: CacheContent, row: CachedPrompt, line: Line | None, spelled: frozenset[Mention]
) -> None:
    where = f"row {row.number}" + (f", user {line.user_id}" if line is not None else "")
    if line is not None and line.items[-1] != row.target_id:
        content.stale.append(f"{where}: {row.target_id} in place of {line.items[-1]}")
        line = None
    elif line is None:
        content.stale.append(f"{where} has no line")
    if text := row.hint(material.trace_texts):
        content.hints.append(Hint(where=where, text=text, target_id=row.target_id, line=line))
    history = line.items[-content.name.window : -1] if line is not None else ()
    candidates, others = row.lists(history, content.name.num_candidates, spelled)
    if row.target_id in others and row.target_id not in history:
        content.told.append(where)
    if line is not None and candidates:
        content.examples.append(
            RankingExample(
                example_id=example_id(line.user_id, row.target_id, history),
                user_id=line.user_id,
                history=history,
                candidates=candidates,
                target_id=row.target_id,
                split=content.name.split,
            )
        )


def _drop_instructions(content: CacheContent) -> None:
    """Forget what every prompt says: it tells how to answer and is no hint."""
    counts = Counter(hint.text for hint in content.hints)
    often = max(3, IN_EVERY_PROMPT * content.num_rows)
    content.hints = [hint for hint in content.hints if counts[hint.text] < often]


def _owners(material: Material, hint: Hint) -> bool | None:
    """Whether a hint was written for the line of its prompt; None where its writer's record or the line is unknown."""
    rows = material.trace_texts.within(hint.text)
    if not rows or hint.line is None:
        return None
    return any(row.user_id == hint.line.user_id for row in rows)


def _names_target(material: Material, hint: Hint) -> bool:
    history = hint.line.items[:-1] if hint.line is not None else ()
    return material.naming.names(hint.text, hint.target_id, history) is not None
