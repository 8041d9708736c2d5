"""What an audit reads: a dataset's files, each as far as it can be read.

A file that is missing or closed to the reader is the usual error. One that can be read and holds something else than
it should is a finding, and the other checks go on without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from mllmrec.artifacts import Workspace, require
from mllmrec.data.auditing.files import CandidateFile, CaptionFile, read_candidate_file, read_caption_file
from mllmrec.data.auditing.findings import CONTENT, Finding
from mllmrec.data.auditing.title_index import TitleIndex
from mllmrec.data.auditing.trace_files import TraceFile, TraceTexts, read_trace_file
from mllmrec.data.legacy import CACHE_NAME
from mllmrec.data.list_faults import Membership
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
from mllmrec.data.traces import holds
from mllmrec.errors import MllmrecError
from mllmrec.records import Split

Content = TypeVar("Content")
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


@dataclass(kw_only=True)
class Material:
    """A dataset under audit. `wrong` gathers the findings on files that can't be read as what they should be."""

    workspace: Workspace
    dataset: str
    window: int
    interactions: Interactions
    captions: CaptionFile
    traces: list[TraceFile]
    wrong: list[Finding] = field(default_factory=list)
    _known: dict[Split, Mapping[str, frozenset[str]]] = field(default_factory=dict)

    @cached_property
    def naming(self) -> Naming:
        return Naming(self.interactions.catalogue, self.captions.captions)

    @cached_property
    def titles(self) -> TitleIndex:
        return TitleIndex(self.interactions.catalogue, self.naming)

    @cached_property
    def trace_texts(self) -> TraceTexts:
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
        """The same, of train only the lines that may be trained on."""
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
        return [path for path in self._processed(".json") if CACHE_NAME.fullmatch(path.name)]

    def _processed(self, suffix: str) -> list[Path]:
        folder = self.workspace.processed(self.dataset)
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
        return [path for path in paths if path.suffix == suffix and ".partial." not in path.name]


def load(workspace: Workspace, dataset: str, window: int) -> Material:
    """Read a dataset; the training file and the titles must be there, all else may be absent."""
    require_dataset(workspace, dataset)
    require(workspace.split(dataset, "train"), "The training file", PREPARE)
    require(workspace.titles(dataset), "The titles file", PREPARE)
    wrong: list[Finding] = []
    splits = {split: attempt(workspace.split(dataset, split), read_lines, wrong) or [] for split in SPLITS}
    held_out = not workspace.split(dataset, "valid").exists()
    if held_out:
        splits["valid"] = [line for line in splits["train"] if is_held_out(line.user_id)]
    catalogue = attempt(workspace.titles(dataset), read_catalogue, wrong) or Catalogue([])
    traces = [workspace.assessed_cot(dataset), workspace.refined_cot(dataset), workspace.pseudo_cot(dataset)]
    return Material(
        workspace=workspace,
        dataset=dataset,
        window=window,
        interactions=Interactions(
            train=splits["train"],
            valid=splits["valid"],
            test=splits["test"],
            catalogue=catalogue,
            held_out=held_out,
        ),
        captions=attempt(workspace.captions(dataset), read_caption_file, wrong) or CaptionFile(),
        traces=[file for path in traces if (file := attempt(path, read_trace_file, wrong)) is not None],
        wrong=wrong,
    )


def attempt(path: Path, reader: Callable[[Path], Content], wrong: list[Finding]) -> Content | None:
    """What `reader` makes of a file; None where there is none, or where it holds something else, which is a finding."""
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
        found=plain(str(error).replace(str(path), path.name)),
        verdict="wrong",
        meaning="A file that holds something else than it should can't be vouched for: make it again.",
    )


def one_holds(lines: list[Line], span: tuple[str, ...]) -> bool:
    """Whether `span` stands on one of `lines`, item after item."""
    return any(holds(line.items, span) for line in lines)


def ends_with(lines: list[Line], span: tuple[str, ...]) -> bool:
    """Whether one of `lines` ends with `span`, its target last."""
    return any(line.items[-len(span) :] == span for line in lines)
