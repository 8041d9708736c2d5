"""The writer that the settings name is opened, and nothing else is loaded for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mllmrec.errors import BackendError, SettingsError
from mllmrec.models.base import Request
from mllmrec.models.teachers import open_teacher
from mllmrec.settings.texts import TeacherSettings
from mllmrec.storage.workspace import Workspace

HERE = Workspace("/nowhere")


def knobs(**chosen: Any) -> TeacherSettings:
    return TeacherSettings(**({"dataset": "d", "device": "cpu", "max_new_tokens": 32} | chosen))


def test_a_local_model_reads_or_sees(text_model: Path, vision_model: Path) -> None:
    reader = open_teacher(knobs(backend="huggingface", model=str(text_model)), HERE, vision=False)
    (reply,) = reader.answer([Request(key="a", text="Who are you?")])
    assert (reply.text, reader.name) == ("A small model.", str(text_model.resolve()))
    for vision in (True, False):
        seer = open_teacher(knobs(backend="huggingface", model=str(vision_model)), HERE, vision=vision)
        (reply,) = seer.answer([Request(key="a", text="Count on.")])
        assert reply.usage["prompt_tokens"] > 0
        assert seer.name == str(vision_model.resolve())


def test_a_model_that_reads_is_not_shown_pictures(text_model: Path) -> None:
    with pytest.raises(BackendError, match="can't be shown pictures here"):
        open_teacher(knobs(backend="huggingface", model=str(text_model)), HERE, vision=True)


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ({"backend": "huggingface"}, "--backend huggingface needs a model"),
        ({"backend": "pixels", "model": "x"}, "backend = 'pixels' opens no model"),
    ],
)
def test_wrong_settings_say_what_to_name(chosen: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        open_teacher(knobs(**chosen), HERE, vision=False)


def test_a_server_needs_no_torch() -> None:
    program = (
        "import sys\n"
        "from mllmrec.storage.workspace import Workspace\n"
        "from mllmrec.models.teachers import open_teacher\n"
        "from mllmrec.settings.texts import TeacherSettings\n"
        "knobs = TeacherSettings(dataset='d', backend='endpoint', model='m', base_url='http://127.0.0.1:9/v1')\n"
        "print(open_teacher(knobs, Workspace('.'), vision=True).name, 'torch' in sys.modules)\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["m", "False"]
