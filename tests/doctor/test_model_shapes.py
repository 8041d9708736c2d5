"""Counting parameters from a configuration, against the models themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from mllmrec.doctor.memory import KNOWN_CONFIGS, Shape, known_config, num_parameters
from mllmrec.errors import SettingsError

SMALL = {
    "vocab_size": 211,
    "hidden_size": 48,
    "intermediate_size": 100,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}


def on_meta(model_class: Any, config: Any) -> Any:
    """The model without its numbers."""
    with torch.device("meta"):
        return model_class(config)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("model_class", "config_class", "further"),
    [
        (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 16}),
        (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 16, "attention_bias": True}),
        (Qwen2ForCausalLM, Qwen2Config, {}),
        (LlamaForCausalLM, LlamaConfig, {}),
        (LlamaForCausalLM, LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
        (MistralForCausalLM, MistralConfig, {"head_dim": 16}),
    ],
)
def test_the_count_is_that_of_the_model(
    model_class: Any, config_class: Any, further: dict[str, Any], tied: bool
) -> None:
    config = config_class(**SMALL, **further, tie_word_embeddings=tied)
    assert num_parameters(config.to_dict()) == on_meta(model_class, config).num_parameters()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
@pytest.mark.parametrize(("rank", "tied"), [(1, True), (16, False)])
def test_the_count_of_adapters_is_that_of_the_model(rank: int, tied: bool) -> None:
    config = Qwen3Config(**SMALL, head_dim=16, tie_word_embeddings=tied)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(Qwen3ForCausalLM(config), LoraConfig(r=rank, target_modules=targets))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert Shape.of(config.to_dict()).adapter_parameters(rank) == trained


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("Qwen3-0.6B", 596_049_920),
        ("Qwen3-1.7B", 1_720_574_976),
        ("Qwen3-4B", 4_022_468_096),
        ("Qwen3-8B", 8_190_735_360),
        ("Qwen3-14B", 14_768_307_200),
    ],
)
def test_known_models_have_their_published_size(name: str, published: int) -> None:
    assert num_parameters(KNOWN_CONFIGS[name]) == published


def test_the_published_adapters_of_qwen3_4b() -> None:
    assert Shape.of(KNOWN_CONFIGS["Qwen3-4B"]).adapter_parameters(16) == 33_030_144


def test_a_known_model_goes_by_hub_id_folder_or_variant() -> None:
    expected = KNOWN_CONFIGS["Qwen3-4B"]
    assert known_config("Qwen3-4B") == known_config("Qwen/Qwen3-4B") == known_config("/x/Qwen3-4B-Base/") == expected
    assert known_config("Qwen3-4") is None
    assert known_config("Qwen3-4Bx") is None


def test_a_family_without_a_formula_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"a mamba model can't be planned: .* llama, mistral, qwen2, qwen3"):
        num_parameters({"model_type": "mamba"})


def test_a_configuration_without_sizes_names_them() -> None:
    with pytest.raises(SettingsError, match="no num_hidden_layers, vocab_size"):
        num_parameters({"model_type": "qwen3", "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2})
