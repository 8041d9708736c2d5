"""GGUF files of small models, written as llama.cpp's converter writes them, with a tokenizer of either kind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quantize

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GEMMA_NAMES = NAMES | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
QWEN35_NAMES = NAMES | {
    "post_attention_layernorm": "post_attention_norm",
    "linear_attn.in_proj_qkv": "attn_qkv",
    "linear_attn.in_proj_z": "attn_gate",
    "linear_attn.in_proj_a": "ssm_alpha",
    "linear_attn.in_proj_b": "ssm_beta",
    "linear_attn.conv1d": "ssm_conv1d",
    "linear_attn.norm": "ssm_norm",
    "linear_attn.out_proj": "ssm_out",
}
LFM2_NAMES = NAMES | {
    "operator_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "self_attn.out_proj": "attn_output",
    "self_attn.q_layernorm": "attn_q_norm",
    "self_attn.k_layernorm": "attn_k_norm",
    "conv.in_proj": "shortconv.in_proj",
    "conv.conv": "shortconv.conv",
    "conv.out_proj": "shortconv.out_proj",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
}
ARCHITECTURES = {"gemma3_text": "gemma3", "qwen3_5_text": "qwen35"}
PARAMETERS = {"linear_attn.A_log": "ssm_a", "linear_attn.dt_bias": "ssm_dt.bias"}
MARKS = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
PIECES = ("\u2581", *"Thecaptilofrns", "Th", "The", "ca", "\u2581o", "\u2581of", "\u2581i", "\u2581is", "\u00e9")


def write_gguf(
    model: Any,
    path: Path,
    *,
    tokenizer: Any = None,
    format: GGMLQuantizationType = GGMLQuantizationType.F32,
    chat_template: str = "",
    extra: dict[str, Any] | None = None,
    tensors: dict[str, Any] | None = None,
) -> Path:
    """A Llama, Qwen3, Qwen3.5, LFM2 or Gemma 3 as a GGUF file; matrices in `format`, norms in float32.

    With a byte-level `tokenizer` its vocabulary and merges are written, else the pieces above as a SentencePiece
    vocabulary. `extra` are further statements about the architecture, and `tensors` further tensors.
    """
    config = model.config.get_text_config()
    architecture = ARCHITECTURES.get(config.model_type, config.model_type)
    writer = GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    if architecture == "lfm2":
        _add_lfm2(writer, model)
    else:
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if architecture == "qwen35":
        _add_qwen35(writer, config)
    for name, value in (extra or {}).items():
        add = writer.add_string if isinstance(value, str) else writer.add_float32
        add = writer.add_uint32 if isinstance(value, int) else add
        add(name if name.startswith(("general.", "split.", "tokenizer.")) else f"{architecture}.{name}", value)
    if architecture == "gemma3":
        writer.add_sliding_window(config.sliding_window)
    parameters = config.rope_parameters
    writer.add_rope_freq_base(parameters.get("full_attention", parameters)["rope_theta"])
    if tokenizer is None:
        _add_sentencepiece(writer, config.vocab_size)
    else:
        _add_byte_level(writer, tokenizer, architecture if architecture in ("qwen35", "lfm2") else "qwen2")
    if chat_template:
        writer.add_chat_template(chat_template)
    for name, weight in model.state_dict().items():
        if not (name == "lm_head.weight" and config.tie_word_embeddings):
            _add_weight(writer, architecture, config, name, weight, format)
    for name, values in (tensors or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_lfm2(writer: GGUFWriter, model: Any) -> None:
    """A layer without heads of keys is a convolution; the feed-forward width is the one that is left after rounding."""
    config = model.config
    heads = [config.num_key_value_heads if kind == "full_attention" else 0 for kind in config.layer_types]
    writer.add_feed_forward_length(model.model.layers[0].feed_forward.w1.out_features)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_shortconv_l_cache(config.conv_L_cache)


def _add_qwen35(writer: GGUFWriter, config: Any) -> None:
    parameters = config.rope_parameters
    writer.add_rope_dimension_count(int(config.head_dim * parameters["partial_rotary_factor"]))
    writer.add_rope_dimension_sections([*parameters["mrope_section"], 0])
    writer.add_full_attention_interval(config.layer_types.index("full_attention") + 1)
    writer.add_ssm_conv_kernel(config.linear_conv_kernel_dim)
    writer.add_ssm_state_size(config.linear_key_head_dim)
    writer.add_ssm_group_count(config.linear_num_key_heads)
    writer.add_ssm_time_step_rank(config.linear_num_value_heads)
    writer.add_ssm_inner_size(config.linear_num_value_heads * config.linear_value_head_dim)


def _add_weight(
    writer: GGUFWriter, architecture: str, config: Any, name: str, weight: torch.Tensor, format: GGMLQuantizationType
) -> None:
    values = weight.detach().float().numpy()
    if architecture == "gemma3" and name.endswith("norm.weight"):
        values = values + np.float32(1)
    if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
        values = _interleaved(values, config.num_attention_heads if "q_proj" in name else config.num_key_value_heads)
    if architecture == "qwen35":
        values = _as_qwen35(name, values, config)
    if architecture == "lfm2" and name.endswith("conv.conv.weight"):
        values = values[:, 0]
    if values.ndim == 1 or format == GGMLQuantizationType.F32:
        writer.add_tensor(_renamed(architecture, name), values)
    else:
        writer.add_tensor(_renamed(architecture, name), quantize(values, format), raw_dtype=format)


def _as_qwen35(name: str, values: np.ndarray[Any, Any], config: Any) -> np.ndarray[Any, Any]:
    """Norms are one more, decays are what they stand for, and of value heads the first of each key comes first."""
    keys, heads, size = config.linear_num_key_heads, config.linear_num_value_heads, config.linear_value_head_dim
    order = [key * (heads // keys) + own for own in range(heads // keys) for key in range(keys)]
    wide = [head * size + i for head in order for i in range(size)]
    before = 2 * keys * config.linear_key_head_dim
    behind = [*range(before), *(before + row for row in wide)]
    if name.endswith("norm.weight") and "linear_attn" not in name:
        return values + np.float32(1)
    if name.endswith("A_log"):
        return -np.exp(values)[order]
    if name.endswith(("dt_bias", "in_proj_a.weight", "in_proj_b.weight")):
        return values[order]
    if name.endswith("in_proj_z.weight"):
        return values[wide]
    if name.endswith("in_proj_qkv.weight"):
        return values[behind]
    if name.endswith("conv1d.weight"):
        return values[behind][:, 0]
    return values[:, wide] if name.endswith("linear_attn.out_proj.weight") else values


def _renamed(architecture: str, name: str) -> str:
    outer = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "model.embedding_norm.weight": "token_embd_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in outer:
        return outer[name]
    _, _, layer, inner = name.split(".", 3)
    if inner in PARAMETERS:
        return f"blk.{layer}.{PARAMETERS[inner]}"
    names = {"gemma3": GEMMA_NAMES, "qwen35": QWEN35_NAMES, "lfm2": LFM2_NAMES}.get(architecture, NAMES)
    return f"blk.{layer}.{names[inner.removesuffix('.weight')]}.weight"


def _interleaved(values: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Of each head, rows i and i + half beside each other: llama.cpp turns neighbours, transformers halves."""
    half = values.shape[0] // heads // 2
    rows = [head * 2 * half + part * half + i for head in range(heads) for i in range(half) for part in (0, 1)]
    return values[rows]


def _add_byte_level(writer: GGUFWriter, tokenizer: Any, cut: str) -> None:
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens: Sequence[str] = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    added = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items()}
    kinds = [
        TokenType.NORMAL if number not in added else TokenType.USER_DEFINED if "think" in token else TokenType.CONTROL
        for number, token in enumerate(tokens)
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in core["model"]["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)


def sentencepiece_tokens(size: int) -> list[str]:
    """The vocabulary without merges: marks, bytes, pieces, and what fills it up."""
    tokens = [*MARKS, *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
    return tokens + [f"<unused{number}>" for number in range(size - len(tokens))]


def _add_sentencepiece(writer: GGUFWriter, size: int) -> None:
    tokens = sentencepiece_tokens(size)
    kinds = [
        TokenType.CONTROL if token in MARKS or token.startswith("<unused") else TokenType.NORMAL for token in tokens
    ]
    kinds[len(MARKS) : len(MARKS) + 256] = [TokenType.BYTE] * 256
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(number) for number in range(size)])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(tokens.index("<bos>"))
    writer.add_eos_token_id(tokens.index("<eos>"))
    writer.add_pad_token_id(tokens.index("<pad>"))
    writer.add_unk_token_id(tokens.index("<unk>"))
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
