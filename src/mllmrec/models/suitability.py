"""Which models are refused before any of their weights is read, by their configuration alone."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from mllmrec.errors import BackendError, SettingsError
from mllmrec.models.huggingface import read_config
from mllmrec.models.positions import context_of
from mllmrec.progress import note
from mllmrec.settings.evaluation import ModelSettings
from mllmrec.settings.training import TrainingSettings

ANSWER_TOKENS = 64
"""Left free for an answer in a prompt budget that is advised or chosen."""
Asked = TypeVar("Asked", bound=ModelSettings | TrainingSettings)


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


def within_context(settings: Asked, source: str) -> Asked:
    """The settings, with a prompt budget that leaves room for an answer where none was given and the model reads less.

    No weights are read. A budget that was given stays as it is, for `require_context` to judge.
    """
    if "max_prompt_tokens" in settings.model_fields_set:
        return settings
    context = context_of(read_config(source).get_text_config())
    if context is None or settings.max_prompt_tokens <= context:
        return settings
    budget = _budget(context, settings.written_tokens)
    note(
        f"{source} reads {context:,} tokens: prompts are kept to {budget:,}, which leaves room for an answer. "
        "--max-prompt-tokens gives another budget."
    )
    return cast(Asked, settings.model_copy(update={"max_prompt_tokens": budget}))


def require_context(source: str, max_prompt_tokens: int) -> None:
    """Refuse, before weights are read, a model that isn't causal, or that reads fewer tokens than a prompt may have."""
    config = read_config(source)
    require_causal(source, config)
    context = context_of(config.get_text_config())
    if context is not None and max_prompt_tokens > context:
        raise SettingsError(
            f"{source} reads {context:,} tokens and prompts may have {max_prompt_tokens:,}: give --max-prompt-tokens "
            f"{_budget(context)} or less, which shortens captions first and then old history, or choose a model that "
            "reads more."
        )


def _budget(context: int, written_tokens: int = 0) -> int:
    return max(context - ANSWER_TOKENS - written_tokens, context // 2)
