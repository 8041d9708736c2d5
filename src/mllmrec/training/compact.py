"""A training step without what its loss never uses.

Three parts are left out; losses and gradients stay the same but for rounding (`benchmarks/training.py` times them):

* Logits of positions without a label. TRL projects every position onto the vocabulary away from GPUs, because compiled
  back ends want one shape. For a small model with short answers that projection is half of a step or more.
* The padding mask. A batch is padded on the right, behind everything that counts, and a causal model never looks
  there; but the mask keeps attention from its causal kernel, which costs more the longer the rows are.
* The last layer of prompts. Only its keys and values are used there, not its attention, output and MLP.

The first and the last replace names of TRL and transformers, in the versions that `private_names.py` lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from trl.trainer import utils as trl_utils

from mllmrec.models.positions import PromptCache, causal_lm, sees_everything
from mllmrec.models.private_names import LABELLED_ONLY, LAYER_FORWARD, read, replaceable
from mllmrec.models.tree_layout import additive

LABELS, MASK, POSITIONS = "labels", "attention_mask", "position_ids"
ROTATION, CACHE = "position_embeddings", "past_key_values"
IGNORED = -100
FEW_LAYERS = 8
"""Of more layers one is less than an eighth of a step, and the copy of its keys takes memory."""


@contextmanager
def answers_only() -> Iterator[None]:
    """For the block, let TRL pick labelled positions before the projection on every device.

    Versions of TRL that this wasn't tried with are left as they are, and are only slower.
    """
    if not replaceable(LABELLED_ONLY):
        yield
        return
    before = read(LABELLED_ONLY)
    setattr(trl_utils, LABELLED_ONLY.path, lambda _device: True)
    try:
        yield
    finally:
        setattr(trl_utils, LABELLED_ONLY.path, before)


@contextmanager
def without_padding_mask(model: Any) -> Iterator[None]:
    """For the block, let a causal LM read batches padded on the right as if they weren't.

    Only for training by such batches: the mask (B, T) of a batch padded on the left would be missed. Masks of another
    shape, as exact scoring has them, stay.
    """
    hook = causal_lm(model).base_model.register_forward_pre_hook(_drop_padding_mask, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def answers_last(model: Any) -> Iterator[None]:
    """For the block, let a causal LM's last layer stop once it has keys and values of prompts, and go on at answers.

    Prompt is what every row of a batch has before its first answer, by `labels` (B, T), which are `IGNORED` there. Its
    last hidden states are zeros, so the loss may look at labelled positions alone. Models of more than `FEW_LAYERS`
    layers, of which the last is too small a part, are left as they are; so are those whose layers see a window only or
    aren't called as Llama's are, and batches with a padding mask or checkpointed activations.
    """
    causal = causal_lm(model)
    layers: Sequence[Any] = getattr(causal.get_decoder(), "layers", ())
    length = 0
    few = 0 < len(layers) <= FEW_LAYERS
    if not few or not sees_everything(model) or _has_router_loss(causal) or not replaceable(LAYER_FORWARD):
        yield
        return
    last = layers[-1]
    plain, own = last.forward, vars(last).get("forward")

    def notice(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        nonlocal length
        labels_BT: Any = kwargs.get(LABELS)
        whole = labels_BT is None or causal.is_activation_checkpointing
        length = 0 if whole else _before_first_prediction(labels_BT)

    def forward(hidden_BT: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        nonlocal length
        skipped, length = length, 0
        if skipped < 1 or args or not _is_plain_call(kwargs):
            return plain(hidden_BT, *args, **kwargs)
        return _in_two_parts(plain, len(layers) - 1, hidden_BT, skipped, kwargs)

    last.forward = forward
    hook = causal.register_forward_pre_hook(notice, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
        del last.forward
        if own is not None:
            last.forward = own


def _drop_padding_mask(_module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Training reads without a cache; what is read into one may be padded on the left."""
    is_padding = getattr(kwargs.get(MASK), "ndim", 0) == 2 and kwargs.get(CACHE) is None
    return args, kwargs | {MASK: None} if is_padding else kwargs


def _before_first_prediction(labels_BT: torch.Tensor) -> int:
    """How many first tokens of every row are followed by another that isn't to be predicted."""
    labelled_BT = labels_BT != IGNORED
    first_B = torch.where(labelled_BT.any(1), labelled_BT.int().argmax(1), labels_BT.shape[1])
    return int(first_B.min()) - 1


def _is_plain_call(kwargs: dict[str, Any]) -> bool:
    """A layer of Llama's kind is asked to read a whole batch, causally, without a cache."""
    rotation = kwargs.get(ROTATION)
    return kwargs.get(CACHE, ...) is None and kwargs.get(MASK) is None and isinstance(rotation, tuple)


def _in_two_parts(
    layer: Callable[..., torch.Tensor], number: int, hidden_BT: torch.Tensor, length: int, kwargs: dict[str, Any]
) -> torch.Tensor:
    """What the layer makes of hidden states (B, T, width): zeros for the first `length`, whose keys the rest sees."""
    num_tokens, cache = hidden_BT.shape[1], PromptCache(number)

    def read(part: slice, mask: torch.Tensor | None = None) -> torch.Tensor:
        given = {CACHE: cache, MASK: mask, ROTATION: tuple(wave_BT[:, part] for wave_BT in kwargs[ROTATION])}
        if kwargs.get(POSITIONS) is not None:
            given[POSITIONS] = kwargs[POSITIONS][..., part]
        return layer(hidden_BT[:, part], **kwargs | given)

    with cache.reading():
        read(slice(length))
    seen = torch.ones(num_tokens - length, num_tokens, dtype=torch.bool, device=hidden_BT.device).tril(length)
    made_BT = read(slice(length, None), additive(seen, hidden_BT.dtype)[None, None])
    return functional.pad(made_BT, (0, 0, length, 0))


def _has_router_loss(causal: Any) -> bool:
    """The loss also looks at how experts are chosen, at every position."""
    return bool(getattr(causal.config.get_text_config(), "output_router_logits", False))
