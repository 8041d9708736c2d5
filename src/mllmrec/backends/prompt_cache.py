"""Reading a prompt only as far as something that follows it will look.

What follows a prompt sees its keys and values, nothing else. So in the last layer all that comes after them, attention,
output and MLP, is of no use for the prompt's own tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from transformers import DynamicCache


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


class _PromptIsRead(BaseException):
    """The last layer's keys and values are in the cache: a way out of the forward pass, not an error."""
