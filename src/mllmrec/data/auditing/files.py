"""Candidate and caption files as an audit reads them: whatever a row may hold, the other rows are looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from mllmrec.artifacts import ID_PATTERN, read_json
from mllmrec.data.candidates import read_candidates
from mllmrec.data.protocols import protocol_named, protocol_of
from mllmrec.errors import DataError
from mllmrec.records import RankingExample, Split


@dataclass(frozen=True, kw_only=True)
class CandidateFile:
    """A frozen candidate file, ours or drawn as the reference does; `odd` tells which rows are no lists of a split."""

    path: Path
    examples: list[RankingExample]
    odd: list[str] = field(default_factory=list)

    @property
    def legacy(self) -> bool:
        """Whether it is the reference's draw, whose weaknesses are known and only told."""
        return protocol_of(self.path).startswith("legacy-")

    @property
    def foreign(self) -> bool:
        """Whether it was made elsewhere, by rules that its name doesn't tell."""
        return protocol_named(protocol_of(self.path)) is None

    @property
    def drawn(self) -> bool:
        """Whether its negatives are drawn at random, so that two lists have little in common."""
        return protocol_of(self.path).removeprefix("legacy-").startswith(("uni", "pop"))


@dataclass(frozen=True, kw_only=True)
class CaptionFile:
    """The captions of a file by item; `odd` tells which entries aren't captions."""

    captions: dict[str, str] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)


def read_candidate_file(path: Path) -> CandidateFile:
    """The lists of a candidate file whose ids are ids and whose split is one."""
    file = CandidateFile(path=path, examples=[])
    for number, example in enumerate(read_candidates(path), 1):
        ids = (example.example_id, example.user_id, example.target_id, *example.history, *example.candidates)
        if not all(map(ID_PATTERN.fullmatch, ids)):
            file.odd.append(f"list {number} holds what is no id")
        elif example.split not in get_args(Split):
            file.odd.append(f"list {number} is of no split that there is: {example.split}")
        else:
            file.examples.append(example)
    return file


def read_caption_file(path: Path) -> CaptionFile:
    """The captions of {item: {title, caption}}. Raises DataError when the file is no such object."""
    rows = read_json(path)
    if not isinstance(rows, dict):
        raise DataError(f"{path} is a {type(rows).__name__}. Expected an object {{item: {{title, caption}}}}.")
    texts = {item: row.get("caption") if isinstance(row, dict) else None for item, row in rows.items()}
    return CaptionFile(
        captions={item: text for item, text in texts.items() if isinstance(text, str)},
        odd=[f"item {item} has no caption text" for item, text in texts.items() if not isinstance(text, str)],
    )
