"""Checkpoints that say whom they saw: the weights of the toy's random backbone under the manifest of a training run."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from small_models import DATASET, WINDOW

from mllmrec.data.prompts import PromptFormat
from mllmrec.settings.base import DatasetSettings
from mllmrec.settings.training import SftSettings
from mllmrec.storage.manifests import hash_model, unmark, write_manifest
from mllmrec.storage.workspace import Workspace


def checkpoint(workspace: Workspace, settings: DatasetSettings, tag: str, model: str, **inputs: str) -> Path:
    """A finished full checkpoint whose manifest says that it was made from `model`."""
    folder = workspace.checkpoint(settings.dataset, tag)
    shutil.copytree(workspace.root / "tiny", folder)
    unmark(folder)
    form = PromptFormat(window=WINDOW, captions=False, max_prompt_tokens=2048).to_details()
    base = workspace.model(model)
    made_from = {"model": hash_model(base) if base is not None else model} | inputs
    write_manifest(folder, settings, made_from, started=time.monotonic(), details={"model": model} | form)
    return folder


def sft(
    workspace: Workspace, tag: str, fold: str = "", model: str = "tiny", dataset: str = DATASET, **inputs: Any
) -> Path:
    return checkpoint(workspace, SftSettings(dataset=dataset, tag=tag, fold=fold), tag, model, **inputs)
