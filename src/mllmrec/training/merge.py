"""`mllmrec merge`: adapters and backbone become one model, checked to say the same.

The low-rank products are added in float32 and the result is stored in the number format of the backbone. Merging is
refused when the log-probabilities of merged model and adapter differ on a probe by more than `tolerance`.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import torch

from mllmrec.artifacts import Workspace, require
from mllmrec.backends.huggingface import LoadedModel, load, portable
from mllmrec.data.prompts import QUESTION
from mllmrec.errors import ArtifactError, BackendError
from mllmrec.manifests import Manifest, finished, hash_model, unmark, write_manifest
from mllmrec.records import Summary
from mllmrec.settings.training import MergeSettings
from mllmrec.training.checkpoints import UNFINISHED

CARRIED = ("prompt_format", "validation", "best_step")
PROBE = ("A user chose these, oldest first:\n[ITEM_1] one\nCandidates:\n[ITEM_2] two\n" + QUESTION, "[ITEM_2] two")


def run(settings: MergeSettings, workspace: Workspace) -> Summary:
    """Write checkpoints/<dataset>/<merged-tag>/, an ordinary model folder."""
    started = time.monotonic()
    adapter = workspace.checkpoint(settings.dataset, settings.tag)
    trained = Manifest.read(require(adapter, f"The checkpoint {settings.tag}", "Train it with `mllmrec sft`."))
    if (adapter / UNFINISHED).exists():
        raise ArtifactError(
            f"{adapter} isn't finished: its training was interrupted. Go on with `mllmrec sft --resume`."
        )
    if not (adapter / "adapter_config.json").exists():
        return Summary(headline=f"{adapter} is a full model already; nothing to merge.", artifact=adapter)
    if trained is None:
        raise ArtifactError(
            f"{adapter} has no manifest, which would say which model its adapters belong to. Train them with "
            "`mllmrec sft`."
        )
    folder = workspace.checkpoint(settings.dataset, settings.merged_tag or f"{settings.tag}-merged")
    backbone = settings.backbone or str(trained.details["model"])
    inputs = {"adapter": hash_model(adapter), "model": trained.inputs["model"]}
    if finished(folder, settings, inputs) is not None:
        return Summary(headline=f"{folder} is finished; nothing to do.", artifact=folder)
    unmark(folder)
    loaded = load(workspace, backbone, adapter, device=settings.device, dtype="float32")
    difference = merge_into(loaded, folder, stored_dtype(workspace, backbone), settings.tolerance)
    details = {name: trained.details[name] for name in CARRIED if name in trained.details}
    details |= {"model": portable(workspace, str(folder)), "backbone": backbone, "largest_difference": difference}
    write_manifest(folder, settings, inputs, started=started, details=details)
    return Summary(
        headline=f"Merged into {folder}; log-probabilities differ by at most {difference:.1e} nats on the probe",
        artifact=folder,
        facts=details,
    )


def merge_into(loaded: LoadedModel, folder: Path, dtype: torch.dtype, tolerance: float) -> float:
    """Merge in float32, store as `dtype`, read back, compare; the largest difference in nats.

    Raises BackendError, and leaves no folder, when it passes `tolerance`.
    """
    before = _log_probabilities(loaded, loaded.model)
    merged = loaded.model.merge_and_unload().to(dtype)
    after = _log_probabilities(loaded, merged.float())
    difference = float((before - after).abs().max())
    if not difference <= tolerance:
        shutil.rmtree(folder, ignore_errors=True)
        raise BackendError(
            f"Merging changed log-probabilities by {difference:.3g} nats on the probe; --tolerance is {tolerance:g}. "
            "The rounding of the backbone's number format is too coarse for this adapter: raise --tolerance, or use "
            "a backbone stored in float32."
        )
    folder.mkdir(parents=True, exist_ok=True)
    merged.to(dtype).save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return difference


def stored_dtype(workspace: Workspace, backbone: str) -> torch.dtype:
    """The number format that a backbone's configuration names; float32 where it names none."""
    from transformers import AutoConfig

    dtype = AutoConfig.from_pretrained(str(workspace.model(backbone) or backbone)).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


@torch.no_grad()
def _log_probabilities(loaded: LoadedModel, model: Any) -> torch.Tensor:
    """log p of every next token after every token of the probe, (T, V), float32."""
    text, answer = PROBE
    ids = [*loaded.chat.prompt_ids(text), *loaded.chat.answer_ids(answer)]
    logits = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits
    logp_TV: torch.Tensor = logits[0].float().log_softmax(dim=-1)
    return logp_TV
