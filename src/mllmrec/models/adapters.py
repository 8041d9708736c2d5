"""Adapters on a model: loaded so that every weight lands, and folded in so that the model computes the same.

An adapter comes from our own trainers or from any other. What it is must be known before it counts: each tensor of its
file has a place in the model and each place gets its tensor, it adds to weights and does nothing else, and the folded
model gives the log-probabilities of the unfolded one on a probe. Anything else is refused in one sentence.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mllmrec.data.model_folders import CONFIG, adapter_shapes, misnamed, require_adapter
from mllmrec.errors import ArtifactError, BackendError
from mllmrec.models.positions import causal_lm
from mllmrec.progress import note
from mllmrec.storage.manifests import Manifest

FOLD_TOLERANCE = 0.01
"""Largest difference of a log-probability between folded and unfolded weights in float32, in nats; rounding stays far
below, and what isn't a sum of weights far above."""
PROBE_ROWS, PROBE_TOKENS, STRIDE = 2, 24, 7919
NAME = "default"


def put_on(model: Any, folder: Path) -> Any:
    """`model` with the adapter of `folder` on it, all of whose weights landed.

    Raises ArtifactError when the adapter is of a kind that can't be scored, or doesn't fit the model: another
    architecture, rank or vocabulary, weights without a place, places without weights.
    """
    from peft import PeftConfig, get_peft_model

    raw = require_adapter(folder)
    with warnings.catch_warnings():
        # What the library remarks (unknown options, tied embeddings) is reported or handled below.
        warnings.simplefilter("ignore")
        kind = type(model).__name__
        try:
            config = PeftConfig.from_pretrained(str(folder))
            config.inference_mode, config.task_type = True, "CAUSAL_LM"
            _note_unknown_options(folder, raw, config)
            adapted = get_peft_model(model, config, adapter_name=NAME)
        except (ValueError, TypeError) as error:
            raise _misfit(folder, kind, _first_line(error)) from error
        try:
            landed = adapted.load_adapter(str(folder), NAME, torch_device=str(model.device))
        except KeyError as error:
            raise _misfit(folder, kind, f"its weights lack {error.args[0]}") from error
        except RuntimeError as error:
            raise _misfit(folder, kind, _other_shapes(adapted, folder, error)) from error
    if unused := sorted(landed.unexpected_keys):
        raise _misfit(folder, kind, f"{len(unused)} of its weights have no place in the model (such as {unused[0]})")
    if empty := sorted(landed.missing_keys):
        raise _misfit(folder, kind, f"{len(empty)} places get no weights (such as {empty[0]})")
    _untie(adapted)
    return adapted


