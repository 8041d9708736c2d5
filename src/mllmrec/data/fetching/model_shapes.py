"""The sizes of a language model, read from its config.json or known by its name: what takes memory and how much.

Covered are decoder-only transformers with gated MLPs: Llama, Mistral, Qwen2 and Qwen3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mllmrec.errors import SettingsError

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")


def _qwen3(layers: int, hidden: int, mlp: int, heads: int, *, tied: bool) -> dict[str, Any]:
    return {
        "model_type": "qwen3",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": tied,
    }


KNOWN_CONFIGS = {
    "Qwen3-0.6B": _qwen3(28, 1024, 3072, 16, tied=True),
    "Qwen3-1.7B": _qwen3(28, 2048, 6144, 16, tied=True),
    "Qwen3-4B": _qwen3(36, 2560, 9728, 32, tied=True),
    "Qwen3-8B": _qwen3(36, 4096, 12288, 32, tied=False),
    "Qwen3-14B": _qwen3(40, 5120, 17408, 40, tied=False),
}


def known_config(name: str) -> dict[str, Any] | None:
    """The configuration of a well-known backbone by its hub id or folder name; None for any other.

    >>> known_config("Qwen/Qwen3-4B-Instruct-2507")["num_hidden_layers"]
    36
    """
    last = name.rstrip("/").rsplit("/", 1)[-1]
    for known, config in KNOWN_CONFIGS.items():
        if last == known or last.startswith(f"{known}-"):
            return config
    return None


def num_parameters(config: Mapping[str, Any]) -> int:
    """The number of parameters of a causal language model, tied embeddings counted once.

    Raises SettingsError for a family whose layers aren't known here.
    """
    return Shape.of(config).num_parameters


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Layers and widths; `queries` and `keys` are the widths of all heads together."""

    layers: int
    hidden: int
    mlp: int
    queries: int
    keys: int
    vocabulary: int
    num_parameters: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        family = config.get("model_type")
        if family not in FAMILIES:
            raise SettingsError(
                f"The memory of a {family or 'nameless'} model can't be planned: expected model_type to be one of "
                f"{', '.join(FAMILIES)}. Plan with a backbone of one of these families."
            )
        if absent := [name for name in SIZES if not isinstance(config.get(name), int)]:
            raise SettingsError(
                f"The memory of this {family} model can't be planned: its config.json has no {', '.join(absent)}. "
                "Fetch the model again."
            )
        layers, d, f, heads, vocabulary = (config[name] for name in SIZES)
        head = config.get("head_dim") or d // heads
        h, k = heads * head, (config.get("num_key_value_heads") or heads) * head
        bias = bool(config.get("attention_bias"))
        attention = 2 * d * h + 2 * d * k
        attention += (h + 2 * k) * (bias or family == "qwen2") + d * bias + 2 * head * (family == "qwen3")
        mlp = 3 * d * f + (2 * f + d) * bool(config.get("mlp_bias"))
        embeddings = vocabulary * d * (1 if config.get("tie_word_embeddings") else 2)
        return cls(
            layers=layers,
            hidden=d,
            mlp=f,
            queries=h,
            keys=k,
            vocabulary=vocabulary,
            num_parameters=embeddings + layers * (attention + mlp + 2 * d) + d,
        )

    def adapter_parameters(self, rank: int) -> int:
        """LoRA of `rank` on the seven linear layers of every block."""
        d, h, k, f = self.hidden, self.queries, self.keys, self.mlp
        return rank * self.layers * (2 * (d + h) + 2 * (d + k) + 3 * (d + f))

    @property
    def saved_bytes(self) -> int:
        """What one layer saves for the backward pass of LoRA under bfloat16 autocast, for each token.

        Inputs of the seven linear layers (2 bytes) and their dropout masks (1), float32 inputs of the four norms, q,
        k, v and the output of attention with keys repeated for every query head, three products of the MLP.
        """
        d, h, k, f = self.hidden, self.queries, self.keys, self.mlp
        norms, attention, mlp = 8 * d + 4 * (h + k), 8 * h, 6 * f
        return 3 * self.mask_bytes + norms + attention + mlp

    @property
    def mask_bytes(self) -> int:
        """The part of `saved_bytes` that is dropout masks: a byte for each input of a linear layer, for each token."""
        return 5 * self.hidden + self.queries + self.mlp

    @property
    def cache_bytes(self) -> int:
        """Keys and values of one token in all layers, bfloat16."""
        return 4 * self.keys * self.layers
