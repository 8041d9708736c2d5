"""The drafts that refinement starts from, read one at a time.

Only windows are kept in memory; texts are read again when they are asked for, in the order of the file. Drafts about
validation users, of whom the reference implementation's file holds some, are counted and never used.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from mllmrec.data.sequences import Interactions
from mllmrec.data.traces import TraceJoin, holds
from mllmrec.errors import DataError
from mllmrec.reasoning.windows import Window
from mllmrec.records import Trace


class Drafts:
    """The usable drafts of a file: `windows` by example id in the file's order, `counts` of all records by fate.

    Raises DataError when own records are stale, or when there is no draft to use.
    """

    def __init__(self, path: Path, interactions: Interactions) -> None:
        self._joined = TraceJoin(path, interactions)
        self._lines = defaultdict[str, list[tuple[int, tuple[str, ...]]]](list)
        for line in interactions.training_lines():
            self._lines[line.user_id].append((line.line_index, line.items))
        self.counts = Counter[str]()
        self.windows = {window.example_id: window for trace, _ in self._joined if (window := self._usable(trace))}
        self.counts += self._joined.counts
        if not self.windows:
            told = ", ".join(f"{count} {fate}" for fate, count in self.counts.items()) or "it is empty"
            raise DataError(
                f"{path}: no draft in it can be used ({told}). Expected drafts about windows of the train split. Write "
                "them with `mllmrec pseudo-cot`."
            )
        self._place: Iterator[Trace] = iter(())

    def text(self, key: str) -> str:
        """The draft of one example. Keys asked for in the order of `windows` cost one pass over the file."""
        for _ in range(2):
            for trace in self._place:
                if trace.example_id == key:
                    return trace.reasoning
            self._place = (trace for trace, _ in self._joined)
        raise KeyError(key)

    def _usable(self, trace: Trace) -> Window | None:
        if not trace.reasoning:
            self.counts["empty"] += 1
            return None
        span = (*trace.history, trace.target_id)
        number = next((number for number, items in self._lines[trace.user_id] if holds(items, span)), None)
        if number is None:
            self.counts["of validation users"] += 1
            return None
        return Window(
            example_id=trace.example_id,
            user_id=trace.user_id,
            history=trace.history,
            target_id=trace.target_id,
            line_index=number,
        )
