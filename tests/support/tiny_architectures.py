"""Tiny random causal LMs of real architectures, each kind of layer of theirs among them, in float32.

`TINY` maps a name to a function that makes the model: always the same weights for the same seed, wide enough that a
wrong mask, position or adapter shows in the logits. A sliding window is 16 tokens where the type has one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

WIDE = 0.3
WINDOW = 16
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "initializer_range": WIDE,
}
HEAD = {"head_dim": 8}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
DELTA_NET = {
    "layer_types": ["linear_attention", "linear_attention", "full_attention"],
    "num_hidden_layers": 3,
    "head_dim": 16,  # a quarter of it is rotated
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
SLIDING = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
MAMBA2 = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
    "mamba_d_state": 8,
    "mamba_chunk_size": 8,
}
PLAIN = {name: value for name, value in SIZES.items() if name != "num_key_value_heads"}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("Qwen2", SIZES),
    "qwen3": ("Qwen3", SIZES | HEAD),
    "qwen3_moe": ("Qwen3Moe", SIZES | HEAD | EXPERTS | {"mlp_only_layers": [0]}),
    "qwen3_next": ("Qwen3Next", SIZES | EXPERTS | DELTA_NET | {"shared_expert_intermediate_size": 24}),
    "qwen3_5": ("Qwen3_5Text", SIZES | DELTA_NET),
    "qwen3_5_moe": (
        "Qwen3_5MoeText",
        {name: value for name, value in SIZES.items() if name != "intermediate_size"}
        | EXPERTS
        | DELTA_NET
        | {"shared_expert_intermediate_size": 24},
    ),
    "llama": ("Llama", SIZES),
    "mistral": ("Mistral", SIZES | {"sliding_window": WINDOW}),
    "gemma2": ("Gemma2", SIZES | HEAD | SLIDING | {"query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3Text", SIZES | HEAD | SLIDING | {"query_pre_attn_scalar": 8}),
    "gemma4": (
        "Gemma4Text",
        SIZES
        | HEAD
        | {
            "num_hidden_layers": 4,  # the last two read keys and values of the first two
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
            "sliding_window": WINDOW,
            "global_head_dim": 16,
            "hidden_size_per_layer_input": 8,
        },
    ),
    "granite": ("Granite", SIZES | {"attention_multiplier": 0.35, "residual_multiplier": 0.5, "logits_scaling": 0.5}),
    "granitemoehybrid": (
        "GraniteMoeHybrid",
        SIZES
        | MAMBA2
        | {
            "layer_types": ["linear_attention", "full_attention"],
            "num_local_experts": 4,
            "shared_intermediate_size": 24,
            "attention_multiplier": 0.35,
        },
    ),
    "smollm3": ("SmolLM3", SIZES | {"no_rope_layers": [1, 0]}),
    "gpt_oss": ("GptOss", SIZES | HEAD | SLIDING | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "lfm2": ("Lfm2", SIZES | {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8}),
    "lfm2_moe": (
        "Lfm2Moe",
        SIZES
        | EXPERTS
        | {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1},
    ),
    "olmo3": ("Olmo3", SIZES | SLIDING),
    "phi3": ("Phi3", SIZES | {"sliding_window": WINDOW}),
    "glm4": ("Glm4", SIZES | HEAD),
    "falcon_h1": ("FalconH1", SIZES | MAMBA2 | {"mamba_d_ssm": 64}),
    "cohere2": ("Cohere2", SIZES | SLIDING | {"logit_scale": 1.0}),
    "deepseek_v3": (
        "DeepseekV3",
        SIZES
        | {
            "num_key_value_heads": 4,
            "first_k_dense_replace": 1,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 2,
            "topk_group": 1,
            "moe_intermediate_size": 24,
            "kv_lora_rank": 16,
            "q_lora_rank": 16,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
        },
    ),
    "gpt_neox": ("GPTNeoX", PLAIN),
    "gpt2": (
        "GPT2",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024, "initializer_range": WIDE}
        | {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0},
    ),
    "falcon": ("Falcon", PLAIN),
    "starcoder2": ("Starcoder2", SIZES),
    "mixtral": ("Mixtral", SIZES | HEAD | {"num_local_experts": 4}),
    "phimoe": ("Phimoe", SIZES | {"num_local_experts": 4}),
    "mamba2": (
        "Mamba2",
        {name: SIZES[name] for name in ("hidden_size", "num_hidden_layers", "initializer_range")}
        | {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
        | {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    ),
    "jamba": (
        "Jamba",
        SIZES
        | {
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "num_experts": 4,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
        },
    ),
}


def tiny_config(name: str, *, vocab_size: int = 512) -> Any:
    import transformers

    family, options = CONFIGS[name]
    sizes = {"vocab_size": vocab_size} | ({"vocab_size_per_layer_input": vocab_size} if name == "gemma4" else {})
    return getattr(transformers, f"{family}Config")(**options, **sizes)


def tiny_model(name: str, *, vocab_size: int = 512, seed: int = 0) -> Any:
    """A causal LM in evaluation mode; its norms and biases are drawn too, so that each of them counts."""
    import torch
    from transformers import AutoModelForCausalLM

    config = tiny_config(name, vocab_size=vocab_size)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight), alpha=0.1)
    return model


TINY: dict[str, Callable[..., Any]] = {name: partial(tiny_model, name) for name in CONFIGS}
