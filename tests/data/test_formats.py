"""A checkpoint's prompt format is inherited, and a conflict with it refused."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mllmrec import SettingsError
from mllmrec.data.prompts import TEMPLATE_VERSION, PromptFormat, inherited
from mllmrec.settings.training import SftSettings
from mllmrec.storage.manifests import Manifest, write_manifest

TRAINED = PromptFormat(window=10, captions=True, max_prompt_tokens=2048, hint_share=0.1)


def manifest_with(folder: Path, details: dict[str, object]) -> Manifest | None:
    folder.mkdir()
    write_manifest(folder, SftSettings(dataset="shop"), {}, started=time.monotonic(), details=details)
    return Manifest.read(folder)


def test_a_format_survives_its_manifest(tmp_path: Path) -> None:
    assert PromptFormat.of(manifest_with(tmp_path / "sft", TRAINED.to_details())) == TRAINED
    assert TRAINED.template == TEMPLATE_VERSION


def test_a_plain_backbone_has_no_format(tmp_path: Path) -> None:
    assert PromptFormat.of(None) is None
    assert PromptFormat.of(manifest_with(tmp_path / "tiny", {"parameters": 3})) is None


def test_a_format_of_a_later_version_is_refused_in_words(tmp_path: Path) -> None:
    details = TRAINED.to_details()
    details["prompt_format"]["images"] = 3
    with pytest.raises(
        SettingsError, match=r"holds candidates, captions, chat_template, hint_share, images, .*train anew"
    ):
        PromptFormat.of(manifest_with(tmp_path / "sft", details))


def test_what_nobody_asks_for_is_inherited() -> None:
    assert inherited(TRAINED, {}, "sft") == TRAINED
    assert inherited(TRAINED, {"window": 10, "captions": True}, "sft") == TRAINED
    assert inherited(None, {"window": 5}, "tiny") is None


def test_every_conflict_is_named() -> None:
    with pytest.raises(SettingsError) as error:
        inherited(TRAINED, {"window": 5, "captions": False, "max_prompt_tokens": 2048}, "sft")
    assert str(error.value) == (
        "window is 5, and sft was trained with 10; captions is False, and sft was trained with True. Leave the setting "
        "out to inherit it, or train anew."
    )


def test_another_template_is_refused() -> None:
    old = PromptFormat(window=10, captions=True, max_prompt_tokens=2048, template="2025-01.1")
    with pytest.raises(SettingsError, match=rf"writes template {TEMPLATE_VERSION}, and sft knows 2025-01\.1"):
        inherited(old, {}, "sft")
