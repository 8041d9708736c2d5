"""How a model's layers take positions, and which models a row of many answers would mislead.

Where a row holds all answers to a prompt, each token stands at the position that it has in its own answer. That needs
layers which take positions as they are given. Recurrent layers read tokens in the order of the row, and ALiBi counts
distances along it. Some scalings of rotary positions depend on the longest row of a batch, so that a row gets other
numbers beside a longer one: those are accepted up to the length below which they scale nothing.

`PromptCache` reads a prompt only as far as later tokens will look. They see its keys and values and nothing else, so
that the last layer's attention, output and MLP are of no use for the prompt's own tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from transformers import DynamicCache

from mllmrec.errors import BackendError
from mllmrec.models.private_names import IS_STATEFUL, require

ALIBI_TYPES = ("bloom", "mpt")


def causal_lm(model: Any) -> Any:
    """The causal LM below any adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def is_recurrent(model: Any) -> bool:
    """Whether a model keeps a state in place of keys and values, which no mask can take a token out of."""
    require(IS_STATEFUL)
    return bool(getattr(type(causal_lm(model)), "_is_stateful", False))


def unshareable(model: Any) -> str:
    """Why answers can't share a row in a model, in words behind its name; empty where they can."""
    config = model.config.get_text_config()
    others = {*(getattr(config, "layer_types", None) or ())} - {"full_attention", "sliding_attention"}
    if others:
        return f"has layers of kind {', '.join(sorted(others))}"
    if is_recurrent(model):
        return "is recurrent"
    return "tells positions by ALiBi, from distances along a row" if _has_alibi(config) else ""


def sliding_window(model: Any) -> int | None:
    """How many tokens back the layers of least sight see; None for all of them."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    slides = "sliding_attention" in kinds if kinds else getattr(config, "use_sliding_window", True)
    window: int | None = getattr(config, "sliding_window", None)
    return window if slides else None


def sees_everything(model: Any) -> bool:
    """Whether every layer attends to all that came before, wherever in a row it stands."""
    return not unshareable(model) and sliding_window(model) is None


def verify_scaling(model: Any, longest: int) -> None:
    """Raise BackendError where a row of `longest` tokens would change the positions of every row beside it."""
    limit = scaling_limit(model)
    if limit is not None and longest > limit:
        kind = next(kind for kind, own in _scalings(model.config.get_text_config()) if own == limit)
        raise BackendError(
            f"A prompt with its answer takes {longest} tokens, and {type(causal_lm(model)).__name__} scales positions "
            f"({kind}) for a whole batch as soon as one row passes {limit} tokens, so that scores would depend on what "
            f"stands in the batch. Expected at most {limit}: lower --max-prompt-tokens, or choose another model."
        )


def scaling_limit(model: Any) -> int | None:
    """The tokens up to which positions don't depend on the rest of a batch; None where they never do."""
    return min((limit for _, limit in _scalings(model.config.get_text_config())), default=None)


def context_of(config: Any) -> int | None:
    """The tokens that a model of a text configuration reads as it was made to; None where it has no bound.

    Where positions are scaled for a whole batch, that is the length from which they are.
    """
    limit = min((limit for _, limit in _scalings(config)), default=None)
    bound = limit or getattr(config, "max_position_embeddings", None)
    return bound if isinstance(bound, int) else None


class PromptCache(DynamicCache):
    """Keys and values of a prompt, read inside `reading`, which ends once the layer `last` has made its own.

    Behind the block it grows with what is read, as any cache does. Differentiable where gradients are on.
    """

    def __init__(self, last: int) -> None:
        super().__init__()
        self._last, self._reading = last, False

    @contextmanager
    def reading(self) -> Iterator[None]:
        self._reading = True
        try:
            with suppress(_PromptIsRead):
                yield
        finally:
            self._reading = False

    def update(self, key_states: Any, value_states: Any, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        kept = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        if self._reading and layer_idx == self._last:
            raise _PromptIsRead
        return kept


def _scalings(config: Any) -> Iterator[tuple[str, int]]:
    """(kind, its original length) of each scaling of rotary positions that looks at the longest row of a batch."""
    parameters = getattr(config, "rope_parameters", None) or {}
    for scaling in (parameters, *(part for part in parameters.values() if isinstance(part, Mapping))):
        kind = scaling.get("rope_type", "default")
        if kind == "longrope":
            original = scaling.get("original_max_position_embeddings") or config.original_max_position_embeddings
            yield kind, int(original)
        elif "dynamic" in kind:
            yield kind, int(config.max_position_embeddings)


def _has_alibi(config: Any) -> bool:
    own = (config, getattr(config, "attn_config", None))
    return (
        config.model_type in ALIBI_TYPES
        or any(bool(getattr(part, "alibi", False)) for part in own)
        or getattr(config, "position_embedding_type", None) == "alibi"
    )


class _PromptIsRead(BaseException):
    """The last layer's keys and values are in the cache: a way out of the forward pass, not an error."""
