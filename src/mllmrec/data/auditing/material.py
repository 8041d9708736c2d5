"""What an audit reads: the files of a dataset, each as far as it can be read.

A missing training or titles file, or one that can't be opened, is an error. A file that holds something else than it
should is a finding, and the other checks go on without it; so is a row of a file, and the other rows are checked.
Reasoning files are read in our form and in the reference implementation's, and `TraceTexts` searches other texts for
theirs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, get_args

from mllmrec.data.auditing.findings import CONTENT, Finding
from mllmrec.data.auditing.title_index import TitleIndex
from mllmrec.data.candidates.drawing import read_candidates
from mllmrec.data.candidates.files import Membership
from mllmrec.data.candidates.protocols import CacheName, Protocol, protocol_of
from mllmrec.data.naming import Naming
from mllmrec.data.prompts import plain
from mllmrec.data.sequences import (
    PREPARE,
    Catalogue,
    Interactions,
    Line,
    by_user,
    is_held_out,
    read_catalogue,
    read_lines,
    require_dataset,
)
from mllmrec.data.traces import holds, read_content, was_conditioned
from mllmrec.errors import DataError, MllmrecError
from mllmrec.records import RankingExample, Split
from mllmrec.storage.json_streams import read_list
from mllmrec.storage.workspace import ID_PATTERN, DatasetFiles, Workspace, read_json, require

Content = TypeVar("Content")
SPLITS: tuple[Split, ...] = ("train", "valid", "test")

KEY_WORDS = 8
KEY_CHARACTERS = 400
COMPARED_WORDS = 40


@dataclass(kw_only=True)
class Material:
    """A dataset under audit. `wrong` gathers the findings on files that can't be read as what they should be."""

    files: DatasetFiles
    window: int
    interactions: Interactions
    captions: CaptionFile
    traces: list[TraceFile]
    wrong: list[Finding] = field(default_factory=list)
    _known: dict[Split, Mapping[str, frozenset[str]]] = field(default_factory=dict)

    @cached_property
    def naming(self) -> Naming:
        """Tells whether a text names an item."""
        return Naming(self.interactions.catalogue, self.captions.captions)

    @cached_property
    def titles(self) -> TitleIndex:
        """The titles of the catalogue, to be looked up in texts."""
        return TitleIndex(self.interactions.catalogue, self.naming)

    @cached_property
    def trace_texts(self) -> TraceTexts:
        """The texts of all traces, to be looked up in other texts."""
        return TraceTexts(row for file in self.traces for row in file.rows)

    @property
    def all_lines(self) -> Mapping[Split, dict[str, list[Line]]]:
        """The lines of each user in each split."""
        return self.membership.lines

    @cached_property
    def membership(self) -> Membership:
        """The users and items that lists may name."""
        return Membership.of(self.interactions)

    @cached_property
    def lines_by_user(self) -> dict[Split, dict[str, list[Line]]]:
        """The same, but of train only the lines that may be trained on."""
        return {**self.all_lines, "train": by_user(self.interactions.training_lines())}

    def known(self, split: Split) -> Mapping[str, frozenset[str]]:
        """All items known of each user at a split."""
        if split not in self._known:
            self._known[split] = self.interactions.known(split)
        return self._known[split]

    def candidate_files(self) -> Iterator[CandidateFile]:
        """Our candidate files, one in memory at a time."""
        for path in self._processed(".jsonl"):
            if (file := attempt(path, read_candidate_file, self.wrong)) is not None:
                yield file

    def caches(self) -> list[Path]:
        """The prompt caches of the reference implementation."""
        return [path for path in self._processed(".json") if CacheName.parse(path)]

    def _processed(self, suffix: str) -> list[Path]:
        folder = self.files.processed
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
        return [path for path in paths if path.suffix == suffix and ".partial." not in path.name]


def load(workspace: Workspace, dataset: str, window: int) -> Material:
    """Read a dataset; the training file and the titles must be there, all else may be absent."""
    require_dataset(workspace, dataset)
    files = workspace.dataset(dataset)
    require(files.split("train"), "The training file", PREPARE)
    require(files.titles, "The titles file", PREPARE)
    wrong: list[Finding] = []
    splits = {split: attempt(files.split(split), read_lines, wrong) or [] for split in SPLITS}
    held_out = not files.split("valid").exists()
    if held_out:
        splits["valid"] = [line for line in splits["train"] if is_held_out(line.user_id)]
    catalogue = attempt(files.titles, read_catalogue, wrong) or Catalogue([])
    traces = [files.assessed_cot, files.refined_cot, files.pseudo_cot]
    return Material(
        files=files,
        window=window,
        interactions=Interactions(
            train=splits["train"],
            valid=splits["valid"],
            test=splits["test"],
            catalogue=catalogue,
            held_out=held_out,
        ),
        captions=attempt(files.captions, read_caption_file, wrong) or CaptionFile(),
        traces=[file for path in traces if (file := attempt(path, read_trace_file, wrong)) is not None],
        wrong=wrong,
    )


def attempt(path: Path, reader: Callable[[Path], Content], wrong: list[Finding]) -> Content | None:
    """The file as `reader` reads it; None where there is none, or where it can't be read, which becomes a finding."""
    try:
        return reader(path) if path.exists() else None
    except (MllmrecError, RecursionError) as error:
        wrong.append(unreadable(path, error))
        return None


def unreadable(path: Path, error: Exception) -> Finding:
    """The finding on a file whose content isn't what it should be."""
    return Finding(
        check=CONTENT,
        where=path.name,
        result=plain(str(error).replace(str(path), path.name)),
        verdict="wrong",
        meaning="A file that holds something else than it should can't be vouched for: make it again.",
    )


def one_holds(lines: list[Line], span: tuple[str, ...]) -> bool:
    """Whether `span` stands on one of `lines`, item after item."""
    return any(holds(line.items, span) for line in lines)


def ends_with(lines: list[Line], span: tuple[str, ...]) -> bool:
    """Whether one of `lines` ends with `span`, its target last."""
    return any(line.items[-len(span) :] == span for line in lines)


@dataclass(frozen=True, kw_only=True)
class CandidateFile:
    """A frozen candidate file in our form; `odd` describes the rows that aren't lists of a split."""

    path: Path
    examples: list[RankingExample]
    odd: list[str] = field(default_factory=list)

    @property
    def protocol(self) -> Protocol:
        """The protocol that the file is named after."""
        return protocol_of(self.path)


@dataclass(frozen=True, kw_only=True)
class CaptionFile:
    """The captions of a file by item; `odd` describes the entries that aren't captions."""

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
        """The window: the history and the target."""
        return (*self.history, self.target_id)


@dataclass(frozen=True, kw_only=True)
class TraceFile:
    """The traces of a file that have a text; `odd` describes the records that aren't traces at all."""

    path: Path
    rows: list[TraceRow] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)

    @cached_property
    def of_reference(self) -> bool:
        """Whether the reference implementation wrote the file."""
        return bool(self.rows) and not any(row.own for row in self.rows)


class TraceTexts:
    """Looks up the traces whose text stands in another text, by their first words."""

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
        rows = self._by_start.get(words[start : start + KEY_WORDS], ())
        return [row for begin, row in rows if words[start : start + len(begin)] == begin]


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
