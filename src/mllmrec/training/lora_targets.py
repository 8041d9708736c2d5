"""What LoRA adapts in a model: the linear layers of its decoder blocks, by kind and not by name.

Names differ (`q_proj`, `qkv_proj`, `c_attn`, `in_proj_qkvz`), and a vision tower has layers of the same names. A target
is a linear layer of attention, linear attention, a state-space mixer, a short convolution or an MLP, GPT-2's transposed
one, or a stack of matrices that holds one for each expert. Routers, convolutions, norms and biases are left out, as are
embeddings, the output head, everything outside the language model, and layers whose weight the code around them reads
by itself, as fused kernels do: what LoRA adds to such a layer would be passed over.

`--lora-targets` chooses among the targets, and no block may go without one.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from mllmrec.errors import BackendError, SettingsError
from mllmrec.models.huggingface import read_config
from mllmrec.models.positions import causal_lm
from mllmrec.progress import note

ALL, ATTENTION = "all", "attention"
LINEAR = (torch.nn.Linear, Conv1D)
CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
LAYER, PARAMETER = "layer", "parameter"
"""How the library is told of a target: by its layer, or by the parameter that holds its weight."""
STACK_DIMENSIONS = 3
MIXING = ("attention_mask", "past_key_values", "layer_past", "cache_params")
"""Arguments by which a part of a block is known to read other tokens than its own."""
READ = re.compile(r"self\.(\w+)\.weight\b(?!\.(?:device|dtype|shape))")


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


def lora_for(
    source: str, *, rank: int, alpha: int, dropout: float, choice: str = ALL, insist: bool = False
) -> LoraConfig:
    """LoRA on the layers of `choice` in the decoder blocks of the model in `source`, whose weights aren't read.

    Stacks of experts can't have a dropout, so that beside them it is 0 for all layers. What is left out is reported.
    Raises BackendError, by the name of its class, for a model that LoRA can't be put on, and
    SettingsError for a choice that it doesn't have or for a dropout that it can't have and that the caller does
    `insist` on.
    """
    model = _without_weights(source)
    targets = find_targets(model, choice)
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


def find_targets(model: Any, choice: str = ALL) -> LoraTargets:
    """The targets in a causal LM, by putting LoRA on it and taking it off; no weights are needed (device meta).

    `choice` is `all`, `attention` (whatever mixes tokens, recurrent or not), or the last words of names, with commas
    between them. Raises BackendError, by the name of its class, when the model has no decoder blocks, LoRA can't be
    put on any layer, or a block has no layer for it; SettingsError when `choice` names nothing or passes a block over.
    """
    decoder = _decoder(causal_lm(model))
    possible = _possible(decoder)
    chosen = _chosen(choice, possible, decoder)
    _require_every_block(choice, chosen, possible, decoder)
    return _targets(chosen, decoder)


@dataclass(frozen=True, kw_only=True)
class _Decoder:
    """The decoder blocks of a causal LM; `prefix` is the name of their list in it."""

    causal: Any
    prefix: str
    blocks: torch.nn.ModuleList

    @property
    def name(self) -> str:
        return type(self.causal).__name__


def _possible(decoder: _Decoder) -> dict[str, str]:
    """Every weight that LoRA can adapt, and whether by its layer or by its parameter.

    In models with experts the library takes some dense layers for parts of the experts, because of their names, and
    passes them over; it reaches them by their parameter.
    """
    passed = _bypassed(decoder)
    kinds = {name: _kind(owner, weight) for name, weight, owner in _weights(decoder)}
    wanted = {name: kind for name, kind in kinds.items() if kind and _path(name) not in passed}
    while wanted:
        adapted = _adapted(decoder.causal, _targets(wanted, decoder))
        if adapted >= wanted.keys():
            return wanted
        again = {name: kind for name, kind in wanted.items() if name in adapted or kind == LAYER}
        wanted = {name: kind if name in adapted else PARAMETER for name, kind in again.items()}
    raise BackendError(
        f"LoRA finds no linear layers in the decoder blocks of {decoder.name}. Choose another model, or train "
        "all weights with `mllmrec sft --peft none`."
    )


def _chosen(choice: str, possible: Mapping[str, str], decoder: _Decoder) -> dict[str, str]:
    """The possible targets that `choice` names."""
    mixers = tuple(f"{path}." for path in _mixers(decoder))
    names = set[str]()
    unknown = []
    for word in (word.strip() for word in choice.split(",")):
        found = {
            name
            for name in possible
            if word == ALL
            or (word == ATTENTION and name.startswith(mixers))
            or (word and f".{_path(name)}".endswith(f".{word}"))
        }
        names |= found
        unknown += [] if found else [repr(word)]
    if unknown:
        known = dict.fromkeys(_path(_numberless(name, decoder.prefix)) for name in possible)
        raise SettingsError(
            f"--lora-targets names {', '.join(unknown)}, which is nothing that LoRA adapts in {decoder.name}. "
            f"Expected `{ALL}`, `{ATTENTION}`, or the last words of names among {', '.join(known)}, with commas "
            "between them."
        )
    return {name: kind for name, kind in possible.items() if name in names}


def _require_every_block(
    choice: str,
    chosen: Mapping[str, str],
    possible: Mapping[str, str],
    decoder: _Decoder,
) -> None:
    """Raise where a block with matrices would stay as it is."""
    kinds = getattr(decoder.causal.config.get_text_config(), "layer_types", None) or ()
    matrices = [name for name, weight, _ in _weights(decoder) if weight.ndim > 1]
    for number in range(len(decoder.blocks)):
        start = f"{decoder.prefix}.{number}."
        if any(name.startswith(start) for name in chosen) or not any(name.startswith(start) for name in matrices):
            continue
        kind = f" ({kinds[number]})" if number < len(kinds) else ""
        block = f"block {number}{kind} of {decoder.name}"
        if own := dict.fromkeys(
            _path(_numberless(name, decoder.prefix)) for name in possible if name.startswith(start)
        ):
            raise SettingsError(
                f"--lora-targets {choice} leaves {block} as it is. Expected a target in every block: name one of "
                f"{', '.join(own)} too, or `{ALL}`."
            )
        raise BackendError(
            f"LoRA finds no layer that it could adapt in {block}. Choose another model, or train all weights with "
            "`mllmrec sft --peft none`."
        )


def _targets(chosen: Mapping[str, str], decoder: _Decoder) -> LoraTargets:
    sizes = {name: weight.numel() for name, weight, _ in _weights(decoder)}
    matrices = [name for name, weight, _ in _weights(decoder) if weight.ndim > 1]
    names = [name for name, _ in (*decoder.causal.named_modules(), *decoder.causal.named_parameters())]
    return LoraTargets(
        modules=_shortened([_path(name) for name in chosen if chosen[name] == LAYER], names),
        parameters=_shortened([name for name in chosen if chosen[name] == PARAMETER], names),
        left_out=tuple(dict.fromkeys(_numberless(name, decoder.prefix) for name in matrices if name not in chosen)),
        outside=tuple(_outside(decoder)),
        share=sum(sizes[name] for name in chosen) / sum(sizes.values()),
        transposed=any(isinstance(owner, Conv1D) for _, _, owner in _weights(decoder)),
    )


def _adapted(causal: Any, targets: LoraTargets) -> set[str]:
    """The weights that get an adapter when LoRA is put on these targets; the model is as before afterwards."""
    try:
        with warnings.catch_warnings(), next(causal.parameters()).device:
            warnings.simplefilter("ignore")
            on = get_peft_model(causal, targets.config(r=1))
    except (ValueError, TypeError, RuntimeError) as error:
        raise BackendError(
            f"LoRA can't be put on {type(causal).__name__}: {str(error).strip().splitlines()[0]} Choose another model, "
            "or train all weights with `mllmrec sft --peft none`."
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
    """Whether a weight is that of a linear layer, a stack of matrices, or nothing that LoRA adapts ("").

    Adapters on a stack wrap its owner, and those on layers inside would then never come off.
    """
    if isinstance(owner, LINEAR):
        return LAYER if weight is owner.weight and _gives_one_tensor(owner) else ""
    is_stack = weight.ndim == STACK_DIMENSIONS and not isinstance(owner, CONVOLUTIONS) and not _has_layers(owner)
    return PARAMETER if is_stack else ""


def _gives_one_tensor(owner: Any) -> bool:
    """A router is a linear layer in name and gives choices beside numbers; others take their input in groups."""
    if type(owner) in LINEAR:
        return True
    try:
        with torch.no_grad():
            return isinstance(owner(owner.weight.new_zeros(1, owner.in_features)), torch.Tensor)
    except RuntimeError:
        return False


def _mixers(decoder: _Decoder) -> Iterator[str]:
    """The parts of blocks that read other tokens: attention, linear attention, state-space mixers, convolutions."""
    for path, part in decoder.blocks.named_modules(prefix=decoder.prefix):
        inside = path.removeprefix(f"{decoder.prefix}.").count(".") > 0
        if inside and not inspect.signature(part.forward).parameters.keys().isdisjoint(MIXING):
            yield path


def _bypassed(decoder: _Decoder) -> set[str]:
    """The layers whose weight the module around them reads by itself, so that what LoRA adds may be passed over."""
    owners = {
        path: type(part) for path, part in decoder.blocks.named_modules(prefix=decoder.prefix) if _has_layers(part)
    }
    read = {kind: _weights_read_by(kind) for kind in set(owners.values())}
    return {f"{path}.{name}" for path, kind in owners.items() for name in read[kind]}


def _has_layers(part: torch.nn.Module) -> bool:
    return any(isinstance(child, LINEAR) for child in part.children())


def _weights_read_by(kind: type[Any]) -> set[str]:
    """Names of the layers of which the code of a module takes the weight itself; none where there is no source."""
    try:
        return set(READ.findall(inspect.getsource(kind)))
    except (OSError, TypeError):
        return set()


def _path(name: str) -> str:
    """The layer of a weight, or the stack itself."""
    return name.removesuffix(".weight")


def _numberless(name: str, prefix: str) -> str:
    """A weight's name in its block, the same for all blocks and experts."""
    return re.sub(r"(^|\.)\d+\.", r"\1", name.removeprefix(f"{prefix}."))


