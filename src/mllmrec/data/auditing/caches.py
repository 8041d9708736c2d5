"""The prompt caches of the reference implementation under audit, read a row at a time.

None of their prompts is ever shown to a model here, but published figures may stem from them, and known defects of
that implementation show in them: reasoning of training in test prompts, looked up by a row number that is another
user's; reasoning that was written with the answer in view; the same lists for every stage; files made from other data
than their names suggest.

    test_generate_seed42_neg9.json                 [{"prompt", "target_id", "candidates"}]
    train_train_seed42_neg9_cot_0.1_int_10.json    [{"messages": [user, assistant]}]

A cache holds neither users nor lines: its rows are the lines of the split that are long enough, in their order. Items
are written `[ITEM_<id>] <title>`, the history first and the candidates next; a hint stands in think tags. The
instruction may spell an example id, which is recognised by standing behind the same words in every prompt.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mllmrec.data.auditing.findings import (
    CONTENT,
    FOREIGN_HINTS,
    LATER_HINTS,
    NAMING_TRACES,
    TARGET_IN_PROMPT,
    Finding,
    judged,
)
from mllmrec.data.auditing.material import Material, TraceTexts
from mllmrec.data.candidates.protocols import CacheName
from mllmrec.data.prompts import parse
from mllmrec.data.sequences import Line
from mllmrec.records import RankingExample, Split, example_id
from mllmrec.storage.json_streams import read_list

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
ANSWER_NAMED = "The prompt names the right answer beside the candidate list. Remove the cache."

SAMPLED_ROWS, CONTEXT_CHARACTERS = 200, 12
ASKING = ("system", "user")
ROLES = (*ASKING, "assistant")
IN_EVERY_PROMPT = 0.9
"""Share of the sampled prompts that an instruction stands in; some may be cut."""

_MARK = r"(?:seed:)?(?:think|thinking|thoughts?|reasoning|reflection)"
_THOUGHT = re.compile(
    rf"(?:<(?P<tag>{_MARK})>(?P<words>.*?)(?:</(?P=tag)>|\Z)"
    rf"|\[(?P<square>{_MARK})\](?P<within>.*?)\[/(?P=square)\]"
    r"|◁think▷(?P<between>.*?)(?:◁/think▷|\Z))",
    re.DOTALL | re.IGNORECASE,
)
_STEP = re.compile(r"^\W*step\W*(\d)\b", re.IGNORECASE | re.MULTILINE)
_MENTION = re.compile(r"\[ITEM_([^\]\s]+)\]")


@dataclass(frozen=True, kw_only=True)
class CachedHint:
    """The reasoning in one prompt; `line` is the one the prompt stands for, None where that is unclear."""

    where: str
    text: str
    target_id: str
    line: Line | None


@dataclass(kw_only=True)
class CacheContent:
    """What one pass over a cache gathers; `examples` are the rows that fit their line."""

    name: Cache
    num_rows: int = 0
    odd: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    answer_named: list[str] = field(default_factory=list)
    hints: list[CachedHint] = field(default_factory=list)
    examples: list[RankingExample] = field(default_factory=list)


def gather(material: Material, path: Path) -> CacheContent:
    """Read a cache once, row by row."""
    name = Cache.of(path, material.window)
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
    yield judged(TARGET_IN_PROMPT, name, rows, "prompts", content.answer_named, "leak", meaning=ANSWER_NAMED)
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
        content.hints.append(CachedHint(where=where, text=text, target_id=row.target_id, line=line))
    history = line.items[-content.name.window : -1] if line is not None else ()
    candidates, others = row.lists(history, content.name.num_candidates, spelled)
    if row.target_id in others and row.target_id not in history:
        content.answer_named.append(where)
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
    """Drop what every prompt says: it is the instruction and no hint."""
    counts = Counter(hint.text for hint in content.hints)
    often = max(3, IN_EVERY_PROMPT * content.num_rows)
    content.hints = [hint for hint in content.hints if counts[hint.text] < often]


def _owners(material: Material, hint: CachedHint) -> bool | None:
    """Whether a hint was written for the line of its prompt; None where its writer's record or the line is unknown."""
    rows = material.trace_texts.within(hint.text)
    if not rows or hint.line is None:
        return None
    return any(row.user_id == hint.line.user_id for row in rows)


def _names_target(material: Material, hint: CachedHint) -> bool:
    history = hint.line.items[:-1] if hint.line is not None else ()
    return material.naming.names(hint.text, hint.target_id, history) is not None


class Mention(NamedTuple):
    """An id in a prompt, with the characters before it on its line."""

    item_id: str
    context: str


