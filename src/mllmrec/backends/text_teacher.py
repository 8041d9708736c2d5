"""A teacher that reads: a causal LM from a model folder, for refining chains of thought from captions and titles.

A model that reasons before it answers may do so with --thinking; what it reasons is hidden, counted in its tokens and
dropped, and an answer that never comes is an empty one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mllmrec.artifacts import Workspace
from mllmrec.backends.base import Reply, Request
from mllmrec.backends.huggingface import load, portable
from mllmrec.backends.writing import Prompt, UnfitError, Writer
from mllmrec.errors import BackendError
from mllmrec.settings.long import TeacherSettings


class TextTeacher:
    """A [`Teacher`][mllmrec.backends.base.Teacher] over any causal LM with a chat template.

    Raises ArtifactError when the folder is incomplete, SettingsError when the device isn't there, and BackendError
    when the model can't chat.
    """

    def __init__(self, settings: TeacherSettings, workspace: Workspace) -> None:
        loaded = load(
            workspace, settings.model, device=settings.device, dtype=settings.dtype, thinking=settings.thinking
        )
        self.name = portable(workspace, loaded.names[0])
        self.chat = loaded.chat
        self.writer = Writer(
            loaded.model,
            self.chat,
            batch=settings.batch,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
        )

    def answer(self, requests: Iterable[Request]) -> Iterator[Reply]:
        return self.writer.answer(requests, self._prompt)

    def _prompt(self, request: Request) -> Prompt:
        assert not request.pictures, "pictures are for a model that sees"
        try:
            return Prompt(key=request.key, ids=self.chat.prompt_ids(self.chat.harmless(request.text)))
        except BackendError as error:
            raise UnfitError("control_token") from error
