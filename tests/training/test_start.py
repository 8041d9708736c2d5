"""GRPO and evaluation keep to the prompt budget that a checkpoint was trained with, unless they are given another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mllmrec.data.prompts import PromptFormat
from mllmrec.evaluation.ranking.models import ModelChoice, prompt_content
from mllmrec.settings.evaluation import EvaluateSettings
from mllmrec.settings.training import GrpoSettings, SftSettings
from mllmrec.storage.manifests import write_manifest
from mllmrec.storage.workspace import Workspace
from mllmrec.training.setup import as_trained

FORMAT = PromptFormat(window=7, captions=False, max_prompt_tokens=360)


@pytest.mark.parametrize(("given", "budget"), [({}, 360), ({"max_prompt_tokens": 500}, 500)])
def test_a_budget_is_the_checkpoints_unless_it_is_given(tmp_path: Path, given: dict[str, Any], budget: int) -> None:
    workspace = Workspace(tmp_path)
    folder = workspace.checkpoint("shop", "sft")
    folder.mkdir(parents=True)
    details = FORMAT.to_details()
    write_manifest(folder, SftSettings(dataset="shop", tag="sft"), {}, started=0.0, details=details)
    settings = as_trained(GrpoSettings(dataset="shop", sft_tag="sft", **given), folder)
    assert (settings.min_inter, settings.captions, settings.max_prompt_tokens) == (7, "off", budget)

    evaluated = EvaluateSettings(dataset="shop", sft_tag="sft", **given)
    choice = ModelChoice(base=str(folder), adapter=None, trained=FORMAT, name="sft")
    assert prompt_content(evaluated, workspace, choice, 7) == ({}, budget)
