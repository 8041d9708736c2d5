"""Thoughts that a model writes before its answer: sampled token by token, each by numbers of its own.

A thought is drawn by the inverse of the distribution function: its next token is the one at which the running sum of
the chances passes the next of its numbers in [0, 1). The numbers belong to the thought and not to the batch, so that
the same thoughts come out however users are batched, but for rounding: beside prompts of other lengths the chances
differ in their last digits.

A thought ends with the mark that closes it. One that the model ends in another way (by the end of its answer), or that
passes its bound, is unfinished; whoever reads on closes it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from transformers import DynamicCache

from mllmrec.models.base import Thought, Tokens
from mllmrec.models.cache_layout import branch, prefill
from mllmrec.models.chat import Chat, stop_ids
from mllmrec.models.positions import causal_lm, is_recurrent, verify_scaling
from mllmrec.models.scoring import HuggingFaceScorer, evaluating
from mllmrec.progress import note


class HuggingFaceThinker:
    """A [`Thinker`][mllmrec.models.base.Thinker] over a transformers causal LM.

    The `scorer` of the same model says what its logits are, and whether it reads on from a cache as it reads a whole
    text; a model that doesn't reads everything again for each token, which is slow.
    """

    def __init__(self, scorer: HuggingFaceScorer, chat: Chat, decode: Callable[[Sequence[int]], str]) -> None:
        self._scorer, self._model, self._chat, self._decode = scorer, scorer.model, chat, decode
        self._mark = chat.thought_marks.closing.strip()
        self._ends = frozenset(stop_ids(scorer.model, chat.end_id))

    def think(
        self,
        prompts: Sequence[Tokens],
        draws: Sequence[Sequence[Iterator[float]]],
        *,
        max_tokens: int,
        temperature: float = 1.0,
    ) -> list[list[Thought]]:
        opening = self._chat.encode(self._chat.thought_marks.opening)
        given = [[*prompt, *opening] for prompt in prompts]
        verify_scaling(self._model, max(map(len, given)) + max_tokens)
        if fault := self._scorer.cache_fault(max(given, key=len)):
            _tell(fault)
        # Recurrent models would read padding, and not all of them keep the rows of a batch apart.
        size = 1 if fault or is_recurrent(self._model) else len(given)
        thoughts: list[list[Thought]] = []
        for start in range(0, len(given), size):
            part, numbers = given[start : start + size], draws[start : start + size]
            reader = _Anew(self._scorer, part, numbers) if fault else _Cached(self._scorer, part, numbers)
            with evaluating(self._model):
                written = iter(self._write(reader, [own for row in numbers for own in row], max_tokens, temperature))
            thoughts += [[next(written) for _ in row] for row in numbers]
        return thoughts

    def _write(
        self, reader: _Cached | _Anew, draws: Sequence[Iterator[float]], max_tokens: int, temperature: float
    ) -> list[Thought]:
        """One thought for each row of `reader`. Rows that have ended are read along until the last one has."""
        written: list[list[int]] = [[] for _ in draws]
        thoughts: dict[int, Thought] = {}
        for _ in range(max_tokens):
            points = [0.0 if row in thoughts else next(own) for row, own in enumerate(draws)]
            tokens = drawn_tokens(reader.next_logits() / temperature, points)
            for row, token in enumerate(tokens):
                if row not in thoughts:
                    written[row].append(token)
                    if (thought := self._ended(written[row])) is not None:
                        thoughts[row] = thought
            if len(thoughts) == len(draws):
                break
            reader.append(tokens)
        for row, ids in enumerate(written):
            if row not in thoughts:
                thoughts[row] = self._thought(self._decode(ids), ids)
        return [thoughts[row] for row in range(len(draws))]

    def _ended(self, ids: Sequence[int]) -> Thought | None:
        """The thought that ends with the last of these tokens; None where it goes on."""
        if ids[-1] in self._ends:
            return self._thought(self._decode(ids[:-1]), ids)
        text, mark, _ = self._decode(ids).partition(self._mark)
        return self._thought(text, ids, finished=True) if mark else None

    def _thought(self, text: str, ids: Sequence[int], *, finished: bool = False) -> Thought:
        """A thought as it will be read: nothing in it spells a control token."""
        return Thought(text=self._chat.harmless(text.strip()), tokens=len(ids), finished=finished)


@cache
def _tell(fault: str) -> None:
    """Once for each fault."""
    note(f"thoughts are read anew for each token: {fault}")


def drawn_tokens(logits_RV: torch.Tensor, points: Sequence[float]) -> list[int]:
    """For each row the token at which the running sum of the chances passes its point, a number in [0, 1).

    >>> logits = torch.log(torch.tensor([[0.25, 0.0, 0.75]] * 3))
    >>> drawn_tokens(logits, [0.0, 0.24, 0.25])
    [0, 0, 2]
    """
    sums_RV = logits_RV.double().softmax(dim=-1).cumsum(dim=-1)
    at = torch.tensor(points, dtype=torch.float64, device=sums_RV.device).unsqueeze(1) * sums_RV[:, -1:]
    found = torch.searchsorted(sums_RV, at, right=True).clamp(max=logits_RV.shape[-1] - 1)
    return [int(token) for token in found.squeeze(1).tolist()]


class _Cached:
    """Rows that are read on from a cache: each prompt once, then a token at a time for all of its thoughts."""

    def __init__(self, scorer: HuggingFaceScorer, given: Sequence[list[int]], draws: Sequence[Sequence[Any]]) -> None:
        self._scorer, self._decoder = scorer, causal_lm(scorer.model).get_decoder()
        with evaluating(scorer.model):
            _, kept, seen_BT = prefill(scorer.model, [ids[:-1] for ids in given], [1] * len(given))
        owners = [number for number, row in enumerate(draws) for _ in row]
        which = torch.tensor(owners, device=seen_BT.device)
        self._cache: DynamicCache = branch(kept, which)
        self._seen_RT = seen_BT[which]
        self._is_padded = not bool(seen_BT.all())
        self._lengths = [len(given[owner]) - 1 for owner in owners]
        self._tokens = [given[owner][-1] for owner in owners]

    def next_logits(self) -> torch.Tensor:
        """Logits (R, V) of the next token of each row, float32."""
        device = self._seen_RT.device
        self._seen_RT = torch.cat([self._seen_RT, self._seen_RT.new_ones(len(self._tokens), 1)], dim=1)
        hidden_RT = self._decoder(
            input_ids=torch.tensor(self._tokens, device=device).unsqueeze(1),
            position_ids=torch.tensor(self._lengths, device=device).unsqueeze(1),
            attention_mask=self._seen_RT if self._is_padded else None,
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        return self._scorer.logits(hidden_RT[:, -1])

    def append(self, tokens: Sequence[int]) -> None:
        self._tokens = list(tokens)
        self._lengths = [length + 1 for length in self._lengths]


class _Anew:
    """Rows that are read anew for each token, each by itself."""

    def __init__(self, scorer: HuggingFaceScorer, given: Sequence[list[int]], draws: Sequence[Sequence[Any]]) -> None:
        self._scorer, self._decoder = scorer, causal_lm(scorer.model).get_decoder()
        self._rows = [list(given[number]) for number, row in enumerate(draws) for _ in row]

    def next_logits(self) -> torch.Tensor:
        device = self._scorer.model.device
        hidden = [
            self._decoder(input_ids=torch.tensor([row], device=device), use_cache=False).last_hidden_state[0, -1]
            for row in self._rows
        ]
        return self._scorer.logits(torch.stack(hidden))

    def append(self, tokens: Sequence[int]) -> None:
        for row, token in zip(self._rows, tokens, strict=True):
            row.append(token)
