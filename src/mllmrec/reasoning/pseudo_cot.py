"""`mllmrec pseudo-cot`: a first chain of thought about the history of each training example.

Only windows of the train split get one, the same windows with the same ids that training uses, so traces join by id and
nothing is written about validation or test users. The writer is a vision-language model that sees images and titles, a
text model that sees captions and titles, a server, or `profile`, which needs no weights. What a writer is asked is made
from the history alone; the target stands in the record for joining and is read by no writer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mllmrec.artifacts import Workspace
from mllmrec.backends.base import Picture, Request, Teacher
from mllmrec.data.sequences import Catalogue, Interactions
from mllmrec.reasoning.prompts import amended, draft_prompt
from mllmrec.reasoning.steps import free_words
from mllmrec.reasoning.windows import train_windows
from mllmrec.reasoning.writing import Job, carry_out, shown_captions, shown_history
from mllmrec.records import Summary
from mllmrec.settings.reasoning import PseudoCotSettings

LoadPicture = Callable[[str], Picture | None]


def run(
    settings: PseudoCotSettings,
    workspace: Workspace,
    load_picture: LoadPicture | None = None,
    teacher: Teacher | None = None,
) -> Summary:
    """Write <dataset>_pseudo-cot.json, ordered by line and window.

    `load_picture` gives the image of an item, or None where there is none that can be read; without it no images are
    shown. `teacher` writes in place of the one that the settings name.
    """
    pictures = settings.backend != "profile" and settings.images == "on" and load_picture is not None
    captions = shown_captions(settings, workspace, pictures=pictures)
    interactions = Interactions.load(workspace, settings.dataset)
    windows, counts = train_windows(interactions, settings.min_inter, settings.windows)
    showing = Showing(interactions.catalogue, captions, load_picture if pictures else None)
    job = Job(
        artifact=workspace.pseudo_cot(settings.dataset),
        what="drafts",
        catalogue=interactions.catalogue,
        captions=captions,
        windows=windows,
        request=lambda key, broken_rule: showing.request(key, windows[key].history, broken_rule),
        form=free_words,
        counts=counts,
        pictures=pictures,
    )
    return carry_out(job, settings, workspace, teacher)


@dataclass(frozen=True)
class Showing:
    """What is shown of a history to a writer of drafts."""

    catalogue: Catalogue
    captions: Mapping[str, str]
    load_picture: LoadPicture | None

    def request(self, key: str, history: tuple[str, ...], broken_rule: str | None = None) -> Request:
        """Ask for a draft about `history`; `key` names the request on this machine alone."""
        pictures = {item: picture for item in history if (picture := self._picture(item)) is not None}
        shown = shown_history(history, self.catalogue, self.captions, list(pictures))
        return Request(key=key, text=amended(draft_prompt(shown), broken_rule), pictures=tuple(pictures.values()))

    def _picture(self, item_id: str) -> Picture | None:
        return self.load_picture(item_id) if self.load_picture is not None else None
