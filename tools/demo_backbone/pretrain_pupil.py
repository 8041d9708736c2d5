"""The model that is trained, a small Qwen3 with a readout beside it, and its losses on a batch of lessons.

The loss is on the answer: fully on its id, which is the choice, and less on the rest, which is copied. One answer in
200 tokens is little to learn from, so there is more. A readout asks the third layer, at the end of every candidate's
line, whether it is the one; it is thrown away in the end. The titles of other items are recited after the answer, and
words of the prompt are to be spelt as they were spelt before. And the heads begin as heads that compare and pass on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import torch
from torch.nn import functional
from transformers import Qwen3ForCausalLM

from demo_backbone.curriculum import Level
from demo_backbone.sheets import PIECES, Desk, Sheet, corpus
from mllmrec.data.draws import generator
from mllmrec.models.chat import Chat
from mllmrec.models.small_qwen3 import build_model, make_tokenizer

READOUT_LAYER, READOUT_WEIGHT = 3, 0.5
ROPE_THETA, SPREAD = 1e6, 0.05
ALIKE, PASSED_ON = 2.0, 0.5


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What decides the weights. With `weights`, a model's folder, they go on from there, at the level `first_level`."""

    seed: int = 2026
    layers: int = 4
    width: int = 128
    heads: int = 4
    inner_width: int = 256
    vocab: int = 1920
    lr: float = 2e-3
    last_steps: int = 2400
    weights: str = ""
    first_level: str = ""


