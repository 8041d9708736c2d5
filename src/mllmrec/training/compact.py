"""A training step without what its loss never sees: other positions than answers, and a mask for padding.

TRL's loss looks at labelled positions only, but away from GPUs it projects every position onto the vocabulary first,
because compiled back ends want one shape. For a small model with short answers that projection is most of the work:
without it a training step of a 0.85M-parameter model with 8,192 tokens takes a fifth of the time, with the same loss
and gradients.

A batch is padded on the right, behind everything that counts, and a causal model never looks there; but a padding mask
keeps attention from its causal kernel. On a CPU a step takes a tenth longer with one for rows of 360 tokens, and two
thirds longer for rows of 2,400 (`benchmarks/training.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trl.trainer import utils as trl_utils

SWITCH = "_use_triton"
MASK = "attention_mask"


@contextmanager
def answers_only() -> Iterator[None]:
    """For the block, let TRL pick labelled positions before the projection on every device.

    A version of TRL without this switch is left as it is, and is only slower.
    """
    before = getattr(trl_utils, SWITCH, None)
    if before is None:
        yield
        return
    setattr(trl_utils, SWITCH, lambda _device: True)
    try:
        yield
    finally:
        setattr(trl_utils, SWITCH, before)


@contextmanager
def without_padding_mask(model: Any) -> Iterator[None]:
    """For the block, let a causal LM read batches padded on the right as if they weren't.

    Only for training by such batches: the mask (B, T) of a batch padded on the left would be missed. Masks of another
    shape, as exact scoring has them, stay.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    hook = causal.base_model.register_forward_pre_hook(_drop_padding_mask, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _drop_padding_mask(_module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    mask = kwargs.get(MASK)
    return args, kwargs | {MASK: None} if getattr(mask, "ndim", 0) == 2 else kwargs
