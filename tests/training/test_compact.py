"""What a step leaves out changes the time, not the loss or the gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from small_models import random_model
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from trl.trainer import utils as trl_utils
from trl.trainer.utils import add_fused_lm_head

from mllmrec.models import private_names
from mllmrec.models.base import ScoringTask
from mllmrec.models.scoring import HuggingFaceScorer
from mllmrec.training.compact import FEW_LAYERS, IGNORED, answers_last, answers_only, without_padding_mask


def loss_and_gradients(model: torch.nn.Module, ids: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    loss = model(input_ids=ids, labels=labels, fused_lm_head=True).loss
    loss.backward()
    return [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


def small_model(num_layers: int = 2, **knobs: Any) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=97,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=num_layers,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            **knobs,
        )
    )


def test_loss_and_gradients_are_those_of_the_whole_projection() -> None:
    model = small_model()
    add_fused_lm_head(model)
    ids = torch.randint(0, 97, (3, 20))
    labels = ids.clone()
    labels[:, :15] = -100
    labels[1, 17:] = -100
    whole = loss_and_gradients(model, ids, labels)
    with answers_only():
        compact = loss_and_gradients(model, ids, labels)
    for expected, found in zip(whole, compact, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_the_switch_is_put_back() -> None:
    before = trl_utils._use_triton
    with answers_only():
        assert trl_utils._use_triton is not before
    assert trl_utils._use_triton is before


def test_another_version_of_a_library_trains_the_slow_way_to_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is replaced in a version that it wasn't tried with, and a note says so, once."""
    model, rows = fused(small_model()), PaddedRows()
    before, lengths = trl_utils._use_triton, lengths_read(model)
    whole = rows.step(model)
    private_names.replaceable.cache_clear()
    monkeypatch.setattr(private_names, "version", lambda _library: "99.1.0")
    for _ in range(2):
        with answers_only(), without_padding_mask(model), answers_last(model):
            assert trl_utils._use_triton is before
            slow = rows.step(model)
    private_names.replaceable.cache_clear()
    assert set(lengths) == {20}
    assert_alike(slow, whole)
    said = capsys.readouterr().err
    assert said.count("trl 99.1.0 isn't a version that projecting labelled positions alone") == 1
    assert said.count("transformers 99.1.0 isn't a version that stopping the last layer") == 1


def test_padding_on_the_right_needs_no_mask() -> None:
    """Equal loss and gradients, and no mask reaches the layers; behind the block it does again."""
    model = small_model()
    ids = torch.randint(1, 97, (3, 20))
    mask = torch.ones_like(ids)
    for row, length in enumerate((20, 17, 9)):
        ids[row, length:], mask[row, length:] = 0, 0
    labels = ids.masked_fill(mask == 0, -100)
    given: list[bool] = []
    model.model.layers[0].register_forward_pre_hook(
        lambda _module, _args, kwargs: given.append(kwargs["attention_mask"] is not None), with_kwargs=True
    )

    def step() -> list[torch.Tensor]:
        model.zero_grad()
        loss = model(input_ids=ids, labels=labels, attention_mask=mask).loss
        loss.backward()
        return [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]

    masked = step()
    with without_padding_mask(model):
        bare = step()
    step()
    assert given == [True, False, True]
    for expected, found in zip(masked, bare, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


class PaddedRows:
    """Three prompts of different length with their answers, padded on the right."""

    def __init__(self) -> None:
        self.ids = torch.randint(1, 97, (3, 20))
        self.mask, self.labels = torch.ones_like(self.ids), self.ids.clone()
        for row, (prompt, end) in enumerate(((15, 20), (12, 16), (9, 14))):
            self.ids[row, end:], self.mask[row, end:], self.labels[row, end:] = 0, 0, IGNORED
            self.labels[row, :prompt] = IGNORED

    def step(self, model: torch.nn.Module) -> list[torch.Tensor]:
        model.zero_grad()
        output = model(input_ids=self.ids, attention_mask=self.mask, labels=self.labels, fused_lm_head=True)
        output.loss.backward()
        gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        return [output.loss.detach(), output.log_probs.detach(), *gradients]


def fused(model: Any) -> Any:
    add_fused_lm_head(model)
    return model


def lengths_read(model: Any) -> list[int]:
    """How many tokens each layer's MLP sees, as they come; the list fills as the model reads."""
    lengths: list[int] = []
    for layer in model.get_decoder().layers:
        layer.mlp.register_forward_pre_hook(lambda _module, inputs: lengths.append(inputs[0].shape[1]))
    return lengths


def assert_alike(found: list[torch.Tensor], expected: list[torch.Tensor], tolerance: float = 1e-6) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=10 * tolerance)