@dataclass(frozen=True, kw_only=True)
class CachedPrompt:
    """One row: the prompt, the right answer, and the candidates where the row lists them. Rows count from 0."""

    number: int
    text: str
    target_id: str
    candidates: tuple[str, ...] | None

    def hint(self, traces: TraceTexts) -> str:
        """The reasoning that the prompt carries: in think tags, as numbered steps, or a known trace."""
        thoughts = " ".join(
            match["words"] or match["within"] or match["between"] or "" for match in _THOUGHT.finditer(self.text)
        ).split()
        if thoughts:
            return " ".join(thoughts)
        steps = list(_STEP.finditer(self.text))
        if len({step[1] for step in steps}) > 1:
            return self.text[steps[0].start() :]
        return traces.lines_of(self.text)

    def mentions(self) -> list[Mention]:
        """The ids that stand outside the reasoning, in their order."""
        text = _THOUGHT.sub(" ", self.text)
        return [
            Mention(match[1], text[max(0, match.start() - CONTEXT_CHARACTERS) : match.start()].rpartition("\n")[2])
            for match in _MENTION.finditer(text)
        ]

    def lists(
        self, history: Sequence[str], num_candidates: int, instructions: Collection[Mention] = ()
    ) -> tuple[tuple[str, ...] | None, list[str]]:
        """The candidates in the order of the prompt, None where it shows none, and the ids named beside them.

        `num_candidates` is what the cache's name says. It decides about ids that `instructions` hold: where all
        prompts list the same items these stand behind the same words too, and count as candidates.
        """
        mentions = self.mentions()
        own = [mention.item_id for mention in mentions if mention not in instructions]
        if self.candidates is not None:
            return self.candidates, list((Counter(own) - Counter(self.candidates)).elements())
        every = [mention.item_id for mention in mentions]
        for named in (own, every):
            rest = _after(named, history)
            if rest is not None and len(set(rest)) >= num_candidates:
                break
        if rest is None:
            return None, []
        distinct = tuple(dict.fromkeys(rest))
        if named is every and instructions:
            distinct = distinct[:num_candidates]
        repeated = list((Counter(rest) - Counter(distinct)).elements())
        return distinct or None, [*history, *repeated]


def instructions(rows: Iterable[CachedPrompt | str]) -> frozenset[Mention]:
    """The ids that stand behind the same words in every prompt, judged by the first of them."""
    prompts = [row for row in islice(rows, SAMPLED_ROWS) if not isinstance(row, str)]
    counts = Counter(mention for prompt in prompts for mention in set(prompt.mentions()))
    least = max(2.0, IN_EVERY_PROMPT * len(prompts))
    return frozenset(mention for mention, count in counts.items() if count >= least)


def _after(named: Sequence[str], history: Sequence[str]) -> list[str] | None:
    """The ids behind the first occurrence of the history; None where there is none."""
    length = len(history)
    for start in range(len(named) - length + 1):
        if tuple(named[start : start + length]) == tuple(history):
            return list(named[start + length :])
    return None


@dataclass(frozen=True, kw_only=True)
class Cache:
    """A cache and what its name says about it."""

    path: Path
    split: Split
    window: int
    num_candidates: int

    @classmethod
    def of(cls, path: Path, window: int) -> Cache:
        """`window` is for older names, which hold none."""
        named = CacheName.parse(path)
        assert named is not None, "only files that are named like caches are read as such"
        return cls(
            path=path,
            split=named.split,
            window=named.window or window,
            num_candidates=named.num_neg + 1,
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
    target, candidates, text = row.get("target_id"), row.get("candidates"), _turns(row.get("prompt"), ROLES)
    if not isinstance(target, (str, int)) or not isinstance(candidates, list) or text is None:
        return None
    return CachedPrompt(number=number, text=text, target_id=str(target), candidates=tuple(map(str, candidates)))


def _from_messages(number: int, row: Mapping[str, Any]) -> CachedPrompt | None:
    messages = row["messages"]
    text, answer = _turns(messages, ASKING), _turns(messages, ("assistant",))
    target = parse(answer).item_id if answer else None
    if text is None or target is None:
        return None
    return CachedPrompt(number=number, text=text, target_id=target, candidates=None)


def _turns(prompt: Any, roles: Collection[str]) -> str | None:
    """The text of a prompt: a plain one, or the turns of `roles` in a list of messages."""
    if isinstance(prompt, str):
        return prompt
    if not isinstance(prompt, list):
        return None
    turns = [turn.get("content") for turn in prompt if isinstance(turn, dict) and turn.get("role") in roles]
    return "\n".join(turn for turn in turns if isinstance(turn, str)) if turns else None
