"""What makes a folder an adapter folder: a configuration of a kind that can be scored, and weights that are all there.

Only adapter_config.json and the header of adapter_model.safetensors are read, so that a misfit is refused before
a model loads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mllmrec.artifacts import read_json
from mllmrec.data.model_folders import damage, read_header
from mllmrec.errors import ArtifactError

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
ADDITIVE = ("LORA", "ADALORA", "LOHA", "LOKR")
CONDITIONAL = ("alora_invocation_tokens", "arrow_config", "layer_replication", "megatron_config")
"""Options of LoRA with which it is no sum of weights any more: it looks at the tokens, or adds layers."""
DRAWN = ("pissa_niter", "corda", "loftq", "lora_ga")
"""Starts of LoRA that take something from the model's own weights, by chance or by data that nobody kept."""


def is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).exists()


def require_adapter(folder: Path) -> dict[str, Any]:
    """The configuration of an adapter that adds to a model's weights, with its weights whole.

    Raises ArtifactError for everything else, by its name: a folder without adapters, a kind that changes more than
    weights (prompt, prefix and P-tuning, (IA)3), weights that are pickled, cut short, empty or gone.
    """
    if not is_adapter(folder):
        raise ArtifactError(f"{folder} holds no adapter: {CONFIG} is missing. Name a LoRA checkpoint.")
    config = read_json(folder / CONFIG)
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind not in ADDITIVE:
        raise ArtifactError(
            f"{folder} holds an adapter of kind {kind or 'none'} (peft_type in {CONFIG}). Exact scoring and merging "
            f"need one that adds to a model's weights: {', '.join(ADDITIVE)}. Virtual tokens (prompt, prefix and "
            "P-tuning) and scaled activations ((IA)3) would be ignored or scored wrongly. Train a LoRA, with "
            "`mllmrec sft` or elsewhere."
        )
    if options := [name for name in CONDITIONAL if config.get(name)]:
        raise ArtifactError(
            f"{folder} holds a LoRA with {', '.join(options)} ({CONFIG}), which does more than add to a model's "
            "weights: exact scoring would be wrong. Train a LoRA without, with `mllmrec sft` or elsewhere."
        )
    start = str(config.get("init_lora_weights"))
    if start.startswith(DRAWN):
        raise ArtifactError(
            f"{folder} holds a LoRA that changed its model when it began (init_lora_weights = {start} in {CONFIG}) "
            "in a way that can't be repeated here. Expected an ordinary LoRA; convert it where it was trained, by "
            "PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...)."
        )
    if fault := _fault_of_weights(folder):
        raise ArtifactError(f"{folder} holds no whole adapter: {fault}")
    return dict(config)


def misnamed(source: str | Path) -> ArtifactError:
    """The refusal of adapters that were named as a model."""
    return ArtifactError(
        f"{source} holds adapters ({CONFIG}) and was named as a model. Merge them first with `mllmrec merge`, or name "
        "them with --tag (their folder lies in checkpoints/DATASET/) and their model with --backbone."
    )


def adapter_shapes(folder: Path) -> dict[str, list[int]]:
    """The shape of every tensor of an adapter, by its name in the file."""
    header = read_header(folder / WEIGHTS)
    return {name: tensor["shape"] for name, tensor in header.items() if name != "__metadata__"}


def _fault_of_weights(folder: Path) -> str:
    if not (folder / WEIGHTS).is_file():
        if (folder / PICKLE).is_file():
            return (
                f"{PICKLE} is a pickle, which may run code when it is read, and isn't read here. Expected {WEIGHTS}; "
                "save the adapter again with a recent PEFT, or convert the file with "
                "safetensors.torch.save_file(torch.load(..., weights_only=True), ...)."
            )
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:8])
        return f"{WEIGHTS} is missing; the folder holds {there}. Copy the whole adapter again, or train it again."
    if fault := damage(folder / WEIGHTS):
        return f"{WEIGHTS} is damaged ({fault}). Copy the whole adapter again, or train it again."
    if not adapter_shapes(folder):
        return f"{WEIGHTS} holds no weights. Copy the whole adapter again, or train it again."
    return ""