def test_a_last_layer_that_skips_prompts_changes_neither_loss_nor_gradients() -> None:
    """The first answer's first prediction is at the ninth token; behind the block everything is read again."""
    model, rows = fused(small_model()), PaddedRows()
    lengths = lengths_read(model)
    whole = rows.step(model)
    with without_padding_mask(model), answers_last(model):
        parted = rows.step(model)
    again = rows.step(model)
    assert lengths == [20, 20, 20, 12, 20, 20]
    assert_alike(parted, whole)
    assert all(one.equal(other) for one, other in zip(again, whole, strict=True))


def test_a_row_without_an_answer_does_not_keep_the_others_whole() -> None:
    model, rows = fused(small_model()), PaddedRows()
    rows.labels[2] = IGNORED
    lengths = lengths_read(model)
    whole = rows.step(model)
    with without_padding_mask(model), answers_last(model):
        parted = rows.step(model)
    assert lengths == [20, 20, 20, 9]
    assert_alike(parted, whole)


def test_prompts_are_skipped_below_adapters_and_in_mixed_precision_too() -> None:
    model, rows = fused(small_model()), PaddedRows()
    config = LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    adapted = get_peft_model(model, config)
    lengths = lengths_read(model)
    for mixed, tolerance in ((False, 1e-6), (True, 1e-2)):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            whole = rows.step(adapted)
            with without_padding_mask(adapted), answers_last(adapted):
                parted = rows.step(adapted)
        assert_alike(parted, whole, tolerance)
    assert lengths == 2 * [20, 20, 20, 12]


SHAPE = {"vocab_size": 97, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("make", "skips"),
    [
        (small_model, True),
        (lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, num_hidden_layers=2)), True),
        (lambda: small_model(FEW_LAYERS), True),
        (lambda: small_model(FEW_LAYERS + 1), False),
        (lambda: small_model(use_sliding_window=True, sliding_window=8, max_window_layers=0), False),
        (lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE, num_hidden_layers=2)), False),
    ],
    ids=["qwen3", "llama", "few layers", "many layers", "sliding window", "gpt-neox"],
)
def test_only_shallow_models_whose_layers_are_as_llamas_skip_prompts(make: Callable[[], Any], skips: bool) -> None:
    torch.manual_seed(1)
    model, rows = fused(make()), PaddedRows()
    with without_padding_mask(model):
        whole = rows.step(model)
        lengths = lengths_read(model)
        with answers_last(model):
            parted = rows.step(model)
    assert lengths[-1] == (12 if skips else 20)
    assert set(lengths[:-1]) == {20}
    assert_alike(parted, whole)


def padded(model: Any, rows: PaddedRows) -> None:
    rows.step(model)


def unlabelled(model: Any, rows: PaddedRows) -> None:
    with without_padding_mask(model):
        model(input_ids=rows.ids, use_cache=False)


def answered_from_the_start(model: Any, rows: PaddedRows) -> None:
    rows.labels[0] = rows.ids[0]
    with without_padding_mask(model):
        rows.step(model)


def checkpointed(model: Any, rows: PaddedRows) -> None:
    model.activation_checkpointing_enable()
    with without_padding_mask(model):
        rows.step(model.train())


@pytest.mark.parametrize("read", [padded, unlabelled, answered_from_the_start, checkpointed])
def test_a_batch_that_cannot_be_parted_is_read_whole(read: Callable[[Any, PaddedRows], None]) -> None:
    model, rows = fused(small_model()), PaddedRows()
    lengths = lengths_read(model)
    with answers_last(model):
        read(model, rows)
    assert set(lengths) == {20}


def test_an_error_leaves_the_layer_as_it_was() -> None:
    model = small_model()

    def fail(*_: Any) -> None:
        raise MemoryError

    model.model.layers[0].register_forward_pre_hook(fail)
    with pytest.raises(MemoryError), answers_last(model):
        model(input_ids=torch.zeros(1, 3, dtype=torch.long))
    assert "forward" not in vars(model.model.layers[-1])


def test_validation_by_a_cache_keeps_its_padding_mask() -> None:
    """Its prompts are padded on the left, and it may happen between two steps of training."""
    model = random_model("Mistral", sliding_window=12)
    tasks = [
        ScoringTask(prompt_T=[*range(2, 2 + length)], answers_C=[[5, 6, 1], [7, 1], [5, 8, 1]])
        for length in (30, 5, 17)
    ]
    plain = dict(HuggingFaceScorer(model, layout="cache").score(tasks))
    with without_padding_mask(model):
        within = dict(HuggingFaceScorer(model, layout="cache").score(tasks))
    assert len(within) == 3
    assert within == plain
