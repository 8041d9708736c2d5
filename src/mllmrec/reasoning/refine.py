"""`mllmrec refine`: a reasoning model turns drafts into four checked steps.

It reads the drafts of pseudo-cot, or of the reference implementation, and keeps those that belong to the train split.
The writer sees the history's titles and captions and the draft, never the target, unless --answer-conditioned asks for
that mode by name: it has a prompt of its own, and marks every record, the manifest and what the stage tells. An answer
that departs from the four steps is asked for once more, then recorded as a failure with the rule it broke. No user id
leaves the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mllmrec.artifacts import Workspace, require
from mllmrec.backends.base import Request, Teacher
from mllmrec.data.captions import read_captions
from mllmrec.data.sequences import Catalogue, Interactions
from mllmrec.manifests import Manifest, hash_files
from mllmrec.reasoning.drafts import Drafts
from mllmrec.reasoning.prompts import amended, answer_conditioned_prompt, refine_prompt
from mllmrec.reasoning.steps import four_steps
from mllmrec.reasoning.writing import Job, carry_out, shown_history
from mllmrec.records import Summary
from mllmrec.settings.reasoning import RefineSettings

CONDITIONED = (
    "Answer-conditioned: the writer is shown the target, so these traces explain a known answer. Training on them can "
    "raise the reward without teaching to rank; `mllmrec assess` rejects those that name it."
)
PROFILED = "profile writes from statistics and doesn't read the drafts; they only say which examples get a trace."


def run(settings: RefineSettings, workspace: Workspace, teacher: Teacher | None = None) -> Summary:
    """Write <dataset>_deepseek_cot.json in the order of the drafts.

    `teacher` writes in place of the one that the settings name.
    """
    path = require(
        workspace.pseudo_cot(settings.dataset),
        "The file of drafts",
        f"Write it with `mllmrec pseudo-cot --dataset {settings.dataset}`.",
    )
    captions = read_captions(workspace, settings.dataset, settings.captions)
    interactions = Interactions.load(workspace, settings.dataset)
    drafts = Drafts(path, interactions)
    showing = Showing(interactions.catalogue, captions, drafts)
    job = Job(
        artifact=workspace.refined_cot(settings.dataset),
        what="refined traces",
        catalogue=interactions.catalogue,
        captions=captions,
        windows=drafts.windows,
        request=showing.conditioned_request if settings.answer_conditioned else showing.request,
        form=four_steps,
        counts={"drafts": dict(drafts.counts)},
        files={"drafts": path},
        answer_conditioned=settings.answer_conditioned,
        warnings=[*_doubts(drafts, path, workspace, settings)],
    )
    return carry_out(job, settings, workspace, teacher)


@dataclass(frozen=True)
class Showing:
    """What is shown of a history and its draft to a writer of four steps."""

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


def _doubts(drafts: Drafts, path: Path, workspace: Workspace, settings: RefineSettings) -> list[str]:
    """What a reader of the refined traces should know."""
    doubts = [CONDITIONED] if settings.answer_conditioned else []
    doubts += [PROFILED] if settings.backend == "profile" else []
    doubts += [
        f"{path.name}: {drafts.counts[fate]:,} drafts {words} and are left out."
        for fate, words in (("mismatched", "belong to no window of the train split"), ("empty", "hold no words"))
        if drafts.counts[fate]
    ]
    manifest = Manifest.read(path)
    now = hash_files(titles=workspace.titles(settings.dataset), captions=workspace.captions(settings.dataset))
    changed = [name for name, digest in now.items() if manifest and manifest.inputs.get(name, digest) != digest]
    if changed:
        doubts.append(f"{path.name} was written from other {' and '.join(changed)} than there are now.")
    return doubts
