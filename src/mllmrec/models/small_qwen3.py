"""Small Qwen3 models from scratch, saved as ordinary model folders.

The architecture, the chat template and the special tokens are Qwen3's own, only smaller, so that every stage runs the
code that a 4B model runs. The vocabulary is byte-level BPE over the texts it is given: no text is unknown to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
PIECES = r"\[ITEM_|\d+| ?\p{L}+| ?[^\s\p{L}\d\[\]]+|[\[\]]|\s+"


def make_tokenizer(texts: Iterable[str], vocab_size: int, pieces: str = PIECES) -> PreTrainedTokenizerFast:
    """A byte-level BPE over `texts` with Qwen3's special tokens and chat; no token crosses the bounds of `pieces`."""
    from trl.chat_template_utils import qwen3_chat_template

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=qwen3_chat_template,
        clean_up_tokenization_spaces=False,
    )


def build_model(
    tokenizer: Any, layers: int, width: int, heads: int, seed: int, inner_width: int | None = None, **options: Any
) -> Qwen3ForCausalLM:
    """A Qwen3 with tied embeddings and random weights; its MLPs are four times as wide unless `inner_width` is given.

    `options` are further fields of its configuration.
    """
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=inner_width or 4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=32,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **options,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config)


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write an ordinary model folder (safetensors)."""
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config.do_sample = False
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
