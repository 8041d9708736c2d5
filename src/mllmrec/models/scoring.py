"""Exact scores of all candidates of a user.

    score(answer) = sum over its tokens of log p(token | prompt, tokens before it)      [nats]

The answers of one prompt form a trie, so that what they share is computed once. There are three layouts of prompts and
tries in forward passes, which give the same numbers but for rounding:

* `tree`: the trie in one row with its prompt, under a mask (tree_layout.py). For models whose layers all attend.
* `cache`: the answers in rows of their own behind copies of the prompt's cache (cache_layout.py). For models with
  sliding windows, however long the prompt, and with recurrent or convolutional layers.
* `apart`: each answer in a row with a prompt of its own. Slow; for models that can't go on from a cache.

Probes compare a layout with plain forward passes before it is used, and so does each prompt that is longer than those
before: how far a model's layers see shows in long prompts alone. The vocabulary projection runs at the nodes that
something follows, the log-softmax in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, Literal, Protocol

import torch

from mllmrec.errors import BackendError, UnscorableError
from mllmrec.models.base import ScoringTask, Tokens
from mllmrec.models.cache_layout import read_apart, read_from_cache
from mllmrec.models.costs import Costs, Layout
from mllmrec.models.logits import LogitMap, find_map, log_probabilities, project
from mllmrec.models.positions import causal_lm, is_recurrent, sliding_window, unshareable, verify_scaling
from mllmrec.models.tree_layout import read_after_prompts, read_whole
from mllmrec.models.tries import Row, make_rows, plan_batches
from mllmrec.progress import note

LAYOUTS: tuple[Layout, ...] = ("tree", "cache", "apart")
CPU_TOKENS = 2048
PROBES = (
    ScoringTask(prompt_T=[2, 3, 4, 5, 6, 7], answers_C=[[5, 4, 3, 2], [5, 4, 2, 3, 6], [3, 2]]),
    ScoringTask(prompt_T=[7, 3, 5, 2, 6, 4, 3, 2, 5], answers_C=[[5, 4, 3, 2], [5, 4, 2, 6]]),
)
EXACT, ROUNDED = (1e-3, 1e-3), (0.25, 0.02)
"""Differences of a probe that are due to rounding, in nats and relative: in float32, and in shorter number formats."""
LONG_ROUNDED = (1.0, 0.05)
"""The same of a long prompt in a shorter number format, whose layers round more often."""
FAILURES = (TypeError, ValueError, LookupError, AttributeError, RuntimeError, AssertionError)
"""What a model raises that can't take its input as a layout hands it over."""


class Read(Protocol):
    """A layout: hidden states (1 + nodes, width) of each row, of its prompt's last token and of its trie's nodes."""

    def __call__(self, model: Any, rows: Sequence[Row]) -> list[torch.Tensor]: ...


