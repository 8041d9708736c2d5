"""Exact scores of all candidates from one forward pass for each user.

The answers of one prompt form a trie: what they share (`[ITEM_1` of 12 and 123) is one node, computed once. A row is
the prompt followed by the trie's inner nodes. A node sees the prompt, its ancestors and itself, and its position is
that of the token it would be in its own answer, so that the row gives the same numbers as one forward pass for each
answer would. Where it can be, the prompt is read first, only as far as its last layer's keys and values, and its
last token with the trie after it. Leaves need no input: the end token is only predicted. The vocabulary projection runs
at the nodes that something follows, the log-softmax in float32.

    score(answer) = sum over its tokens of log p(token | prompt, tokens before it)      [nats]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mllmrec.errors import BackendError
from mllmrec.models.base import ScoringTask
from mllmrec.models.positions import ADVICE, PromptCache, causal_lm, reach, verify_scaling
from mllmrec.models.tries import Row, make_rows, plan_batches

PROJECTED_ROWS = 2048
CPU_TOKENS, CPU_PROJECTED_ROWS = 2048, 512
PROBE = ScoringTask(prompt_T=[2, 3, 4, 5, 6, 7], answers_C=[[5, 4, 3, 2], [5, 4, 2, 3, 6], [3, 2]])
EXACT, ROUNDED = (1e-3, 1e-3), (0.25, 0.02)
"""Differences of a probe that are due to rounding, in nats and relative: in float32, and in shorter number formats."""


class HuggingFaceScorer:
    """A [`CandidateScorer`][mllmrec.models.base.CandidateScorer] over a transformers causal LM, adapters included.

    `max_tokens` bounds a batch, padding included; on a CPU, where larger batches only leave its caches, at most 2,048
    are taken. Logits are divided by `temperature`, as sampling at that temperature does. Raises BackendError, rather
    than score wrongly, for a model whose logits aren't its output embedding times its last hidden state (soft-capped or
    scaled logits), for one whose layers can't take answers that share a row (positions.py), which a probe makes sure
    of, and for rows longer than a sliding window or than positions are the same in every batch.
    """

    def __init__(self, model: Any, max_tokens: int = 8192, temperature: float = 1.0) -> None:
        self.model, self.temperature = model, temperature
        self.max_tokens = min(max_tokens, CPU_TOKENS) if model.device.type == "cpu" else max_tokens
        self.reach = reach(model)
        with evaluating(model), torch.autocast(model.device.type, enabled=False):
            self._verify_by_probe()

    def score(self, tasks: Sequence[ScoringTask]) -> Iterator[tuple[int, list[float]]]:
        rows = make_rows(tasks)
        self.verify_lengths(rows)
        for batch in plan_batches(rows, self.max_tokens):
            with evaluating(self.model):
                scores = score_rows(self.model, batch, cached=self.reach is None, temperature=self.temperature)
            for row, scores_C in zip(batch, scores, strict=True):
                yield row.index, scores_C.tolist()

    def _verify_by_probe(self) -> None:
        """Compare logits with the output embedding of hidden states, and answers in one row with answers alone."""
        [row] = make_rows([PROBE])
        name = type(causal_lm(self.model)).__name__
        try:
            logits, projected, expected = _one_by_one(self.model, PROBE)
            scores = score_rows(self.model, [row], cached=self.reach is None)[0]
        except torch.OutOfMemoryError:
            raise
        except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
            message = " ".join(str(error).split())
            raise BackendError(
                f"{name} can't read candidates that share one row, as exact scoring has them ({message}). {ADVICE}"
            ) from error
        if not torch.allclose(projected.float(), logits.float(), atol=1e-3, rtol=1e-3):
            raise BackendError(
                f"{name} changes its logits after the output embedding (a soft cap or a scale), which exact scoring "
                f"doesn't support. {ADVICE}"
            )
        is_rounded = self.model.dtype != torch.float32 or getattr(causal_lm(self.model), "is_quantized", False)
        atol, rtol = ROUNDED if is_rounded else EXACT
        if not torch.allclose(scores, expected, atol=atol, rtol=rtol):
            raise BackendError(
                f"{name} scores candidates that share one row otherwise than each alone (by up to "
                f"{(scores - expected).abs().max():.2g} nats on a probe), so that exact scores would be wrong. {ADVICE}"
            )

    def verify_lengths(self, rows: Sequence[Row]) -> None:
        """Raise BackendError for a row that a sliding window would cut, or that would change those beside it."""
        longest = max((len(row.prompt_T) + max(map(len, row.trie.paths)) for row in rows), default=0)
        if self.reach is not None and longest > self.reach:
            raise BackendError(
                f"A prompt with its answer takes {longest} tokens and {type(self.model).__name__} has a sliding window "
                f"of {self.reach} tokens, beyond which exact scoring doesn't support it. Lower --max-prompt-tokens, "
                "choose another model, or rank with --method generate."
            )
        verify_scaling(self.model, longest)


def _one_by_one(model: Any, task: ScoringTask) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (B, T, V) of the answers in rows of their own, what the head makes of hidden states, and their scores."""
    causal, decoder, head = _parts(model)
    width = max(map(len, task.answers_C))
    rows = [[*task.prompt_T, *answer, *[0] * (width - len(answer))] for answer in task.answers_C]
    hidden: list[torch.Tensor] = []
    hook = decoder.register_forward_hook(lambda _module, _inputs, output: hidden.append(output.last_hidden_state))
    try:
        # The class's own forward: a trainer wraps the instance's, in autocast for one.
        given = torch.tensor(rows, device=model.device)
        logits = type(causal).forward(causal, input_ids=given, use_cache=False).logits
    finally:
        hook.remove()
    logp_BTV, start = logits.float().log_softmax(dim=-1), len(task.prompt_T) - 1
    scores = [
        logp_TV[range(start, start + len(answer)), list(answer)].sum()
        for logp_TV, answer in zip(logp_BTV, task.answers_C, strict=True)
    ]
    return logits, head(hidden[0]), torch.stack(scores)


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


