"""What a step leaves out changes the time, not the loss or the gradients."""

from __future__ import annotations

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM
from trl.trainer import utils as trl_utils
from trl.trainer.utils import add_fused_lm_head

from mllmrec.training.compact import SWITCH, answers_only, without_padding_mask


def loss_and_gradients(model: torch.nn.Module, ids: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    loss = model(input_ids=ids, labels=labels, fused_lm_head=True).loss
    loss.backward()
    return [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


def small_model() -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    return Qwen3ForCausalLM(
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
    before = getattr(trl_utils, SWITCH)
    with answers_only():
        assert getattr(trl_utils, SWITCH) is not before
    assert getattr(trl_utils, SWITCH) is before


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
