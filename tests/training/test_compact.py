"""Projecting answers alone changes the time, not the loss or the gradients."""

from __future__ import annotations

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM
from trl.trainer import utils as trl_utils
from trl.trainer.utils import add_fused_lm_head

from mllmrec.training.compact import SWITCH, answers_only


def loss_and_gradients(model: torch.nn.Module, ids: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    loss = model(input_ids=ids, labels=labels, fused_lm_head=True).loss
    loss.backward()
    return [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


def test_loss_and_gradients_are_those_of_the_whole_projection() -> None:
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=97,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
        )
    )
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
    before = getattr(trl_utils, SWITCH)
    with answers_only():
        assert getattr(trl_utils, SWITCH) is not before
    assert getattr(trl_utils, SWITCH) is before
