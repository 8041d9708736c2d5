"""Every kind of causal LM is scored as one forward pass for each answer scores it, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from peft import get_peft_model
from small_models import naive_scores
from tiny_architectures import TINY

from mllmrec.errors import BackendError
from mllmrec.models.base import ScoringTask
from mllmrec.models.costs import Layout
from mllmrec.models.scoring import HuggingFaceScorer
from mllmrec.models.tries import make_rows
from mllmrec.training.lora_targets import find_targets

END, WINDOW = 1, 16
EXACT, ROUNDED = 2e-3, 0.35
"""Nats a whole answer, in float32 and in bfloat16: the tiny models' weights are wide, and their logits large."""
NO_CACHE = ("mamba2", "jamba")
"""They go on from a state one token at a time only, so that each answer is read behind a prompt of its own."""
FLOAT32_ONLY = ("mamba2",)
"""Its own code mixes number formats."""
IDS = ([20, 22, 21, 40, END], [20, 22, 23, 21, 41, END], [20, 22, 23, 24, 21, 42, 43, END])
"""Ids that are prefixes of one another (1, 12, 123), in brackets, with titles behind them."""


def tasks(*lengths: int) -> list[ScoringTask]:
    return [
        ScoringTask(prompt_T=[(7 * place + length) % 90 + 5 for place in range(length)], answers_C=answers)
        for length, answers in zip(lengths, (IDS, IDS[1:], [*IDS, [20, END], [9, 8, END]]), strict=True)
    ]


SHORT, RAGGED = tasks(5, 5, 5), tasks(37, 9, 21)
"""All within the window of those that have one; and longer than it, each of another length."""


def scored(model: Any, batch: Sequence[ScoringTask], layout: Any = "auto", max_tokens: int = 4096) -> list[list[float]]:
    found = dict(HuggingFaceScorer(model, max_tokens, layout=layout).score(batch))
    return [found[index] for index in range(len(batch))]


def is_close(model: Any, batch: Sequence[ScoringTask], found: Sequence[Sequence[float]], within: float = EXACT) -> bool:
    expected = [naive_scores(model, task.prompt_T, task.answers_C) for task in batch]
    pairs = [pair for row, own in zip(found, expected, strict=True) for pair in zip(row, own, strict=True)]
    assert pairs
    return all(abs(one - other) <= within for one, other in pairs)


@pytest.fixture(scope="module", params=list(TINY))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(name: str) -> Any:
    return TINY[name](vocab_size=128)


def test_scores_are_those_of_single_forward_passes(model: Any) -> None:
    """Within the window and beyond it, in a ragged batch and in small ones."""
    for batch in (SHORT, RAGGED, RAGGED[1:2]):
        assert is_close(model, batch, scored(model, batch))
    assert is_close(model, RAGGED, scored(model, RAGGED, max_tokens=24))


def test_whatever_layout_is_asked_for(name: str, model: Any) -> None:
    assert is_close(model, RAGGED[1:], scored(model, RAGGED[1:], "apart"))
    if name not in NO_CACHE:
        assert is_close(model, RAGGED, scored(model, RAGGED, "cache"))
        assert is_close(model, SHORT, scored(model, SHORT, "cache", max_tokens=10))


def test_with_adapters(name: str) -> None:
    base = TINY[name](vocab_size=128)
    torch.manual_seed(1)
    adapted = get_peft_model(base, find_targets(base).config(r=4, lora_alpha=8, init_lora_weights=False)).eval()
    found = scored(adapted, RAGGED)
    assert is_close(adapted, RAGGED, found)
    with adapted.disable_adapter():
        assert not is_close(adapted, RAGGED, found)


def test_in_bfloat16(name: str) -> None:
    model = TINY[name](vocab_size=128).to(torch.bfloat16)
    if name in FLOAT32_ONLY:
        with pytest.raises(BackendError, match=r"Mamba2ForCausalLM can't read a text .* same dtype"):
            scored(model, RAGGED)
        return
    found = scored(model, RAGGED)
    single = scored(model, RAGGED, "apart")
    assert all(
        abs(a - b) <= ROUNDED * max(1, abs(b) / 8)
        for one, other in zip(found, single, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def test_gradients_are_those_of_single_forward_passes(model: Any) -> None:
    task = RAGGED[2]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    scorer = HuggingFaceScorer(model)
    [scores_C] = scorer.differentiable(make_rows([task]), model)
    found = torch.autograd.grad(scores_C.logsumexp(0), weights, allow_unused=True)
    rows = [[*task.prompt_T, *answer] for answer in task.answers_C]
    plain = []
    for row, answer in zip(rows, task.answers_C, strict=True):
        logp_TV = model(input_ids=torch.tensor([row]), use_cache=False).logits[0].float().log_softmax(-1)
        plain.append(logp_TV[range(len(task.prompt_T) - 1, len(row) - 1), list(answer)].sum())
    expected = torch.autograd.grad(torch.stack(plain).logsumexp(0), weights, allow_unused=True)
    compared = 0
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            compared += 1
            scale = max(1.0, float(theirs.abs().max()))
            torch.testing.assert_close(mine / scale, theirs / scale, atol=2e-3, rtol=2e-2)
    assert compared > 5


LAYOUTS: list[Layout] = ["tree", "cache", "apart"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_common_beginning_is_read_once_and_changes_no_score(layout: Layout) -> None:
    model = TINY["qwen3"](vocab_size=128)
    start = [(5 * place) % 80 + 10 for place in range(20)]
    batch = [ScoringTask(prompt_T=[*start, *task.prompt_T], answers_C=task.answers_C) for task in RAGGED]
    assert is_close(model, batch, scored(model, batch, layout))
    widths: list[int] = []
    hook = model.model.register_forward_pre_hook(
        lambda _module, _args, given: widths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    scorer = HuggingFaceScorer(model, layout=layout)
    dict(scorer.score(batch))  # The first time the longest prompt is compared with plain passes as well.
    widths.clear()
    dict(scorer.score(batch))
    hook.remove()
    if layout == "cache":
        assert widths[:2] == [20, 37 + 2], "the beginning, and the longest prompt with what its answers begin with"