def _decoder(causal: Any) -> _Decoder:
    """The list of decoder blocks and its name; those of the language model, where there is a vision tower too."""
    count = causal.config.get_text_config().num_hidden_layers
    # What some models call their decoder is the output head.
    for part in (causal.get_decoder(), causal.base_model):
        for blocks in part.modules():
            if isinstance(blocks, torch.nn.ModuleList) and len(blocks) == count:
                prefix = next(name for name, module in causal.named_modules() if module is blocks)
                return _Decoder(causal=causal, prefix=prefix, blocks=blocks)
    raise BackendError(
        f"LoRA finds no decoder blocks in {type(causal).__name__}: no list of {count} layers. Choose another model, or "
        "train all weights with `mllmrec sft --peft none`."
    )


def _weights(decoder: _Decoder) -> Iterator[tuple[str, torch.nn.Parameter, torch.nn.Module]]:
    """Every weight of the blocks: its name in the model, itself, and the layer that holds it."""
    for path, owner in decoder.blocks.named_modules(prefix=decoder.prefix):
        for name, weight in owner.named_parameters(recurse=False):
            yield f"{path}.{name}", weight, owner


def _shortened(names: list[str], every: list[str]) -> tuple[str, ...]:
    """The last words of the names where they mean these and no others of the model, else the names as they are."""
    for words in (1, 2):
        ends = tuple(dict.fromkeys(".".join(name.split(".")[-words:]) for name in names))
        if {name for name in every if name.endswith(tuple(f".{end}" for end in ends))} == set(names):
            return ends
    return tuple(names)


def _outside(decoder: _Decoder) -> Iterator[str]:
    """The parts with matrices of their own beside blocks, embeddings and head, by the highest name that is theirs."""
    causal, prefix = decoder.causal, decoder.prefix
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