def fold(adapted: Any) -> Any:
    """The model with its adapters added into its weights, checked on a probe.

    Raises BackendError when the library can't add them, or the sum gives other log-probabilities than the unfolded one.
    """
    before = probe(adapted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            merged = adapted.merge_and_unload()
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:
            raise BackendError(
                f"The adapter can't be added into the weights of {type(causal_lm(adapted)).__name__}: "
                f"{_first_line(error).rstrip('.')}. Train it without that option, or merge it with the program that "
                "trained it, and use the merged model."
            ) from error
    difference = float((probe(merged) - before).abs().max())
    if not difference <= FOLD_TOLERANCE:
        raise BackendError(
            f"The adapter changes log-probabilities by {difference:.3g} nats when it is added into the weights of "
            f"{type(merged).__name__}, so it isn't a sum of weights; expected at most {FOLD_TOLERANCE}. It can't be "
            "scored or merged here; merge it with the program that trained it, and use the merged model."
        )
    return merged


@contextmanager
def folded_meanwhile(model: Any) -> Iterator[None]:
    """Adapters added into the weights for the block alone: afterwards every weight is what it was, to the last bit.

    Only where that rounds next to nothing away (float32). Until then the adapted weights are held twice.
    """
    if not foldable(model):
        yield
        return
    adapted = [layer.get_base_layer() for layer in model.modules() if hasattr(layer, "get_base_layer")]
    weights = {id(weight): weight for layer in adapted for weight in layer.parameters(recurse=False)}
    before = {key: weight.detach().clone() for key, weight in weights.items()}
    try:
        model.merge_adapter()
        yield
    finally:
        model.unmerge_adapter()
        with torch.no_grad():
            for key, weight in weights.items():
                weight.copy_(before[key])


def foldable(model: Any) -> bool:
    return hasattr(model, "merge_and_unload") and model.dtype == torch.float32


@torch.no_grad()
def probe(model: Any) -> torch.Tensor:
    """Log-probabilities (rows, tokens, vocabulary) of tokens from all over the vocabulary, float32."""
    size = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(PROBE_ROWS * PROBE_TOKENS, device=model.device).reshape(PROBE_ROWS, -1) * STRIDE % size
    logp: torch.Tensor = model(input_ids=ids, use_cache=False).logits.float().log_softmax(dim=-1)
    return logp


def check_origin(adapter: Path, model_hash: str, model_name: str, *, force: bool) -> None:
    """Refuse an adapter that was trained on another model than the one it is about to be put on."""
    manifest = Manifest.read(adapter)
    trained_on = manifest.inputs.get("model") if manifest is not None else None
    if trained_on is None:
        note(f"{adapter} has no manifest that says which model it was trained on; it is used as it is.")
    elif trained_on != model_hash and not force:
        base = manifest.details.get("model", "another model") if manifest is not None else "another model"
        raise ArtifactError(
            f"The adapter {adapter} was trained on {base}, and {model_name} is not that model (their hashes differ). "
            f"Name {base} as the model, or use --force to load it all the same."
        )


def refuse_adapters_inside(model: Any, source: str) -> None:
    """Refuse a model of the hub whose repository is an adapter's, which the library puts on by itself.

    Nothing would be known of it: not which model it belongs to, nor whether its weights landed.
    """
    if getattr(model, "peft_config", None):
        raise misnamed(source)


def _untie(adapted: Any) -> None:
    """Give input and output embeddings weights of their own where an adapter changes one of them.

    Tied, they are one tensor, and what is added for the one would be added to the other.
    """
    embeddings, head = adapted.get_input_embeddings(), adapted.get_output_embeddings()
    if head is None or not any(hasattr(layer, "active_adapters") for layer in (embeddings, head)):
        return
    ours, theirs = _original(head), _original(embeddings)
    if ours.weight is theirs.weight:
        ours.weight = torch.nn.Parameter(ours.weight.detach().clone(), requires_grad=False)


def _original(layer: Any) -> Any:
    """The layer below what adapters wrap around it."""
    if hasattr(layer, "original_module"):
        return layer.original_module
    return layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer


def _note_unknown_options(folder: Path, raw: dict[str, Any], config: Any) -> None:
    unknown = sorted(name for name, value in raw.items() if value and not hasattr(config, name))
    if unknown:
        note(
            f"{folder / CONFIG} sets {', '.join(unknown)}, which the installed peft doesn't know and leaves out; "
            "update peft if the adapter needs it."
        )


def _other_shapes(adapted: Any, folder: Path, error: RuntimeError) -> str:
    """Which weight of the file has another shape than its place in the model, and what that means."""
    from peft import get_peft_model_state_dict

    expected = get_peft_model_state_dict(adapted, adapter_name=NAME)
    shapes = adapter_shapes(folder)
    others = {
        name: (shapes[name], list(value.shape))
        for name, value in expected.items()
        if name in shapes and shapes[name] != list(value.shape)
    }
    if not others:
        return _first_line(error)
    name, (theirs, ours) = next(iter(others.items()))
    rank = adapted.peft_config[NAME].to_dict().get("r")
    reason = "the layers of its model have other sizes"
    if "embed" in name or "lm_head" in name:
        reason = "the vocabulary of its model has another size, or was resized in training"
    elif all(rank in here and rank not in there for there, here in others.values()):
        reason = f"{CONFIG} gives rank {rank}, and the weights have another"
    return f"{reason}: {name} has the shape {theirs} in its file, and its place here {ours}"


def _misfit(folder: Path, kind: str, reason: str) -> ArtifactError:
    return ArtifactError(
        f"The adapter {folder} doesn't fit this {kind}: {reason.rstrip('.')}. Expected each weight of its file to land "
        "on the model and each place of the model to get one; name the model it was trained on with --backbone, or "
        "train the adapter again."
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
