"""`mllmrec pseudo-cot`: a first chain of thought about the history of each training example.

Only windows of the train split get one, the same windows with the same ids that training uses, so that traces join by
id and nothing is written about validation or test users. The writer is a vision-language model that sees images and
titles, a text model that sees captions and titles, a server, or `profile`, which needs no model. Requests are made from
the history alone; the record holds the target for joining, and no writer reads it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from mllmrec.data.item_files import read_captions
from mllmrec.data.sequences import Catalogue, Interactions
from mllmrec.models.base import Picture, Request, Teacher
from mllmrec.reasoning.writing.prompts import amended, draft_prompt
from mllmrec.reasoning.writing.resumable import Window, WritingJob, carry_out, shown_history, train_windows
from mllmrec.reasoning.writing.steps import free_words
from mllmrec.records import Summary
from mllmrec.settings.texts import PseudoCotSettings
from mllmrec.storage.workspace import Workspace

LoadPicture = Callable[[str], Picture | None]
PictureVersion = Callable[[str], str]


def run(
    settings: PseudoCotSettings,
    workspace: Workspace,
    load_picture: LoadPicture | None = None,
    teacher: Teacher | None = None,
    picture_version: PictureVersion = str,
) -> Summary:
    """Write <dataset>_pseudo-cot.json, ordered by line and window.

    `load_picture` gives the image of an item, or None where there is none that can be read; without it no images are
    shown. `picture_version` changes when an item's image does. `teacher` writes in place of the one that the settings
    name.
    """
    pictures = settings.backend != "profile" and settings.images == "on" and load_picture is not None
    captions = read_captions(workspace, settings.dataset, settings.captions)
    interactions = Interactions.load(workspace, settings.dataset)
    windows, counts = train_windows(interactions, settings.min_inter, settings.windows)
    loader = load_picture if pictures else None
    requests = DraftRequests(interactions.catalogue, captions, loader, twice=settings.captions == "on")
    job = WritingJob(
        artifact=workspace.dataset(settings.dataset).pseudo_cot,
        what="drafts",
        catalogue=interactions.catalogue,
        captions=captions,
        windows=windows,
        request=lambda key, broken_rule: requests.request(key, windows[key].history, broken_rule),
        form=free_words,
        counts=counts,
        hashes=_versions(windows.values(), picture_version) if pictures else {},
        pictures=pictures,
    )
    return carry_out(job, settings, workspace, teacher)


@dataclass(frozen=True)
class DraftRequests:
    """Requests for drafts: each item of a history is shown by its image, or else by its caption.

    With `twice` an item's caption stands beside its image too.
    """

    catalogue: Catalogue
    captions: Mapping[str, str]
    load_picture: LoadPicture | None
    twice: bool

    def request(self, key: str, history: tuple[str, ...], broken_rule: str | None = None) -> Request:
        """Ask for a draft about `history`; `key` names the request on this machine alone."""
        pictures = {item: picture for item in history if (picture := self._picture(item)) is not None}
        captions = {item: self.captions.get(item, "") for item in history if self.twice or item not in pictures}
        shown = shown_history(history, self.catalogue, captions, list(pictures))
        return Request(key=key, text=amended(draft_prompt(shown), broken_rule), pictures=tuple(pictures.values()))

    def _picture(self, item_id: str) -> Picture | None:
        return self.load_picture(item_id) if self.load_picture is not None else None


def _versions(windows: Iterable[Window], version: PictureVersion) -> dict[str, str]:
    """A hash over the images of all histories."""
    items = sorted({item for window in windows for item in window.history})
    text = "\n".join(f"{item} {version(item)}" for item in items)
    return {"images": hashlib.sha256(text.encode()).hexdigest()}