class HuggingFaceScorer:
    """A [`CandidateScorer`][mllmrec.models.base.CandidateScorer] over a transformers causal LM, adapters included.

    `max_tokens` bounds a batch, padding included; on a CPU, where larger batches only leave its caches, at most 2,048
    are taken. Logits are divided by `temperature`, as sampling at that temperature does. The layout is the cheapest
    that suits the model and the row (a tree of more than `max_tokens` gives way to the cache), or the one that is asked
    for.

    Raises UnscorableError, rather than score wrongly, for a model whose logits are something unknown of its last hidden
    state, for one that no layout reads as plain forward passes do, and for a layout that was asked for and doesn't
    suit; BackendError for rows longer than positions are the same in every batch.
    """

    def __init__(
        self, model: Any, max_tokens: int = 8192, temperature: float = 1.0, layout: Layout | Literal["auto"] = "auto"
    ) -> None:
        self.model, self.temperature, self.layout = model, temperature, layout
        self.max_tokens = min(max_tokens, CPU_TOKENS) if model.device.type == "cpu" else max_tokens
        self.largest_tree = max_tokens
        self.window = sliding_window(model)
        self._name = type(causal_lm(model)).__name__
        self._costs = Costs.of(model)
        self._faults: dict[Layout, str] = {}
        self._verified: dict[Layout, int] = {}
        if reason := unshareable(model):
            self._faults["tree"] = f"{self._name} {reason}"
        self.logit_map, expected = self._read_plainly()
        asked: Sequence[Layout] = LAYOUTS if layout == "auto" else (layout,)
        if all(self._fault(each, expected) for each in asked):
            raise self._unsuited()

    def score(self, tasks: Sequence[ScoringTask]) -> Iterator[tuple[int, list[float]]]:
        rows = make_rows(tasks)
        for layout, chosen in self._by_layout(rows, LAYOUTS):
            for batch in plan_batches(chosen, self.max_tokens):
                with evaluating(self.model):
                    scores = self._score(self.model, batch, layout)
                for row, scores_C in zip(batch, scores, strict=True):
                    yield row.index, scores_C.tolist()

    def differentiable(self, rows: Sequence[Row], model: Any) -> list[torch.Tensor]:
        """The scores of each row's answers, float32, in order, for gradients to go through.

        `model` is the scorer's own, with what a trainer has put on or around it.
        """
        causal = causal_lm(model)
        keeps_keys = not is_recurrent(model) and not (causal.is_activation_checkpointing and causal.training)
        scores: dict[int, torch.Tensor] = {}
        for layout, chosen in self._by_layout(rows, LAYOUTS if keeps_keys else ("tree", "apart")):
            found = self._score(model, chosen, layout)
            scores |= {id(row): scores_C for row, scores_C in zip(chosen, found, strict=True)}
        return [scores[id(row)] for row in rows]

    def cache_fault(self, prompt_T: Tokens) -> str:
        """In what reading on from a prompt's cache differs from plain forward passes, in words; empty if in nothing."""
        [row] = make_rows([ScoringTask(prompt_T=prompt_T, answers_C=PROBES[0].answers_C)])
        return self._fault("cache") or self._fault_of_longest("cache", [row])

    def logits(self, hidden_RT: torch.Tensor) -> torch.Tensor:
        """The logits (..., V) of last hidden states (..., width), float32, temperature left aside."""
        return self.logit_map(project(causal_lm(self.model).get_output_embeddings(), hidden_RT))

    def verify_lengths(self, rows: Sequence[Row]) -> None:
        """Raise BackendError for rows that the layout asked for can't read, or that would change those beside them."""
        lengths = [_length(row) for row in rows]
        verify_scaling(self.model, max(lengths, default=0))
        if self.layout == "tree" and self.window is not None and max(lengths, default=0) > self.window:
            raise BackendError(
                f"A prompt with its answer takes {max(lengths)} tokens and {self._name} has a sliding window of "
                f"{self.window} tokens, beyond which --layout tree can't read it. Leave --layout out, or lower "
                "--max-prompt-tokens."
            )

    def _unsuited(self) -> UnscorableError:
        reasons = "; ".join(dict.fromkeys(filter(None, self._faults.values())))
        return UnscorableError(f"{reasons}, so that exact scores by --layout {self.layout} would be wrong.")

    def _by_layout(self, rows: Sequence[Row], allowed: Sequence[Layout]) -> Iterator[tuple[Layout, list[Row]]]:
        """The rows of each layout. A row's depends on itself alone, whatever stands beside it."""
        self.verify_lengths(rows)
        layouts = [self._layout_of(row, allowed) for row in rows]
        while any(self._fault_of_longest(layout, _of(layout, rows, layouts)) for layout in LAYOUTS):
            layouts = [self._layout_of(row, allowed) for row in rows]
        for layout in LAYOUTS:
            if chosen := _of(layout, rows, layouts):
                yield layout, chosen

    def _fault_of_longest(self, layout: Layout, rows: Sequence[Row]) -> str:
        """In what a layout differs from plain forward passes, on an answer of the longest row beside a short probe.

        No length is compared twice. The layout isn't used again where it differs. Raises UnscorableError where it was
        asked for.
        """
        row = max(rows, key=_length, default=None)
        if row is None or _length(row) <= self._verified.get(layout, 0):
            return ""
        self._verified[layout] = _length(row)
        answer = [row.trie.targets[edge] for edge in row.trie.paths[0]]
        # Beside it one that begins otherwise: what answers share is read with the prompt.
        other = next(own for own in PROBES[0].answers_C if own[0] != answer[0])
        tasks = [ScoringTask(prompt_T=row.prompt_T, answers_C=[answer, other]), PROBES[0]]
        alone = [ScoringTask(prompt_T=task.prompt_T, answers_C=[own]) for task in tasks for own in task.answers_C]
        with evaluating(self.model), torch.autocast(self.model.device.type, enabled=False):
            expected = torch.cat([_one_by_one(self.model, task)[2] for task in alone])
            found = torch.cat(self._score(self.model, make_rows(tasks), layout, 1.0))
        where = f"in a batch with a prompt of {len(row.prompt_T)} tokens"
        if fault := self._difference(layout, found, expected, LONG_ROUNDED, where):
            self._faults[layout] = fault
            if self.layout == layout:
                raise self._unsuited()
        return fault

    def _layout_of(self, row: Row, allowed: Sequence[Layout]) -> Layout:
        """The cheapest layout that is allowed, suits the model and reaches over the whole row."""
        if self.layout != "auto":
            if self.layout not in allowed:
                raise UnscorableError(f"No gradients go through {self._name} by the {self.layout} layout.")
            return self.layout
        is_seen = self.window is None or _length(row) <= self.window
        possible = [layout for layout in allowed if layout == "cache" or (layout == "tree" and is_seen)]
        ordered = self._costs.cheapest_first(row, possible)
        if row.num_tokens > self.largest_tree:
            ordered.sort(key=lambda each: each == "tree")
        layout: Layout | None = next((each for each in (*ordered, "apart") if not self._fault(each)), None)
        if layout is None:
            raise self._unsuited()
        if layout != "tree":
            reason = f"{self._name} has a sliding window of {self.window} tokens" if not is_seen else ""
            if layout == "apart":
                reason = self._faults.get("cache", "") or reason
            _tell(layout, reason or self._faults["tree"] or "it is the better one for so many candidates")
        return layout

    def _score(
        self, model: Any, rows: Sequence[Row], layout: Layout, temperature: float | None = None
    ) -> list[torch.Tensor]:
        if layout == "tree":
            read: Read = read_after_prompts if self.window is None else read_whole
        else:
            read = partial(read_from_cache if layout == "cache" else read_apart, max_tokens=self.max_tokens)
        warmth = self.temperature if temperature is None else temperature
        return score_rows(model, rows, read, temperature=warmth, logit_map=self.logit_map)

    def _read_plainly(self) -> tuple[LogitMap, list[torch.Tensor]]:
        """What the model makes of its logits, and the scores of the probes by plain forward passes."""
        found, scores = LogitMap(), []
        for probe in PROBES:
            try:
                with evaluating(self.model), torch.autocast(self.model.device.type, enabled=False):
                    logits, projected, expected = _one_by_one(self.model, probe)
            except torch.OutOfMemoryError:
                raise
            except FAILURES as error:
                message = " ".join(str(error).split())
                raise UnscorableError(
                    f"{self._name} can't read a text as exact scoring hands it over ({message})."
                ) from error
            mapping = find_map(self.model.config.get_text_config(), projected, logits)
            if mapping is None:
                raise UnscorableError(
                    f"{self._name} changes its logits after the output embedding in a way that exact scoring doesn't "
                    "know."
                )
            scores.append(expected)
            found = mapping
        return found, scores

    def _fault(self, layout: Layout, expected: Sequence[torch.Tensor] | None = None) -> str:
        """In what a layout differs from plain forward passes on the probes; empty where it doesn't. Found out once."""
        if layout not in self._faults:
            expected = self._read_plainly()[1] if expected is None else expected
            with evaluating(self.model), torch.autocast(self.model.device.type, enabled=False):
                self._faults[layout] = self._fault_of_probes(layout, expected)
        return self._faults[layout]

    def _fault_of_probes(self, layout: Layout, expected: Sequence[torch.Tensor]) -> str:
        try:
            scores = [*self._score(self.model, make_rows(PROBES[:1]), layout, 1.0)]
            scores += self._score(self.model, make_rows(PROBES), layout, 1.0)
        except torch.OutOfMemoryError:
            raise
        except FAILURES as error:
            return f"{self._name} can't read candidates by the {layout} layout ({' '.join(str(error).split())})"
        pairs = zip(scores, [expected[0], *expected], strict=True)
        differences = (self._difference(layout, found, wanted, ROUNDED, "on a probe") for found, wanted in pairs)
        return next(filter(None, differences), "")

    def _difference(
        self, layout: Layout, found: torch.Tensor, expected: torch.Tensor, rounded: tuple[float, float], where: str
    ) -> str:
        """The difference of two scores of the same answers in words; empty where it is due to rounding.

        `rounded` is what a shorter number format than float32 may make of it, in nats and relative.
        """
        is_rounded = self.model.dtype != torch.float32 or getattr(causal_lm(self.model), "is_quantized", False)
        atol, rtol = rounded if is_rounded else EXACT
        if torch.allclose(found, expected, atol=atol, rtol=rtol):
            return ""
        return (
            f"{self._name} scores candidates by the {layout} layout otherwise than each alone (by up to "
            f"{(found - expected).abs().max():.2g} nats {where})"
        )


