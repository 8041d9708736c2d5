"""Which models are refused before any of their weights is read, by their configuration alone."""

from __future__ import annotations

from typing import Any

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from mllmrec.errors import BackendError, SettingsError
from mllmrec.models.huggingface import read_config
from mllmrec.models.positions import context_of

ANSWER_TOKENS = 64
"""Left free for an answer in the prompt budget that is advised."""


def model_class(source: str) -> Any:
    """The class of the causal LM in a folder, or of a hub id; no weights are read.

    Raises BackendError for a model of another kind (an encoder, a decoder behind an encoder) or a quantized one.
    """
    config = read_config(source)
    require_causal(source, config)
    return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]


def require_causal(source: str, config: Any) -> None:
    """Refuse a model that isn't a decoder alone: an encoder, masked or not, and a decoder behind an encoder."""
    known = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    is_masked = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    if not known or is_masked or getattr(config, "is_encoder_decoder", False):
        raise BackendError(
            f"{source} is a {config.model_type} model, which doesn't write texts from left to right. Expected a "
            "causal language model, such as Qwen3-4B."
        )


def require_context(source: str, max_prompt_tokens: int) -> None:
    """Refuse, before weights are read, a model that isn't causal, or that reads fewer tokens than a prompt may have."""
    config = read_config(source)
    require_causal(source, config)
    context = context_of(config.get_text_config())
    if context is not None and max_prompt_tokens > context:
        raise SettingsError(
            f"{source} reads {context:,} tokens and prompts may have {max_prompt_tokens:,}: give --max-prompt-tokens "
            f"{max(context - ANSWER_TOKENS, context // 2)} or less, which shortens captions first and then old "
            "history, or choose a model that reads more."
        )
