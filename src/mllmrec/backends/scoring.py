"""Exact scores of all candidates from one forward pass for each user.

The answers of one prompt form a trie: what they share (`[ITEM_1` of 12 and 123) is one node, computed once. A row is
the prompt followed by the trie's inner nodes. A node sees the prompt, its ancestors and itself, and its position is
that of the token it would be in its own answer, so that the row gives the same numbers as one forward pass for each
answer would. Leaves need no input: the end token is only predicted. The vocabulary projection runs at the nodes that
something follows, the log-softmax in float32.

    score(answer) = sum over its tokens of log p(token | prompt, tokens before it)      [nats]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from mllmrec.backends.base import ScoringTask, Tokens
from mllmrec.errors import BackendError

PROJECTED_ROWS = 2048


@dataclass(frozen=True, kw_only=True)
class Trie:
    """The answers of one prompt as a tree.

    Node n (0-based) has `tokens[n]` and `parents[n]`, -1 standing for the end of the prompt. Edge e predicts token
    `targets[e]` after node `sources[e]`. `paths[c]` lists the edges of answer c. Only nodes that something follows
    are nodes; an end token is only an edge.
    """

    tokens: list[int]
    parents: list[int]
    depths: list[int]
    sources: list[int]
    targets: list[int]
    paths: list[list[int]]


def build_trie(answers_C: Sequence[Tokens]) -> Trie:
    """The trie of the answers; each needs at least one token."""
    trie = Trie(tokens=[], parents=[], depths=[], sources=[], targets=[], paths=[])
    edges: dict[tuple[int, int], int] = {}
    nodes: dict[tuple[int, int], int] = {}
    for answer in answers_C:
        node, path = -1, []
        for depth, token in enumerate(answer):
            if depth:
                key = (node, answer[depth - 1])
                if key not in nodes:
                    nodes[key] = len(trie.tokens)
                    trie.tokens.append(answer[depth - 1])
                    trie.parents.append(node)
                    trie.depths.append(depth - 1)
                node = nodes[key]
            edge = edges.setdefault((node, token), len(edges))
            if edge == len(trie.targets):
                trie.sources.append(node)
                trie.targets.append(token)
            path.append(edge)
        trie.paths.append(path)
    return trie


@dataclass(frozen=True, kw_only=True)
class Row:
    """One task, ready to be put into a batch."""

    index: int
    prompt_T: Tokens
    trie: Trie

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_T) + len(self.trie.tokens)


def make_rows(tasks: Sequence[ScoringTask]) -> list[Row]:
    return [Row(index=i, prompt_T=task.prompt_T, trie=build_trie(task.answers_C)) for i, task in enumerate(tasks)]


def plan_batches(rows: Sequence[Row], max_tokens: int) -> list[list[Row]]:
    """Batches of rows of like length, longest first, each of at most `max_tokens` tokens with padding."""
    batches: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: (-row.num_tokens, row.index)):
        if batches and (len(batches[-1]) + 1) * batches[-1][0].num_tokens <= max_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


class HuggingFaceScorer:
    """A [`CandidateScorer`][mllmrec.backends.base.CandidateScorer] over a transformers causal LM, adapters included.

    `max_tokens` bounds a batch, padding included. Raises BackendError, rather than score wrongly, for a model whose
    logits aren't its output embedding times its last hidden state (soft-capped or scaled logits), for one with layers
    other than attention, and for rows longer than a sliding window.
    """

    def __init__(self, model: Any, max_tokens: int = 8192) -> None:
        self.model, self.max_tokens = model, max_tokens
        self.reach = _reach(model)
        with evaluating(model):
            self._verify_head()

    def score(self, tasks: Sequence[ScoringTask]) -> Iterator[tuple[int, list[float]]]:
        rows = make_rows(tasks)
        self._verify_lengths(rows)
        for batch in plan_batches(rows, self.max_tokens):
            with evaluating(self.model):
                scores = score_rows(self.model, batch)
            for row, scores_C in zip(batch, scores, strict=True):
                yield row.index, scores_C.tolist()

    def _verify_head(self) -> None:
        causal, decoder, head = _parts(self.model)
        probe = torch.tensor([[0, 1, 2, 3]], device=self.model.device)
        hidden: list[torch.Tensor] = []
        hook = decoder.register_forward_hook(lambda _module, _inputs, output: hidden.append(output.last_hidden_state))
        try:
            # The class's own forward: a trainer wraps the instance's, in autocast for one.
            logits = type(causal).forward(causal, input_ids=probe, use_cache=False).logits
        finally:
            hook.remove()
        if not torch.allclose(head(hidden[0]).float(), logits.float(), atol=1e-3, rtol=1e-3):
            raise BackendError(
                f"{type(causal).__name__} changes its logits after the output embedding (a soft cap or a scale), "
                "which exact scoring doesn't support. Choose another model, or rank with --method generate."
            )

    def _verify_lengths(self, rows: Sequence[Row]) -> None:
        longest = max((len(row.prompt_T) + max(map(len, row.trie.paths)) for row in rows), default=0)
        if self.reach is not None and longest > self.reach:
            raise BackendError(
                f"A prompt with its answer takes {longest} tokens and {type(self.model).__name__} has a sliding window "
                f"of {self.reach} tokens, beyond which exact scoring doesn't support it. Lower --max-prompt-tokens, "
                "choose another model, or rank with --method generate."
            )


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Dropout and gradients off for the block; the model's mode is put back."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def score_rows(model: Any, rows: Sequence[Row]) -> list[torch.Tensor]:
    """The scores of each row's answers, float32, in order; differentiable when gradients are on."""
    _, decoder, head = _parts(model)
    input_ids, position_ids, mask = collate(rows, model.device)
    if getattr(model.config, "_attn_implementation", "sdpa") != "sdpa":
        mask = torch.zeros_like(mask, dtype=model.dtype).masked_fill(~mask, torch.finfo(model.dtype).min)
    hidden_BT = decoder(
        input_ids=input_ids, position_ids=position_ids, attention_mask=mask, use_cache=False
    ).last_hidden_state
    batch_index, source, target = _edges(rows, model.device)
    logp_E = _log_probabilities(head, hidden_BT[batch_index, source], target)
    scores, offset = [], 0
    for row in rows:
        logp = logp_E[offset : offset + len(row.trie.targets)]
        offset += len(row.trie.targets)
        scores.append(torch.stack([logp[path].sum() for path in row.trie.paths]))
    return scores


