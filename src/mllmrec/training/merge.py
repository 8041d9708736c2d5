"""`mllmrec merge`: adapters and backbone become one model, checked to give the same log-probabilities.

The low-rank products are added in float32 and the result is stored in the number format of the backbone. Merging is
refused when the log-probabilities of merged model and adapter differ on a probe by more than `tolerance`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from mllmrec.data.model_folders import is_adapter
from mllmrec.data.prompts import QUESTION, PromptFormat
from mllmrec.errors import ArtifactError, BackendError
from mllmrec.models.adapters import fold
from mllmrec.models.huggingface import LoadedModel, load, portable, read_config, read_weights, resolve, save_weights
from mllmrec.records import Summary
from mllmrec.settings.training import MergeSettings
from mllmrec.storage.locks import locking
from mllmrec.storage.manifests import Manifest, drop_marker, finished, hash_model, making, settle, write_manifest
from mllmrec.storage.workspace import Workspace, require
from mllmrec.training.checkpoints import UNFINISHED

CARRIED = ("validation", "best_step")
NUM_PROBES = 8


def merged_folder(settings: MergeSettings, workspace: Workspace) -> Path:
    return workspace.checkpoint(settings.dataset, settings.merged_tag or f"{settings.tag}-merged")


@locking(merged_folder)
def run(settings: MergeSettings, workspace: Workspace) -> Summary:
    """Write checkpoints/<dataset>/<merged-tag>/, an ordinary model folder."""
    started = time.monotonic()
    adapter = workspace.checkpoint(settings.dataset, settings.tag)
    trained = Manifest.read(require(adapter, f"The checkpoint {settings.tag}", "Train it with `mllmrec sft`."))
    if trained is None and (adapter / UNFINISHED).exists():
        raise ArtifactError(
            f"{adapter} isn't finished: its training was interrupted. Give its `mllmrec sft` command again."
        )
    if not is_adapter(adapter):
        return Summary(headline=f"{adapter} is a full model already; nothing to merge.", artifact=adapter)
    if trained is None and not settings.backbone:
        raise ArtifactError(
            f"{adapter} has no manifest, which would say which model its adapters belong to. Name that model with "
            "--backbone."
        )
    folder = merged_folder(settings, workspace)
    backbone = settings.backbone or str(trained.details["model"] if trained else "")
    if folder == adapter:
        raise ArtifactError(f"--merged-tag {folder.name} is the adapter's own name. Choose another --merged-tag.")
    inputs = {"adapter": hash_model(adapter), "model": _model_hash(workspace, backbone, trained)}
    if finished(folder, settings, inputs) is not None:
        drop_marker(folder)
        return Summary(headline=f"{folder} is finished; nothing to do.", artifact=folder)
    details = {name: trained.details[name] for name in CARRIED if name in trained.details} if trained else {}
    if (form := PromptFormat.of(trained)) is not None:
        details |= form.to_details()
    with making(folder, settings) as draft:
        loaded = load(workspace, backbone, adapter, device=settings.device, dtype="float32")
        difference = merge_into(loaded, draft, stored_dtype(workspace, backbone), settings.tolerance)
        settle(draft, folder)
        details |= {"model": portable(workspace, str(folder)), "backbone": backbone, "largest_difference": difference}
        write_manifest(folder, settings, inputs, started=started, details=details)
    return Summary(
        headline=f"Merged into {folder}; log-probabilities differ by at most {difference:.1e} nats on the probe",
        artifact=folder,
        facts=details,
    )


def merge_into(loaded: LoadedModel, folder: Path, dtype: torch.dtype, tolerance: float) -> float:
    """Merge in float32, round to `dtype`, compare; then store. The largest difference of a token's log-probability.

    What was stored is read again and compared too, because a file may lack what the model has in memory. Raises
    BackendError when a difference passes `tolerance`.
    """
    before = _log_probabilities(loaded, loaded.model)
    merged = fold(loaded.model).to(dtype)
    difference = _largest_difference(before, _log_probabilities(loaded, merged.float()))
    if not difference <= tolerance:
        raise BackendError(
            f"Merging changed log-probabilities by {difference:.3g} nats on the probe; --tolerance is {tolerance:g}. "
            "The rounding of the backbone's number format is too coarse for this adapter: raise --tolerance, or "
            "evaluate the adapter without merging."
        )
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(merged.to(dtype), folder, loaded.names[0])
    loaded.tokenizer.save_pretrained(folder)
    return _difference_as_stored(loaded, folder, before, tolerance)


def stored_dtype(workspace: Workspace, backbone: str) -> torch.dtype:
    """The number format that a backbone's configuration names; float32 where it names none."""
    dtype = read_config(str(workspace.model(backbone) or backbone)).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def _model_hash(workspace: Workspace, backbone: str, trained: Manifest | None) -> str:
    """The model that adapters belong to: the one they were trained on, or for adapters made elsewhere the one named."""
    if trained is not None:
        return trained.inputs["model"]
    source = Path(resolve(workspace, backbone))
    return hash_model(source) if source.is_dir() else str(source)


def _difference_as_stored(loaded: LoadedModel, folder: Path, before: torch.Tensor, tolerance: float) -> float:
    stored = read_weights(AutoModelForCausalLM, str(folder), read_config(str(folder)), dtype=torch.float32)
    difference = _largest_difference(before, _log_probabilities(loaded, stored.to(loaded.model.device).eval()))
    if not difference <= tolerance:
        raise BackendError(
            f"The merged {type(stored).__name__} gives log-probabilities that differ by {difference:.3g} nats once it "
            f"was stored and read again; --tolerance is {tolerance:g}. Nothing was kept. Evaluate the "
            "adapter without merging."
        )
    return difference


def _largest_difference(before: torch.Tensor, after: torch.Tensor) -> float:
    return float((before - after).abs().max())


@torch.no_grad()
def _log_probabilities(loaded: LoadedModel, model: Any) -> torch.Tensor:
    """log p of the tokens of each probe, prompts and answers, one after the other, float32, in nats."""
    parts = []
    for number in range(NUM_PROBES):
        text, answer = _probe(number)
        ids = torch.tensor([[*loaded.chat.prompt_ids(text), *loaded.chat.answer_ids(answer)]], device=model.device)
        logp = model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(dim=-1)
        parts.append(logp.gather(1, ids[0, 1:, None]).squeeze(1))
    return torch.cat(parts)


def _probe(number: int) -> tuple[str, str]:
    """A prompt of made-up items and an answer; every probe has other ids and another length."""
    items = [f"[ITEM_{100 * number + item}] Title {item} of {number}" for item in range(4 + number)]
    text = "\n".join(["A user chose these, oldest first:", *items[:2], "Candidates:", *items[2:], QUESTION])
    return text, items[-1]
