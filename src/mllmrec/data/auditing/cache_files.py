"""Reading the prompt caches of the reference implementation, a row at a time.

    test_generate_seed42_neg9.json                 [{"prompt", "target_id", "candidates"}]
    train_train_seed42_neg9_cot_0.1_int_10.json    [{"messages": [user, assistant]}]

A cache holds neither users nor lines: its rows are the lines of the split that are long enough, in their order. Items
are written `[ITEM_<id>] <title>`, the history first and the candidates next; a hint stands in think tags.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mllmrec.data.auditing.trace_files import TraceTexts
from mllmrec.data.legacy import CACHE_NAME
from mllmrec.data.prompts import parse
from mllmrec.data.sequences import Line
from mllmrec.records import Split
from mllmrec.streams import read_list

HINT_WORDS = 5

_THOUGHT = re.compile(r"<think>(.*?)(?:</think>|\Z)", re.DOTALL)
_STEP = re.compile(r"^\W*step\W*(\d)\b", re.IGNORECASE | re.MULTILINE)
_MENTION = re.compile(r"\[ITEM_([^\]\s]+)\]")


@dataclass(frozen=True, kw_only=True)
class CachedPrompt:
    """One row: the user's turn, the right answer, and the candidates where the row lists them. Rows count from 0."""

    number: int
    text: str
    target_id: str
    candidates: tuple[str, ...] | None

    def hint(self, traces: TraceTexts) -> str:
        """The reasoning that the prompt carries: in think tags, as numbered steps, or a known trace."""
        thoughts = " ".join(_THOUGHT.findall(self.text)).split()
        if len(thoughts) >= HINT_WORDS:
            return " ".join(thoughts)
        steps = list(_STEP.finditer(self.text))
        if len({step[1] for step in steps}) > 1:
            return self.text[steps[0].start() :]
        return traces.lines_of(self.text)

    def lists(self, history: Sequence[str]) -> tuple[tuple[str, ...] | None, list[str]]:
        """The candidates in the order of the prompt, None where it shows none, and the ids named beside them."""
        mentions = _MENTION.findall(_THOUGHT.sub(" ", self.text))
        if self.candidates is not None:
            return self.candidates, list((Counter(mentions) - Counter(self.candidates)).elements())
        if tuple(mentions[: len(history)]) != tuple(history):
            return None, []
        rest = mentions[len(history) :]
        distinct = tuple(dict.fromkeys(rest))
        repeated = list((Counter(rest) - Counter(distinct)).elements())
        return distinct or None, [*mentions[: len(history)], *repeated]


@dataclass(frozen=True, kw_only=True)
class CacheName:
    """What a cache's name says about it; older names don't tell the window."""

    path: Path
    split: Split
    mode: str
    window: int

    @classmethod
    def of(cls, path: Path, window: int) -> CacheName:
        named = CACHE_NAME.fullmatch(path.name)
        assert named is not None, "only files that are named like caches are read as such"
        return cls(
            path=path,
            split=cast(Split, named["split"]),
            mode=named["mode"],
            window=int(named["window"] or window),
        )

    def kept(self, lines: Sequence[Line]) -> list[Line]:
        """The lines that the rows of the cache stand for."""
        return [line for line in lines if len(line.items) >= self.window]


def read_rows(path: Path) -> Iterator[CachedPrompt | str]:
    """The rows of a cache; a row that is no prompt is a text that says so."""
    for number, row in enumerate(read_list(path)):
        prompt = _from_messages(number, row) if "messages" in row else _from_prompt(number, row)
        yield prompt or f"row {number} holds no prompt with its answer"


def _from_prompt(number: int, row: Mapping[str, Any]) -> CachedPrompt | None:
    target, candidates, text = row.get("target_id"), row.get("candidates"), _turns(row.get("prompt"))
    if not isinstance(target, (str, int)) or not isinstance(candidates, list) or text is None:
        return None
    return CachedPrompt(number=number, text=text, target_id=str(target), candidates=tuple(map(str, candidates)))


def _from_messages(number: int, row: Mapping[str, Any]) -> CachedPrompt | None:
    messages = row["messages"]
    text, answer = _turns(messages), _turns(messages, role="assistant")
    target = parse(answer).item_id if answer else None
    if text is None or target is None:
        return None
    return CachedPrompt(number=number, text=text, target_id=target, candidates=None)


def _turns(prompt: Any, role: str = "user") -> str | None:
    """The text of a prompt: a plain one, or the turns of `role` in a list of messages."""
    if isinstance(prompt, str):
        return prompt
    if not isinstance(prompt, list):
        return None
    turns = [turn.get("content") for turn in prompt if isinstance(turn, dict) and turn.get("role") == role]
    return "\n".join(turn for turn in turns if isinstance(turn, str)) if turns else None
