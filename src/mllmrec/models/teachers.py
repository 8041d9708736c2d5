"""Opens the writer that the settings name; torch and openai load only where they are asked for."""

from __future__ import annotations

from mllmrec.errors import SettingsError
from mllmrec.models.base import Teacher
from mllmrec.settings.texts import TeacherSettings
from mllmrec.storage.workspace import Workspace


def open_teacher(settings: TeacherSettings, workspace: Workspace, *, vision: bool) -> Teacher:
    """The server of `--backend endpoint`, or the model of `--backend huggingface`, ready to write.

    With `vision` it has to take pictures; without, a model that could see may still write about texts. Raises
    SettingsError when no model is named, ArtifactError when its folder is incomplete, BackendError when it can't do
    what is asked.
    """
    if settings.backend == "endpoint":
        from mllmrec.models.server.endpoint import EndpointTeacher

        return EndpointTeacher(settings)
    if settings.backend != "huggingface":
        raise SettingsError(f"backend = {settings.backend!r} opens no model. Choose huggingface or endpoint.")
    if not settings.model:
        raise SettingsError("--backend huggingface needs a model: name a folder or a hub id with --model.")
    from mllmrec.models.vision_language import VisionTeacher, sees

    if vision or sees(workspace, settings.model):
        return VisionTeacher(settings, workspace)
    from mllmrec.models.writing import TextTeacher

    return TextTeacher(settings, workspace)
