"""What LoRA adapts in a model: every linear layer of its decoder blocks, by kind and not by name.

Names differ (`q_proj`, `qkv_proj`, `c_attn`, `query_key_value`), and a vision tower has layers of the same names. A
target is a linear layer, GPT-2's transposed one, or a stack of matrices that holds one for each expert. Routers,
norms and biases are left out, as are embeddings, the output head and everything outside the language model.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from mllmrec.errors import BackendError, SettingsError
from mllmrec.models.huggingface import read_config
from mllmrec.models.positions import causal_lm, reach
from mllmrec.progress import note

LINEAR = (torch.nn.Linear, Conv1D)
CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
LAYER, STACK = "layer", "stack"
STACK_DIMENSIONS = 3


@dataclass(frozen=True, kw_only=True)
class LoraTargets:
    """Names of the layers (`modules`) and expert stacks (`parameters`) that LoRA adapts, and what it doesn't.

    `left_out` names the other matrices of the blocks without the numbers of their layers, `outside` the parts of the
    model beside blocks, embeddings and head; `share` is the adapted part of all weights of the blocks. `transposed`
    layers are GPT-2's.
    """

    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    left_out: tuple[str, ...]
    outside: tuple[str, ...]
    share: float
    transposed: bool

    def config(self, **options: Any) -> LoraConfig:
        return LoraConfig(
            target_modules=list(self.modules),
            target_parameters=list(self.parameters) or None,
            fan_in_fan_out=self.transposed,
            task_type="CAUSAL_LM",
            **options,
        )

    def describe(self) -> str:
        """One line of what is adapted and what isn't; empty when that is all and nothing."""
        parts = [f"of the blocks {', '.join(self.left_out)}"] if self.left_out else []
        parts += [f"all of {', '.join(self.outside)}"] if self.outside else []
        if not parts:
            return ""
        return f"LoRA adapts {self.share:.1%} of the weights of the decoder blocks; left out: {'; '.join(parts)}."


def lora_for(source: str, *, rank: int, alpha: int, dropout: float, insist: bool = False) -> LoraConfig:
    """LoRA on every linear layer of the decoder blocks of the model in `source`, whose weights aren't read.

    Stacks of experts can't have a dropout, so that beside them it is 0 for all layers. What is left out is reported.
    Raises BackendError, by the name of its class, for a model that LoRA can't be put on or that can't be scored, and
    SettingsError for a dropout that it can't have and that the caller does `insist` on.
    """
    model = _without_weights(source)
    reach(model)  # Training validates by exact scores, and stops here for what they can't read.
    targets = find_targets(model)
    if targets.parameters and dropout and insist:
        raise SettingsError(
            f"{type(model).__name__} keeps its experts in stacks, and LoRA on those can't have a dropout. Leave "
            f"--lora-dropout {dropout:g} out, or give --lora-dropout 0."
        )
    if left_out := targets.describe():
        note(left_out)
    if targets.parameters and dropout:
        note(f"LoRA on stacks of experts can't have a dropout: it is 0 in place of {dropout:g}.")
    return targets.config(r=rank, lora_alpha=alpha, lora_dropout=0.0 if targets.parameters else dropout)


def find_targets(model: Any) -> LoraTargets:
    """The targets in a causal LM, by putting LoRA on it and taking it off; no weights are needed (device meta).

    Raises BackendError, by the name of its class, when it has no decoder blocks or LoRA can't be put on any layer.
    """
    causal = causal_lm(model)
    prefix, blocks = _blocks(causal)
    kinds = {name: _kind(owner, weight) for name, weight, owner in _weights(blocks, prefix)}
    sizes = {name: weight.numel() for name, weight, _ in _weights(blocks, prefix)}
    matrices = [name for name, weight, _ in _weights(blocks, prefix) if weight.ndim > 1]
    transposed = any(isinstance(owner, Conv1D) for _, _, owner in _weights(blocks, prefix))
    outside = tuple(_outside(causal, prefix))
    names = [name for name, _ in (*causal.named_modules(), *causal.named_parameters())]
    wanted = {name: kind for name, kind in kinds.items() if kind}
    while wanted:
        targets = LoraTargets(
            modules=_shortened([name.removesuffix(".weight") for name in wanted if wanted[name] == LAYER], names),
            parameters=_shortened([name for name in wanted if wanted[name] == STACK], names),
            left_out=tuple(dict.fromkeys(_numberless(name, prefix) for name in matrices if name not in wanted)),
            outside=outside,
            share=sum(sizes[name] for name in wanted) / sum(sizes.values()),
            transposed=transposed,
        )
        adapted = _adapted(causal, targets)
        if adapted >= wanted.keys():
            return targets
        wanted = {name: kind for name, kind in wanted.items() if name in adapted}
    raise BackendError(
        f"LoRA finds no linear layers in the decoder blocks of {type(causal).__name__}. Choose another model, or train "
        "all weights with --peft none."
    )


