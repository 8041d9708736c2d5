"""The windows that get traces, and the records that traces are kept in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mllmrec.data.candidates import questions
from mllmrec.data.sequences import Catalogue, Interactions, Windows, windows
from mllmrec.records import RankingExample, example_id


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A history and its target, by the id that training knows them by, and the 0-based physical line they are from."""

    example_id: str
    user_id: str
    history: tuple[str, ...]
    target_id: str
    line_index: int


def train_windows(interactions: Interactions, length: int, mode: Windows) -> tuple[dict[str, Window], dict[str, int]]:
    """The windows that training uses, by example id in the order of lines; and what was left out, as it counts it."""
    lines = interactions.training_lines()
    examples, counts = questions(lines, "train", length, mode)
    first_line = dict[str, int]()
    for line in lines:
        for *history, target in windows(line.items, length, mode):
            first_line.setdefault(example_id(line.user_id, target, history), line.line_index)
    return {each.example_id: window_of(each, first_line[each.example_id]) for each in examples}, counts


def window_of(example: RankingExample, line_index: int) -> Window:
    return Window(
        example_id=example.example_id,
        user_id=example.user_id,
        history=example.history,
        target_id=example.target_id,
        line_index=line_index,
    )


def trace_row(
    window: Window, catalogue: Catalogue, reasoning: str, writer: str, *, answer_conditioned: bool = False
) -> dict[str, Any]:
    """A record of the reasoning files. The target stands in it for joining alone."""
    return {
        "line_idx": window.line_index,
        "user_id": window.user_id,
        "history_items": [_named(item, catalogue) for item in window.history],
        "target_item": _named(window.target_id, catalogue),
        "reasoning": reasoning,
        "example_id": window.example_id,
        "writer": writer,
        "answer_conditioned": answer_conditioned,
    }


def _named(item_id: str, catalogue: Catalogue) -> dict[str, str]:
    return {"item_id": item_id, "title": catalogue.title(item_id)}
