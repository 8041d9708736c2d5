"""Thoughts sampled the plain way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mllmrec.models.base import Thought
from mllmrec.models.chat import Chat


def naive_thought(model: Any, chat: Chat, prompt: Sequence[int], numbers: Iterator[float], most: int) -> Thought:
    """The plain way: the whole text is read again for each token, and the sum runs in Python."""
    import torch

    ends = (chat.end_id, model.generation_config.eos_token_id)
    ids = [*prompt, *chat.encode("<think>\n")]
    written: list[int] = []
    while len(written) < most:
        with torch.no_grad():
            chances = model(input_ids=torch.tensor([[*ids, *written]])).logits[0, -1].double().softmax(-1).tolist()
        at, total = next(numbers), 0.0
        written.append(next(token for token, chance in enumerate(chances) if (total := total + chance) > at))
        text = chat.tokenizer.decode(written)
        if "</think>" in text or written[-1] in ends:
            break
    text = chat.tokenizer.decode(written[:-1] if written[-1] in ends else written)
    for token in chat.tokenizer.added_tokens_decoder.values():
        if token.special and "think>" not in str(token):
            text = text.replace(str(token), "")
    thought = chat.harmless(text.partition("</think>")[0].strip())
    return Thought(text=thought, tokens=len(written), finished="</think>" in text)
