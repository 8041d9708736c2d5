"""Reading reasoning files for an audit: ours and the reference implementation's, and finding their texts again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mllmrec.data.trace_records import read_content, was_conditioned
from mllmrec.streams import read_list

KEY_WORDS = 8
KEY_CHARACTERS = 400
COMPARED_WORDS = 40


@dataclass(frozen=True, kw_only=True)
class TraceRow:
    """One trace: record `number` (from 1) of its file. `own` marks records of this program, joined by example id.

    `intact` says that the example id is still the hash of user, target and history; others have none to compare.
    """

    number: int
    user_id: str
    history: tuple[str, ...]
    target_id: str
    reasoning: str
    line_index: int | None
    own: bool
    intact: bool
    kept: bool
    conditioned: bool

    @property
    def span(self) -> tuple[str, ...]:
        return (*self.history, self.target_id)


@dataclass(frozen=True, kw_only=True)
class TraceFile:
    """The traces of a file that have a text; `odd` tells which records aren't traces at all."""

    path: Path
    rows: list[TraceRow] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)

    @cached_property
    def of_reference(self) -> bool:
        return bool(self.rows) and not any(row.own for row in self.rows)


class TraceTexts:
    """Finds the traces whose text stands in another text, by their first words."""

    def __init__(self, rows: Iterable[TraceRow]) -> None:
        self._by_start = defaultdict[tuple[str, ...], list[tuple[tuple[str, ...], TraceRow]]](list)
        for row in rows:
            words = tuple(row.reasoning.split())
            if len(words) >= KEY_WORDS:
                self._by_start[words[:KEY_WORDS]].append((words[:COMPARED_WORDS], row))

    def within(self, text: str) -> list[TraceRow]:
        """The traces that begin anywhere in `text`."""
        words = tuple(text.split()) if self._by_start else ()
        return [row for start in range(len(words) - KEY_WORDS + 1) for row in self._at(words, start)]

    def lines_of(self, text: str) -> str:
        """`text` from the first line on that begins a trace; nothing when none does. Lines of items are passed over."""
        start = 0
        for line in text.splitlines(keepends=True) if self._by_start else ():
            if not line.startswith("[ITEM_"):
                words = tuple(text[start : start + KEY_CHARACTERS].split(None, KEY_WORDS)[:KEY_WORDS])
                if words in self._by_start:
                    return text[start:]
            start += len(line)
        return ""

    def _at(self, words: tuple[str, ...], start: int) -> list[TraceRow]:
        found = self._by_start.get(words[start : start + KEY_WORDS], ())
        return [row for begin, row in found if words[start : start + len(begin)] == begin]


def read_trace_file(path: Path) -> TraceFile:
    """All records of a reasoning file, one at a time; failures of the reference (no text) are passed over."""
    rows, odd = [], []
    for number, record in enumerate(read_list(path), 1):
        row = _row(number, record, refined="deepseek" in path.name)
        if row is None:
            odd.append(f"record {number} lacks ids of its user, history or target")
        elif row.reasoning:
            rows.append(row)
    return TraceFile(path=path, rows=rows, odd=odd)


def _row(number: int, record: Mapping[str, Any], *, refined: bool) -> TraceRow | None:
    content, line_index = read_content(record), record.get("line_idx")
    if content is None:
        return None
    return TraceRow(
        number=number,
        **content._asdict(),
        line_index=line_index if isinstance(line_index, int) else None,
        own="example_id" in record,
        intact=record.get("example_id") in (None, content.example_id),
        kept=record.get("keep") is not False,
        conditioned=was_conditioned(record, refined=refined),
    )