def _adapted(causal: Any, targets: LoraTargets) -> set[str]:
    """The weights that get an adapter when LoRA is put on these targets; the model is as before afterwards."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            on = get_peft_model(causal, targets.config(r=1))
    except (ValueError, TypeError, RuntimeError) as error:
        raise BackendError(
            f"LoRA can't be put on {type(causal).__name__}: {str(error).strip().splitlines()[0]} Choose another model, "
            "or train all weights with --peft none."
        ) from error
    names = {
        f"{name.replace('.base_layer', '')}.{getattr(layer, 'parameter_name', 'weight')}"
        for name, layer in on.get_base_model().named_modules()
        if hasattr(layer, "lora_A")
    }
    on.unload()
    return names


def _without_weights(source: str) -> Any:
    """The model as its configuration describes it, on no device: a model of any size in a moment."""
    config = read_config(source)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise BackendError(f"{source} can't be trained: {str(error).strip().splitlines()[0]}") from error


def _kind(owner: torch.nn.Module, weight: torch.nn.Parameter) -> str:
    """Whether a weight is that of a linear layer, a stack of matrices, or nothing that LoRA adapts ("")."""
    if isinstance(owner, LINEAR):
        return LAYER if weight is owner.weight and _gives_one_tensor(owner) else ""
    return STACK if weight.ndim == STACK_DIMENSIONS and not isinstance(owner, CONVOLUTIONS) else ""


def _gives_one_tensor(owner: Any) -> bool:
    """A router is a linear layer in name and gives choices beside numbers; others take their input in groups."""
    if type(owner) in LINEAR:
        return True
    try:
        with torch.no_grad():
            return isinstance(owner(owner.weight.new_zeros(1, owner.in_features)), torch.Tensor)
    except RuntimeError:
        return False


def _numberless(name: str, prefix: str) -> str:
    """A weight's name in its block, the same for all blocks and experts."""
    return re.sub(r"(^|\.)\d+\.", r"\1", name.removeprefix(f"{prefix}."))


def _blocks(causal: Any) -> tuple[str, torch.nn.Module]:
    """The list of decoder blocks and its name; those of the language model, where there is a vision tower too."""
    count = causal.config.get_text_config().num_hidden_layers
    # What some models call their decoder is the output head.
    for part in (causal.get_decoder(), causal.base_model):
        for blocks in part.modules():
            if isinstance(blocks, torch.nn.ModuleList) and len(blocks) == count:
                return next(name for name, module in causal.named_modules() if module is blocks), blocks
    raise BackendError(
        f"LoRA finds no decoder blocks in {type(causal).__name__}: no list of {count} layers. Choose another model, or "
        "train all weights with --peft none."
    )


def _weights(blocks: torch.nn.Module, prefix: str) -> Iterator[tuple[str, torch.nn.Parameter, torch.nn.Module]]:
    """Every weight of the blocks: its name in the model, itself, and the layer that holds it."""
    for path, owner in blocks.named_modules(prefix=prefix):
        for name, weight in owner.named_parameters(recurse=False):
            yield f"{path}.{name}", weight, owner


def _shortened(names: list[str], every: list[str]) -> tuple[str, ...]:
    """The last words of the names where they mean these and no others of the model, else the names as they are."""
    for words in (1, 2):
        ends = tuple(dict.fromkeys(".".join(name.split(".")[-words:]) for name in names))
        if {name for name in every if name.endswith(tuple(f".{end}" for end in ends))} == set(names):
            return ends
    return tuple(names)


def _outside(causal: Any, prefix: str) -> Iterator[str]:
    """The parts with matrices of their own beside blocks, embeddings and head, by the highest name that is theirs."""
    head = causal.get_output_embeddings()
    seen = set[str]()
    for path, owner in causal.named_modules():
        embeds = owner is head or isinstance(owner, torch.nn.Embedding)
        matrices = [weight for weight in owner.parameters(recurse=False) if weight.ndim > 1]
        if embeds or not matrices or f"{path}.".startswith(f"{prefix}."):
            continue
        words = path.split(".")
        tops = (".".join(words[:count]) for count in range(1, len(words) + 1))
        top = next((name for name in tops if not f"{prefix}.".startswith(f"{name}.")), path)
        if top not in seen:
            seen.add(top)
            yield top