def collate(rows: Sequence[Row], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """input_ids (B, T), position_ids (B, T) and the boolean attention mask (B, 1, T, T); True may be seen.

    Rows are padded on the right; a padded token sees itself alone, so that no softmax is empty.
    """
    length = max(row.num_tokens for row in rows)
    input_ids = torch.zeros(len(rows), length, dtype=torch.long)
    position_ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.eye(length, dtype=torch.bool).repeat(len(rows), 1, 1)
    for b, row in enumerate(rows):
        start, end = len(row.prompt_T), row.num_tokens
        input_ids[b, :end] = torch.tensor([*row.prompt_T, *row.trie.tokens])
        position_ids[b, :start] = torch.arange(start)
        position_ids[b, start:end] = start + torch.tensor(row.trie.depths, dtype=torch.long)
        mask[b, :start, :start] = torch.ones(start, start, dtype=torch.bool).tril()
        mask[b, start:end, :start] = True
        for node, parent in enumerate(row.trie.parents):
            if parent >= 0:
                mask[b, start + node, start:end] |= mask[b, start + parent, start:end]
    return input_ids.to(device), position_ids.to(device), mask.unsqueeze(1).to(device)


def _edges(rows: Sequence[Row], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(row, position of the predicting token, predicted token) of every edge of the batch."""
    batch_index = [b for b, row in enumerate(rows) for _ in row.trie.sources]
    source = [len(row.prompt_T) + node for row in rows for node in row.trie.sources]
    target = [token for row in rows for token in row.trie.targets]
    batch_index_E, source_E, target_E = (
        torch.tensor(values, device=device) for values in (batch_index, source, target)
    )
    return batch_index_E, source_E, target_E


def _log_probabilities(head: Any, hidden_E: torch.Tensor, target_E: torch.Tensor) -> torch.Tensor:
    """log p(target | hidden) in float32, projecting a bounded number of rows at a time."""
    parts = []
    for start in range(0, len(target_E), PROJECTED_ROWS):
        logits = _project(head, hidden_E[start : start + PROJECTED_ROWS])
        chosen = logits.gather(1, target_E[start : start + PROJECTED_ROWS, None]).squeeze(1)
        parts.append(chosen - logits.logsumexp(dim=1))
    return torch.cat(parts)


def _parts(model: Any) -> tuple[Any, Any, Any]:
    """The causal LM below any adapters, its transformer, and its output embedding."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    return causal, causal.base_model, causal.get_output_embeddings()


def _reach(model: Any) -> int | None:
    """How many tokens back every layer sees; None for all of them."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds - {"full_attention", "sliding_attention"}:
        raise BackendError(
            f"{type(model).__name__} has layers of kind {', '.join(sorted(kinds))}; exact scoring needs attention in "
            "each, because candidates share one row. Choose another model, or rank with --method generate."
        )
    slides = "sliding_attention" in kinds if kinds else getattr(config, "use_sliding_window", True)
    window: int | None = getattr(config, "sliding_window", None)
    return window if slides else None


def _project(head: Any, hidden_E: torch.Tensor) -> torch.Tensor:
    """Logits in float32; a head of another number format is multiplied in float32 too, not rounded afterwards."""
    if type(head) is torch.nn.Linear and head.weight.dtype != torch.float32:
        bias = None if head.bias is None else head.bias.float()
        return torch.nn.functional.linear(hidden_E.float(), head.weight.float(), bias)
    logits: torch.Tensor = head(hidden_E).float()
    return logits