def _of(layout: Layout, rows: Sequence[Row], layouts: Sequence[Layout]) -> list[Row]:
    """The rows that a layout reads."""
    return [row for row, own in zip(rows, layouts, strict=True) if own == layout]


def _length(row: Row) -> int:
    """The tokens of a prompt with its longest answer."""
    return len(row.prompt_T) + max(map(len, row.trie.paths))


@cache
def _tell(layout: Layout, reason: str) -> None:
    """Once: by which layout candidates are scored, where it isn't the usual one."""
    note(f"scoring by the {layout} layout: {reason}")


def _one_by_one(model: Any, task: ScoringTask) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (B, T, V) of the answers in rows of their own, what the head makes of hidden states, and their scores."""
    causal = causal_lm(model)
    decoder, head = causal.get_decoder(), causal.get_output_embeddings()
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


PLAIN_LOGITS = LogitMap()


def score_rows(
    model: Any,
    rows: Sequence[Row],
    read: Read = read_whole,
    *,
    temperature: float = 1.0,
    logit_map: LogitMap = PLAIN_LOGITS,
) -> list[torch.Tensor]:
    """The scores of each row's answers, float32, in order, by one layout; differentiable when gradients are on."""
    head = causal_lm(model).get_output_embeddings()
    hidden_E = torch.cat(
        [
            hidden_N[torch.tensor([1 + node for node in row.trie.sources], device=hidden_N.device)]
            for hidden_N, row in zip(read(model, rows), rows, strict=True)
        ]
    )
    target_E = torch.tensor([token for row in rows for token in row.trie.targets], device=hidden_E.device)
    logp_E = log_probabilities(head, hidden_E, target_E, logit_map, temperature)
    scores, offset = [], 0
    for row in rows:
        logp = logp_E[offset : offset + len(row.trie.targets)]
        offset += len(row.trie.targets)
        scores.append(torch.stack([logp[path].sum() for path in row.trie.paths]))
    return scores
