"""The frozen records that flow between stages. Ids are strings everywhere; time runs left to right."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Split = Literal["train", "valid", "test"]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing that can be recommended. `attributes` are the further columns of the titles file."""

    item_id: str
    title: str
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What an image shows, in words."""

    item_id: str
    title: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class RankingExample:
    """One question: which of `candidates` comes after `history`?

    `history` is oldest first. `target_id` is the true next item; it may be absent from `candidates` (a retriever
    missed it), and then counts as ranked nowhere.
    """

    example_id: str
    user_id: str
    history: tuple[str, ...]
    candidates: tuple[str, ...]
    target_id: str
    split: Split


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A chain of thought about a user's history; `reasoning` is free text."""

    example_id: str
    user_id: str
    history: tuple[str, ...]
    target_id: str
    reasoning: str


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The scores a recommender gave to one example's candidates, and where the target came out.

    `scores` are in the order of `candidates`. `higher` counts candidates scored strictly above the target, `ties`
    the others equal to it, and `rank` = higher + 1 + ties / 2. A target that is no candidate has rank None.
    `num_candidates` is None where all candidates are here; of a longer list the best ones are kept, and the target.
    """

    example_id: str
    user_id: str
    target_id: str
    candidates: tuple[str, ...]
    scores: tuple[float, ...]
    higher: int
    ties: int
    rank: float | None
    num_candidates: int | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows for a reader: the command line draws it, the report prints it. A cell may have several lines.

    `justify` places all columns but the first: figures to the right, words to the left.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    justify: Literal["left", "right"] = "right"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a stage tells when it is through: one sentence, the artifact, figures and tables.

    `passed` is False when a stage that checks something found it wrong: the command then exits with status 1.
    """

    headline: str
    artifact: Path | None = None
    tables: tuple[Table, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: dict[str, object] = field(default_factory=dict)
    passed: bool = True


def counted(count: int, one: str, many: str = "") -> str:
    """A count with its noun, and with a verb where one follows; `many` is `one` with an s unless it is given.

    >>> counted(1, "image"), counted(2000, "image"), counted(2, "trace is kept", "traces are kept")
    ('1 image', '2,000 images', '2 traces are kept')
    """
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def example_id(user_id: str, target_id: str, history: Sequence[str]) -> str:
    """The first 16 hex digits of sha256 over user, target and history: the key by which everything joins.

    >>> example_id("7", "12", ["3", "4"]) == example_id("7", "12", ("3", "4"))
    True
    >>> example_id("7", "12", ["3", "4"]) == example_id("7", "12", ["4", "3"])
    False
    """
    text = "\t".join((user_id, target_id, " ".join(history)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