def score_rows(
    model: Any, rows: Sequence[Row], *, cached: bool = False, temperature: float = 1.0
) -> list[torch.Tensor]:
    """The scores of each row's answers, float32, in order; differentiable when gradients are on.

    `cached` reads the prompts first, causally, and the trees after them from their keys and values: about half the
    attention, for models that keep every key. Where activations are checkpointed none is kept, and it changes nothing.
    """
    causal, decoder, head = _parts(model)
    keeps_keys = cached and not (causal.is_activation_checkpointing and causal.training)
    read = _in_two_parts if keeps_keys and min(len(row.prompt_T) for row in rows) > 1 else _in_one
    hidden_BT, roots_B = read(decoder, rows, model)
    batch_index, source, target = _edges(rows, roots_B, model.device)
    logp_E = _log_probabilities(head, hidden_BT[batch_index, source], target, temperature)
    scores, offset = [], 0
    for row in rows:
        logp = logp_E[offset : offset + len(row.trie.targets)]
        offset += len(row.trie.targets)
        scores.append(torch.stack([logp[path].sum() for path in row.trie.paths]))
    return scores


def _in_one(decoder: Any, rows: Sequence[Row], model: Any) -> tuple[torch.Tensor, list[int]]:
    """Hidden states (B, T, width) of prompts and trees in one pass, and where each row's prompt ends."""
    input_ids, position_ids, mask = collate(rows, model.device)
    hidden_BT = decoder(
        input_ids=input_ids, position_ids=position_ids, attention_mask=additive(mask, model.dtype), use_cache=False
    ).last_hidden_state
    return hidden_BT, [len(row.prompt_T) - 1 for row in rows]


def _in_two_parts(decoder: Any, rows: Sequence[Row], model: Any) -> tuple[torch.Tensor, list[int]]:
    """Hidden states (B, 1 + N, width) of the prompts' last tokens and the trees, read after the rest of the prompts."""
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
    return hidden_BT, [0] * len(rows)


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


def _tensor(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array).to(device)


def additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The mask as something to add to attention logits; each layer would otherwise turn a boolean one into that."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def _edges(
    rows: Sequence[Row], roots_B: Sequence[int], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(row, position of the predicting token, predicted token) of every edge; node -1 is at `roots_B`."""
    batch_index = [b for b, row in enumerate(rows) for _ in row.trie.sources]
    source = [root + 1 + node for root, row in zip(roots_B, rows, strict=True) for node in row.trie.sources]
    target = [token for row in rows for token in row.trie.targets]
    batch_index_E, source_E, target_E = (
        torch.tensor(values, device=device) for values in (batch_index, source, target)
    )
    return batch_index_E, source_E, target_E


def _log_probabilities(
    head: Any, hidden_E: torch.Tensor, target_E: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """log p(target | hidden) in float32, projecting a bounded number of rows at a time."""
    at_once = min(PROJECTED_ROWS, CPU_PROJECTED_ROWS) if hidden_E.device.type == "cpu" else PROJECTED_ROWS
    parts = []
    for start in range(0, len(target_E), at_once):
        logits_EV = _project(head, hidden_E[start : start + at_once])
        if temperature != 1.0:
            logits_EV = logits_EV / temperature
        parts.append(-torch.nn.functional.cross_entropy(logits_EV, target_E[start : start + at_once], reduction="none"))
    return torch.cat(parts)


def _parts(model: Any) -> tuple[Any, Any, Any]:
    """The causal LM, its transformer, and its output embedding."""
    causal = causal_lm(model)
    return causal, causal.get_decoder(), causal.get_output_embeddings()


def _project(head: Any, hidden_E: torch.Tensor) -> torch.Tensor:
    """Logits in float32; a head of another number format is multiplied in float32 too, not rounded afterwards.

    A trainer's autocast would round them again, so it is off here.
    """
    if type(head) is torch.nn.Linear:
        bias = None if head.bias is None else head.bias.float()
        with torch.autocast(hidden_E.device.type, enabled=False):
            return torch.nn.functional.linear(hidden_E.float(), head.weight.float(), bias)
    logits: torch.Tensor = head(hidden_E).float()
    return logits
