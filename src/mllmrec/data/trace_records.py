"""What a record of a reasoning file says, ours or the reference implementation's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mllmrec.artifacts import ID_PATTERN
from mllmrec.records import example_id


class TraceContent(NamedTuple):
    """Whose trace a record is, and its words, which may be none."""

    user_id: str
    history: tuple[str, ...]
    target_id: str
    reasoning: str

    @property
    def span(self) -> tuple[str, ...]:
        return (*self.history, self.target_id)

    @property
    def example_id(self) -> str:
        return example_id(self.user_id, self.target_id, self.history)


def read_content(record: Mapping[str, Any]) -> TraceContent | None:
    """The content of a record, ours or the reference's; None where its user, history or target is missing or no id."""
    items, text = record.get("history_items"), record.get("reasoning")
    found = [_id(record.get("user_id")), _id(record.get("target_item"))]
    found += [_id(item) for item in items] if isinstance(items, list) and items else [None]
    ids = [each for each in found if each is not None]
    if len(ids) < len(found):
        return None
    user_id, target_id, *history = ids
    reasoning = text.strip() if isinstance(text, str) else ""
    return TraceContent(user_id=user_id, history=tuple(history), target_id=target_id, reasoning=reasoning)


def was_conditioned(record: Mapping[str, Any], *, refined: bool) -> bool:
    """Whether the writer of a record was shown the target. Ours say so; the reference's refiner always is."""
    told = record.get("answer_conditioned")
    return refined if told is None else bool(told)


def _id(value: Any) -> str | None:
    """The id of the reference's {item_id, ...} object, or a plain one; None where it can't be one."""
    found = value.get("item_id") if isinstance(value, dict) else value
    usable = isinstance(found, (str, int)) and not isinstance(found, bool)
    return str(found) if usable and ID_PATTERN.fullmatch(str(found)) else None
