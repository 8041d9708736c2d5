"""Sampled thoughts are those of plain forward passes, whatever a model is made of and whoever is in the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from chat_families import family_tokenizer
from thinking import naive_thought
from tiny_architectures import tiny_model

from mllmrec.data.draws import generator
from mllmrec.models.base import Thought
from mllmrec.models.chat import Chat
from mllmrec.models.huggingface import MarkedDecoder
from mllmrec.models.scoring import HuggingFaceScorer
from mllmrec.models.thinking import HuggingFaceThinker

PROMPTS = ("<|im_start|>a<|im_end|>", "<|im_start|>abcdefghijklmnopqrstuvwxyz<|im_end|>", "<|im_start|>")
LONGEST = 12


@pytest.fixture(scope="module")
def chat() -> Chat:
    return Chat(family_tokenizer("qwen3"))


def thinker_of(model: Any, chat: Chat, fault: str | None = None) -> HuggingFaceThinker:
    scorer = HuggingFaceScorer(model)
    if fault is not None:
        scorer.cache_fault = lambda _prompt: fault  # type: ignore[method-assign]
    return HuggingFaceThinker(scorer, chat, MarkedDecoder(chat.tokenizer).decode)


def draws(count: int) -> list[list[Any]]:
    return [[iter(generator(7, "test", f"{p}/{n}").random, None) for n in range(count)] for p in range(len(PROMPTS))]


@pytest.mark.parametrize("name", ["qwen3", "mistral", "gemma2", "qwen3_next", "lfm2", "mamba2"])
def test_thoughts_are_those_of_plain_forward_passes(name: str, chat: Chat) -> None:
    model = tiny_model(name, vocab_size=len(chat.tokenizer))
    prompts = [chat.encode(text) for text in PROMPTS]
    thoughts = thinker_of(model, chat).think(prompts, draws(2), max_tokens=LONGEST)
    expected = [
        [naive_thought(model, chat, prompt, numbers, LONGEST) for numbers in own]
        for prompt, own in zip(prompts, draws(2), strict=True)
    ]
    assert thoughts == expected
    assert len({thought.text for own in thoughts for thought in own}) > 3


def test_without_a_cache_thoughts_are_the_same(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_model("qwen3", vocab_size=len(chat.tokenizer))
    prompts = [chat.encode(text) for text in PROMPTS]
    slow = thinker_of(model, chat, fault="it forgets").think(prompts, draws(1), max_tokens=LONGEST)
    assert "thoughts are read anew for each token: it forgets" in capsys.readouterr().err
    assert slow == thinker_of(model, chat).think(prompts, draws(1), max_tokens=LONGEST)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("warm\n</think>\n\n[ITEM_1]", Thought(text="warm", tokens=6, finished=True)),
        ("warm<|im_end|>", Thought(text="warm", tokens=5, finished=False)),
        ("warm and slow", Thought(text="warm and", tokens=9, finished=False)),
        ("<|im_start|>a", Thought(text="a", tokens=9, finished=False)),
    ],
)
def test_a_thought_ends_with_its_mark_with_the_answer_or_at_its_bound(
    written: str, expected: Thought, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's last layer is replaced: its next token is the one that stands next in what it has to write."""
    model = tiny_model("qwen3", vocab_size=len(chat.tokenizer))
    thinker = thinker_of(model, chat)
    script = [*chat.encode(written), *chat.encode(" " * LONGEST)]
    steps = iter(script * 9)

    def logits(_scorer: HuggingFaceScorer, hidden_RT: torch.Tensor) -> torch.Tensor:
        logits_RV = torch.full((len(hidden_RT), len(chat.tokenizer)), -1e9)
        logits_RV[:, next(steps)] = 0.0
        return logits_RV

    monkeypatch.setattr(HuggingFaceScorer, "logits", logits)
    [own, other] = thinker.think(
        [chat.encode("a"), chat.encode("abc")], [[iter([0.3] * 9)], [iter([0.9] * 9)]], max_tokens=9
    )
    assert own == other == [expected]
