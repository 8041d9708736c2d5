"""Reading reasoning files and joining each trace to the window of the train split that it was written for.

Our own records hold an example id, the hash of user, target and history. Where such a record fits no line of train.tsv
any more the file is stale: a DataError says how many records are, which is the first, and which command mends the file.
Records of the reference implementation hold a line number: it is the physical line, verified by user, history and
target; what doesn't fit is counted and never used. Records are read one at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mllmrec.data.sequences import Interactions, Line, by_user
from mllmrec.errors import ArtifactError, DataError
from mllmrec.progress import note
from mllmrec.records import Trace, example_id
from mllmrec.storage.json_streams import read_list
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import ID_PATTERN, DatasetFiles, require, sha256

Joined = tuple[Trace, dict[str, Any]]


def written_traces(files: DatasetFiles) -> Path:
    """The file that assessment reads: the refined traces where there are any, else the drafts."""
    return require(
        _written(files),
        "A file of reasoning traces",
        f"Write one with `mllmrec pseudo-cot --dataset {files.name}`, and better ones with `mllmrec refine`.",
    )


def usable_traces(files: DatasetFiles) -> Path:
    """The file that hints come from: the assessed traces where there are any, else those that were written."""
    assessed = files.assessed_cot
    return assessed if assessed.exists() else written_traces(files)


def verify_assessed(files: DatasetFiles) -> None:
    """Refuse an assessed file that was made of other traces than those that are there. Raises ArtifactError.

    Where there is nothing to compare it is taken on trust, with a note where the manifest is missing.
    """
    assessed, source = files.assessed_cot, _written(files)
    manifest = Manifest.read(assessed)
    known = manifest.inputs.get("traces") if manifest is not None else None
    if known is None:
        note(f"{assessed} has no manifest that lists its input, so nothing tells of which traces it was made.")
    elif source.exists() and sha256(source) != known:
        raise ArtifactError(
            f"{assessed} was not made from {source} as it is now: these traces were written, or written again, after "
            "`mllmrec assess`. Expected an assessment of today's traces. Make it again with `mllmrec assess --dataset "
            f"{files.name} --overwrite`."
        )


class TraceJoin:
    """Joins the records of one file to the train split, as often as it is iterated over.

    `counts` is of the last pass: `joined`, `mismatched` (of the reference's records) and `repeated` (the same
    example again; the first record counts). A trace without words is joined too, with an empty `reasoning`.
    """

    def __init__(self, path: Path, interactions: Interactions) -> None:
        self.path, self.counts = path, Counter[str]()
        self._windows = TrainWindows(interactions)

    def __iter__(self) -> Iterator[Joined]:
        """Yield each trace with its record. Raises DataError, when all is read, if own records are stale."""
        self.counts = Counter()
        stale: list[tuple[int, str, str]] = []
        reasons, seen = Counter[str](), set[str]()
        for number, record in enumerate(read_list(self.path), 1):
            try:
                trace, _ = self._windows.find(record)
            except MisfitError as problem:
                if "example_id" in record:
                    reasons[problem.reason] += 1
                    stale = stale or [(number, problem.reason, problem.what)]
                else:
                    self.counts["mismatched"] += 1
                continue
            if trace.example_id in seen:
                self.counts["repeated"] += 1
                continue
            seen.add(trace.example_id)
            self.counts["joined"] += 1
            yield trace, record
        if stale:
            raise self._stale(reasons, *stale[0])

    def _stale(self, reasons: Counter[str], number: int, reason: str, what: str) -> DataError:
        total = sum(reasons.values())
        kinds = "; ".join(f"{count}: {kind}" for kind, count in reasons.most_common())
        return DataError(
            f"{self.path}: {total} of its traces can't be joined to train.tsv ({kinds}). The first is record {number}, "
            f"{what}: {reason}. Expected traces of train.tsv as it is now. Write them anew with `mllmrec pseudo-cot "
            "--overwrite`, then `mllmrec refine --overwrite` and `mllmrec assess --overwrite` where you use them."
        )


class MisfitError(DataError):
    """A record that belongs to no window of the train split; `reason` in a few stable words."""

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(f"{what}: {reason}")
        self.reason, self.what = reason, what


class TrainWindows:
    """The lines of the train split, in which the window of a record is looked up."""

    def __init__(self, interactions: Interactions) -> None:
        self._physical = {line.line_index: line for line in interactions.train}
        self._train = by_user(interactions.train)
        self._later = {split: by_user(interactions.lines(split)) for split in ("valid", "test")}

    def find(self, record: Mapping[str, Any]) -> tuple[Trace, Line]:
        """The trace of a record and the line it belongs to. Raises MisfitError when it fits none.

        A record with an example id of its own may fit any line of its user, one without only the line it names.
        """
        content = read_content(record)
        if content is None:
            raise MisfitError("its user, history or target is missing or no id", "without them")
        what = f"of user {content.user_id} and target {content.target_id}"
        lines: Sequence[Line] = self._train.get(content.user_id, ())
        if "example_id" in record:
            if record["example_id"] != content.example_id:
                raise MisfitError("its user, history or target isn't what its example id was made of", what)
        else:
            number = record.get("line_idx")
            named = self._physical.get(number) if isinstance(number, int) and number is not True else None
            lines = [line for line in lines if line is named]
        own = next((line for line in lines if holds(line.items, content.span)), None)
        if own is None:
            raise MisfitError(self._why(content.user_id, content.span), what)
        return Trace(example_id=content.example_id, **content._asdict()), own

    def _why(self, user_id: str, span: tuple[str, ...]) -> str:
        for split, lines in self._later.items():
            if any(holds(line.items, span) for line in lines.get(user_id, ())):
                return f"it is of the {split} split"
        if user_id not in self._train:
            return "its user has no line"
        return "its history and target don't follow each other in a line of its user"


def holds(items: Sequence[str], span: Sequence[str]) -> bool:
    """Whether `span` is a stretch of `items`.

    >>> holds(("a", "b", "c"), ("b", "c")), holds(("a", "b", "c"), ("a", "c"))
    (True, False)
    """
    length = len(span)
    return any(items[at : at + length] == span for at in range(len(items) - length + 1) if items[at] == span[0])


class TraceContent(NamedTuple):
    """The user, the window and the words (perhaps none) of a record."""

    user_id: str
    history: tuple[str, ...]
    target_id: str
    reasoning: str

    @property
    def span(self) -> tuple[str, ...]:
        """The window: the history and the target."""
        return (*self.history, self.target_id)

    @property
    def example_id(self) -> str:
        """The hash of user, target and history."""
        return example_id(self.user_id, self.target_id, self.history)


def read_content(record: Mapping[str, Any]) -> TraceContent | None:
    """The content of a record, ours or the reference's; None where its user, history or target is missing or no id."""
    items, text = record.get("history_items"), record.get("reasoning")
    values = [_id(record.get("user_id")), _id(record.get("target_item"))]
    values += [_id(item) for item in items] if isinstance(items, list) and items else [None]
    ids = [value for value in values if value is not None]
    if len(ids) < len(values):
        return None
    user_id, target_id, *history = ids
    reasoning = text.strip() if isinstance(text, str) else ""
    return TraceContent(user_id=user_id, history=tuple(history), target_id=target_id, reasoning=reasoning)


def was_conditioned(record: Mapping[str, Any], *, refined: bool) -> bool:
    """Whether the writer of a record was shown the target. Ours say so; the reference's refiner always is."""
    stated = record.get("answer_conditioned")
    return refined if stated is None else bool(stated)


def _written(files: DatasetFiles) -> Path:
    refined = files.refined_cot
    return refined if refined.exists() else files.pseudo_cot


def _id(value: Any) -> str | None:
    """The id of the reference's {item_id, ...} object, or a plain one; None where it can't be one."""
    plain = value.get("item_id") if isinstance(value, dict) else value
    usable = isinstance(plain, (str, int)) and not isinstance(plain, bool)
    return str(plain) if usable and ID_PATTERN.fullmatch(str(plain)) else None
