"""`mllmrec refine`: a reasoning model turns drafts into four checked steps.

It reads the drafts of pseudo-cot, or of the reference implementation, and keeps those that belong to the train split.
The writer sees the history's titles and captions and the draft, never the target, unless --answer-conditioned asks for
that mode by name: it has a prompt of its own, and is marked in every record, in the manifest and in the summary. When
an answer departs from the four steps, the writer is asked once more; a second such answer is recorded as a failure with
the rule that it broke. No user id leaves the machine.

Drafts are read one at a time: only their windows are held in memory, and a text is read again when it is needed, in the
order of the file. Drafts about validation users, of whom the reference implementation's file holds some, are counted
and never used.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mllmrec.data.item_files import read_captions
from mllmrec.data.sequences import Catalogue, Interactions
from mllmrec.data.traces import TraceJoin, holds
from mllmrec.errors import DataError
from mllmrec.models.base import Request, Teacher
from mllmrec.reasoning.writing.prompts import amended, answer_conditioned_prompt, refine_prompt
from mllmrec.reasoning.writing.resumable import Window, WritingJob, carry_out, shown_history
from mllmrec.reasoning.writing.steps import four_steps
from mllmrec.records import Summary, Trace, counted
from mllmrec.settings.texts import RefineSettings
from mllmrec.storage.manifests import Manifest, hash_files
from mllmrec.storage.workspace import Workspace, require

CONDITIONED = (
    "Answer-conditioned: the writer is shown the target, so these traces explain a known answer. Training on them can "
    "raise the reward without teaching to rank; `mllmrec assess` rejects those that name it."
)
LEFT_OUT = {
    "mismatched": (
        "draft belongs to no window of the train split and is left out",
        "drafts belong to no window of the train split and are left out",
    ),
    "empty": ("draft holds no words and is left out", "drafts hold no words and are left out"),
}
PROFILED = "profile writes from statistics and doesn't read the drafts; they only say which examples get a trace."


def run(settings: RefineSettings, workspace: Workspace, teacher: Teacher | None = None) -> Summary:
    """Write <dataset>_deepseek_cot.json in the order of the drafts.

    `teacher` writes in place of the one that the settings name.
    """
    files = workspace.dataset(settings.dataset)
    path = require(
        files.pseudo_cot,
        "The file of drafts",
        f"Write it with `mllmrec pseudo-cot --dataset {settings.dataset}`.",
    )
    captions = read_captions(workspace, settings.dataset, settings.captions)
    interactions = Interactions.load(workspace, settings.dataset)
    drafts = Drafts(path, interactions)
    requests = RefinementRequests(interactions.catalogue, captions, drafts)
    job = WritingJob(
        artifact=files.refined_cot,
        what="refined traces",
        catalogue=interactions.catalogue,
        captions=captions,
        windows=drafts.windows,
        request=requests.conditioned_request if settings.answer_conditioned else requests.request,
        form=four_steps,
        counts={"drafts": dict(drafts.counts)},
        files={"drafts": path},
        answer_conditioned=settings.answer_conditioned,
        warnings=[*_warnings(drafts, path, workspace, settings)],
    )
    return carry_out(job, settings, workspace, teacher)


@dataclass(frozen=True)
class RefinementRequests:
    """Requests for the four steps: a history's titles and captions, and the draft about it."""

    catalogue: Catalogue
    captions: Mapping[str, str]
    drafts: Drafts

    def request(self, key: str, broken_rule: str | None = None) -> Request:
        """Ask for the four steps of an example without showing its target."""
        history = shown_history(self.drafts.windows[key].history, self.catalogue, self.captions)
        return Request(key=key, text=amended(refine_prompt(history, self.drafts.text(key)), broken_rule))

    def conditioned_request(self, key: str, broken_rule: str | None = None) -> Request:
        """Ask for four steps that lead to the target."""
        window = self.drafts.windows[key]
        *history, target = shown_history((*window.history, window.target_id), self.catalogue, self.captions)
        text = answer_conditioned_prompt(history, self.drafts.text(key), target)
        return Request(key=key, text=amended(text, broken_rule))


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
            by_fate = ", ".join(f"{count} {fate}" for fate, count in self.counts.items()) or "it is empty"
            raise DataError(
                f"{path}: no draft in it can be used ({by_fate}). Expected drafts about windows of the train split. "
                "Write them with `mllmrec pseudo-cot`."
            )
        self._unread: Iterator[Trace] = iter(())

    def text(self, key: str) -> str:
        """The draft of one example. Asking for keys in the order of `windows` costs one pass over the file."""
        for _ in range(2):
            for trace in self._unread:
                if trace.example_id == key:
                    return trace.reasoning
            self._unread = (trace for trace, _ in self._joined)
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


def _warnings(drafts: Drafts, path: Path, workspace: Workspace, settings: RefineSettings) -> list[str]:
    """Warnings about the mode, the writer, and drafts that are left out or were made from other files."""
    warnings = [CONDITIONED] if settings.answer_conditioned else []
    warnings += [PROFILED] if settings.backend == "profile" else []
    warnings += [
        f"{path.name}: {counted(drafts.counts[fate], *words)}."
        for fate, words in LEFT_OUT.items()
        if drafts.counts[fate]
    ]
    manifest = Manifest.read(path)
    files = workspace.dataset(settings.dataset)
    now = hash_files(titles=files.titles, captions=files.captions)
    changed = [name for name, digest in now.items() if manifest and manifest.inputs.get(name, digest) != digest]
    if changed:
        warnings.append(f"{path.name} was written from other {' and '.join(changed)} than there are now.")
    return warnings
