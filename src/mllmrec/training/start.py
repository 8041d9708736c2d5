"""What GRPO starts from: a full SFT model, and the prompt format that it was trained with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mllmrec.artifacts import Workspace
from mllmrec.data.adapter_folders import is_adapter
from mllmrec.data.formats import PromptFormat, inherited
from mllmrec.data.model_folders import lacking
from mllmrec.errors import ArtifactError
from mllmrec.manifests import Manifest
from mllmrec.settings.training import GrpoSettings
from mllmrec.training import checkpoints


def full_model(settings: GrpoSettings, workspace: Workspace) -> Path:
    """The checkpoint GRPO starts from: merged, or trained in full."""
    folder = workspace.checkpoint(settings.dataset, settings.sft_tag)
    if is_adapter(folder):
        raise ArtifactError(
            f"{folder} holds adapters, and GRPO starts from a full model. Merge it first: mllmrec merge --dataset "
            f"{settings.dataset} --tag {settings.sft_tag}, then use --sft-tag {settings.sft_tag}-merged."
        )
    if Manifest.read(folder) is None and (lacking(folder) or (folder / checkpoints.UNFINISHED).exists()):
        raise ArtifactError(
            f"{folder} is no finished checkpoint. Train it with `mllmrec sft` and merge it with `mllmrec merge`."
        )
    return folder


def as_trained(settings: GrpoSettings, base: Path) -> GrpoSettings:
    """`settings` with the prompt format of the model that GRPO starts from, so that saying it or not is the same.

    A budget of tokens that is asked for is GRPO's own. Raises SettingsError for settings that contradict the format.
    """
    asked: dict[str, Any] = {}
    if "min_inter" in settings.model_fields_set:
        asked["window"] = settings.min_inter
    if settings.captions != "auto":
        asked["captions"] = settings.captions == "on"
    known = inherited(PromptFormat.of(Manifest.read(base)), asked, str(base))
    if known is None:
        return settings
    update: dict[str, Any] = {"min_inter": known.window, "captions": "on" if known.captions else "off"}
    if "max_prompt_tokens" not in settings.model_fields_set:
        update["max_prompt_tokens"] = known.max_prompt_tokens
    return settings.model_copy(update=update)