class Pupil(torch.nn.Module):
    """A model and its readout."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.tokenizer = make_tokenizer(corpus(generator(plan.seed, "pretrain/corpus", "")), plan.vocab, PIECES)
        self.model = new_model(self.tokenizer, plan)
        _prepare(self.model, plan.seed)
        self.readout = torch.nn.Linear(plan.width, 1, bias=False)
        torch.nn.init.zeros_(self.readout.weight)
        words = self.tokenizer.convert_ids_to_tokens(range(len(self.tokenizer)))
        self.inner = frozenset(number for number, word in enumerate(words) if word.isalpha() and word.isascii())
        self.desk = Desk(Chat(self.tokenizer))

    def forward(self, sheets: Sequence[Sheet], level: Level) -> tuple[torch.Tensor, float, float, float]:
        """The level's loss, and the shares of right ids, of answers right to the end, and of right readouts."""
        rows = [_row(sheet) for sheet in sheets]
        hidden_BT, middle_BT = self._read(rows)
        positions = [range(len(s.prompt_T) - 1, len(s.prompt_T) + len(s.answer_T) - 1) for s in sheets]
        batch, column = _flat(positions)
        target = torch.tensor([token for sheet in sheets for token in sheet.answer_T])
        is_id = torch.tensor([1 <= i <= s.num_id_tokens for s in sheets for i in range(len(s.answer_T))])
        logits = self.model.lm_head(hidden_BT[batch, column])
        loss_N = functional.cross_entropy(logits, target, reduction="none")
        missed = (logits.argmax(-1) != target).float()
        wrong_ids, wrong = (
            torch.zeros(len(sheets)).index_add_(0, batch, missed * part) for part in (is_id, torch.ones_like(is_id))
        )
        ends, end = _flat([sheet.line_ends_C for sheet in sheets])
        readout_loss, readout_right = self._ask(middle_BT[ends, end], sheets)
        loss = (loss_N * torch.where(is_id, 1.0, level.rest_weight)).sum() / len(sheets)
        loss = loss + READOUT_WEIGHT * readout_loss
        if level.recitals:
            loss = loss + level.recital_weight * self._recite(hidden_BT, sheets)
        if level.spelling_weight:
            loss = loss + level.spelling_weight * self._spell(hidden_BT, sheets)
        return loss, _share(wrong_ids == 0), _share(wrong == 0), readout_right

    def _read(self, rows: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """The hidden states (B, T, width) of the last layer and of the readout's. Padding is on the right, unseen."""
        width = max(map(len, rows))
        input_ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        output = self.model.model(input_ids=input_ids, use_cache=False, output_hidden_states=True)
        return output.last_hidden_state, output.hidden_states[min(READOUT_LAYER, self.model.config.num_hidden_layers)]

    def _recite(self, hidden_BT: torch.Tensor, sheets: Sequence[Sheet]) -> torch.Tensor:
        """The mean loss on what follows the ids of items other than the answer."""
        positions: list[list[int]] = []
        targets: list[int] = []
        for sheet in sheets:
            column = len(sheet.prompt_T) + len(sheet.answer_T)
            recited: list[int] = []
            for given_T, rest_T in sheet.recitals:
                column += len(given_T)
                recited += range(column - 1, column + len(rest_T) - 1)
                column += len(rest_T)
                targets += rest_T
            positions.append(recited)
        batch, column_N = _flat(positions)
        return functional.cross_entropy(self.model.lm_head(hidden_BT[batch, column_N]), torch.tensor(targets))

    def _spell(self, hidden_BT: torch.Tensor, sheets: Sequence[Sheet]) -> torch.Tensor:
        """The mean loss where a word of the prompt goes on as it did before."""
        positions = [respelt(sheet.prompt_T, self.inner) for sheet in sheets]
        batch, column = _flat(positions)
        target = torch.tensor([s.prompt_T[i] for s, spelt in zip(sheets, positions, strict=True) for i in spelt])
        if not len(target):
            return hidden_BT.new_zeros(())
        return functional.cross_entropy(self.model.lm_head(hidden_BT[batch, column - 1]), target)

    def _ask(self, hidden_N: torch.Tensor, sheets: Sequence[Sheet]) -> tuple[torch.Tensor, float]:
        """The readout's loss and share of right answers: a softmax over each lesson's candidates."""
        counts = [len(sheet.line_ends_C) for sheet in sheets]
        scores = torch.nn.utils.rnn.pad_sequence(
            list(self.readout(hidden_N).squeeze(-1).split(counts)), batch_first=True, padding_value=-1e9
        )
        right = torch.tensor([sheet.right for sheet in sheets])
        return functional.cross_entropy(scores, right), _share(scores.argmax(-1) == right)


def respelt(tokens: Sequence[int], inner: frozenset[int]) -> list[int]:
    """The places of `inner` tokens that have followed the token before them earlier on.

    >>> respelt([1, 2, 9, 1, 2, 1, 3], frozenset({2, 3}))
    [4]
    """
    seen, positions = set[tuple[int, int]](), []
    for column, pair in enumerate(pairwise(tokens), 1):
        if pair[1] in inner and pair in seen:
            positions.append(column)
        seen.add(pair)
    return positions


def new_model(tokenizer: Any, plan: Plan) -> Qwen3ForCausalLM:
    """Random weights. The rotation is Qwen3's own, slow enough to compare tokens that are far apart."""
    rotation = {"rope_type": "default", "rope_theta": ROPE_THETA}
    return build_model(
        tokenizer,
        plan.layers,
        plan.width,
        plan.heads,
        plan.seed,
        inner_width=plan.inner_width,
        initializer_range=SPREAD,
        rope_parameters=rotation,
    )


def _row(sheet: Sheet) -> list[int]:
    """What is read: the prompt, the answer, and the recitals; of the last of these all but the end token."""
    return [*sheet.prompt_T, *sheet.answer_T, *chain(*(part for parts in sheet.recitals for part in parts))][:-1]


@torch.no_grad()
def _prepare(model: Any, seed: int) -> None:
    """Let every head begin by looking for what is like its own token and passing on what it finds there.

    Queries equal keys, and the way out of the values is the way in, backwards. Comparing and copying then need not be
    found by chance, which takes most of the time otherwise.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in model.model.layers:
            attention = layer.self_attn
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            attention.q_norm.weight.fill_(ALIKE)
            torch.nn.init.orthogonal_(attention.v_proj.weight)
            attention.o_proj.weight.copy_(PASSED_ON * attention.v_proj.weight.T)


def _share(right: torch.Tensor) -> float:
    return right.float().mean().item()


def _flat(positions: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """(row, column) of every position of every row."""
    rows = [row for row, columns in enumerate(positions) for _ in columns]
    return torch.tensor(rows), torch.tensor([column for columns in positions for column in columns])
