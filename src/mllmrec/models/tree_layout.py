"""All answers to a prompt in one row: the prompt, followed by the trie of its answers.

What answers share (`[ITEM_1` of 12 and 123) is one node, computed once. A node sees the prompt, its ancestors and
itself, and its position is that of the token it would be in its own answer, so that the row gives the same numbers as
one forward pass for each answer would. Where it can be, the prompt is read first, only as far as its last layer's keys
and values, and its last token with the trie after it.

This takes layers that attend to all that a mask shows them, at the positions they are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mllmrec.models.positions import PromptCache, causal_lm
from mllmrec.models.tries import Row


def read_whole(model: Any, rows: Sequence[Row]) -> list[torch.Tensor]:
    """Hidden states (1 + nodes, width) of each row: of its prompt's last token, and of its nodes; all in one pass."""
    input_ids, position_ids, mask = collate(rows, model.device)
    hidden_BT = (
        causal_lm(model)
        .get_decoder()(
            input_ids=input_ids, position_ids=position_ids, attention_mask=additive(mask, model.dtype), use_cache=False
        )
        .last_hidden_state
    )
    return [hidden_BT[b, len(row.prompt_T) - 1 : row.num_tokens] for b, row in enumerate(rows)]


def read_after_prompts(model: Any, rows: Sequence[Row]) -> list[torch.Tensor]:
    """The same in two passes, the prompts first: about half the attention, for models that keep every key.

    Where activations are checkpointed no keys are kept, and prompts of one token have none before their last: all is
    read in one pass then.
    """
    causal = causal_lm(model)
    if (causal.is_activation_checkpointing and causal.training) or min(len(row.prompt_T) for row in rows) < 2:
        return read_whole(model, rows)
    decoder = causal.get_decoder()
    prompt_ids, tree_ids, position_ids, mask = collate_parts(rows, model.device)
    cache = PromptCache(model.config.get_text_config().num_hidden_layers - 1)
    with cache.reading():
        decoder(input_ids=prompt_ids, past_key_values=cache, use_cache=True)
    hidden_BT = decoder(
        input_ids=tree_ids,
        position_ids=position_ids,
        attention_mask=additive(mask, model.dtype),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return [hidden_BT[b, : 1 + len(row.trie.tokens)] for b, row in enumerate(rows)]


def collate(rows: Sequence[Row], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """input_ids (B, T), position_ids (B, T) and the boolean attention mask (B, 1, T, T); True may be seen.

    Rows are padded on the right; a padded token sees itself alone, so that no softmax is empty.
    """
    size, length = len(rows), max(row.num_tokens for row in rows)
    input_ids, position_ids = np.zeros((size, length), dtype=np.int64), np.zeros((size, length), dtype=np.int64)
    mask = np.repeat(np.eye(length, dtype=bool)[None], size, axis=0)
    for b, row in enumerate(rows):
        start, end = len(row.prompt_T), row.num_tokens
        input_ids[b, :end] = [*row.prompt_T, *row.trie.tokens]
        position_ids[b, :end] = [*range(start), *(start + depth for depth in row.trie.depths)]
        mask[b, :start, :start] = np.tri(start, dtype=bool)
        mask[b, start:end, :start] = True
        mask[b, start:end, start:end] = row.trie.ancestors()
    return _tensor(input_ids, device), _tensor(position_ids, device), _tensor(mask, device).unsqueeze(1)


def collate_parts(
    rows: Sequence[Row], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Prompts without their ends (B, P); ends and trees (B, N), their positions, and what they see (B, 1, N, P + N).

    Prompts are padded on the right, which a causal reader never notices; the mask hides their padding from the trees.
    """
    longest, nodes = max(len(row.prompt_T) for row in rows) - 1, max(len(row.trie.tokens) for row in rows) + 1
    prompt_ids = np.zeros((len(rows), longest), dtype=np.int64)
    tree_ids, position_ids = np.zeros((len(rows), nodes), dtype=np.int64), np.zeros((len(rows), nodes), dtype=np.int64)
    mask = np.zeros((len(rows), nodes, longest + nodes), dtype=bool)
    mask[:, :, longest:] = np.eye(nodes, dtype=bool)
    for b, row in enumerate(rows):
        length, count = len(row.prompt_T) - 1, len(row.trie.tokens) + 1
        prompt_ids[b, :length] = row.prompt_T[:-1]
        tree_ids[b, :count] = [row.prompt_T[-1], *row.trie.tokens]
        position_ids[b, :count] = [length, *(length + 1 + depth for depth in row.trie.depths)]
        mask[b, :count, :length] = True
        mask[b, :count, longest] = True
        mask[b, 1:count, longest + 1 : longest + count] = row.trie.ancestors()
    prompts, trees, positions = (_tensor(part, device) for part in (prompt_ids, tree_ids, position_ids))
    return prompts, trees, positions, _tensor(mask, device).unsqueeze(1)


def additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The mask as something to add to attention logits; each layer would otherwise turn a boolean one into that."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def _tensor(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array).to(device)
