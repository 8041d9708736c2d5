"""LoRA on all linear layers of the blocks: real architectures at width 32, whatever their layers are called."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import get_peft_model
from small_models import DATASET, SIZES, WIDE, naive_scores, sft_settings, weights_of
from transformers import AutoModelForCausalLM, AutoTokenizer

from mllmrec.errors import BackendError, SettingsError
from mllmrec.models.adapters import fold, folded_meanwhile, put_on
from mllmrec.models.base import ScoringTask
from mllmrec.models.scoring import HuggingFaceScorer
from mllmrec.settings.training import MergeSettings
from mllmrec.storage.workspace import Workspace, read_json
from mllmrec.training import merge, sft
from mllmrec.training.lora_targets import find_targets, lora_for

PLAIN = {name: SIZES[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")}
EXPERTS = SIZES | {"num_local_experts": 4}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen3": SIZES,
    "Phi3": SIZES,
    "Glm4": SIZES,
    "Starcoder2": SIZES,
    "GPTNeoX": PLAIN | {"intermediate_size": 48},
    "GPT2": {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "Falcon": PLAIN,
    "Mixtral": EXPERTS,
    "GptOss": EXPERTS,
    "Phimoe": EXPERTS,
    "Qwen3Moe": SIZES | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    "Gemma3": {"text_config": SIZES, "vision_config": VISION | {"image_size": 28, "patch_size": 14}},
}
QKVO = ["q_proj", "k_proj", "v_proj", "o_proj"]
STACKS = ["gate_up_proj", "down_proj"]
TARGETS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "Qwen3": ([*QKVO, "gate_proj", "up_proj", "down_proj"], [], []),
    "Phi3": (["o_proj", "qkv_proj", "gate_up_proj", "down_proj"], [], []),
    "Glm4": ([*QKVO, "gate_up_proj", "down_proj"], [], []),
    "Starcoder2": ([*QKVO, "c_fc", "c_proj"], [], []),
    "GPTNeoX": (["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"], [], []),
    "GPT2": (["c_attn", "c_proj", "c_fc"], [], []),
    "Falcon": (["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"], [], []),
    "Mixtral": (QKVO, STACKS, ["mlp.gate.weight"]),
    "GptOss": (
        QKVO,
        STACKS,
        ["mlp.router.weight", "mlp.experts.gate_up_proj_bias", "mlp.experts.down_proj_bias"],
    ),
    "Phimoe": (QKVO, STACKS, ["mlp.router.weight"]),
    "Qwen3Moe": (QKVO, STACKS, ["mlp.gate.weight"]),
}
PROMPT, ANSWERS = [5, 6, 7, 8], [[9, 10, 1], [9, 11, 1], [12, 1]]


def config_of(family: str) -> Any:
    return getattr(transformers, f"{family}Config")(**CONFIGS[family])


def random_model(family: str, vocab_size: int | None = None) -> Any:
    config = config_of(family)
    if vocab_size is not None:
        config.get_text_config().vocab_size = vocab_size
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, WIDE / 2)
    return model


def save(family: str, folder: Path, tokenizer: Any) -> None:
    """A model folder that answers in the tokens of `tokenizer`."""
    model = random_model(family, len(tokenizer))
    model.config.eos_token_id, model.config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize("family", TARGETS)
def test_every_linear_layer_of_the_blocks_is_a_target(family: str) -> None:
    """Worked out by hand from the architectures; 95 % of a narrow block's weights are in its matrices."""
    found = find_targets(random_model(family))
    assert (list(found.modules), list(found.parameters), list(found.left_out)) == TARGETS[family]
    assert found.share > 0.95
    assert (found.describe() == "") == (not found.left_out)


def test_a_vision_tower_stays_as_it_is_though_its_layers_have_the_same_names() -> None:
    found = find_targets(random_model("Gemma3"))
    assert found.modules == tuple(
        f"model.language_model.layers.{layer}.{name}"
        for layer in range(2)
        for name in (
            *(f"self_attn.{part}_proj" for part in "qkvo"),
            *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
        )
    )
    assert found.outside == ("model.vision_tower", "model.multi_modal_projector")
    assert found.describe().endswith("left out: all of model.vision_tower, model.multi_modal_projector.")


@pytest.mark.parametrize(
    ("family", "left_out"), [("ModernBertDecoder", ()), ("DeepseekV4", ("self_attn.o_a_proj.weight",))]
)
def test_blocks_beside_an_odd_head_and_layers_that_read_groups(family: str, left_out: tuple[str, ...]) -> None:
    """Of two layers with the sizes that they were published with, and no weights."""
    config = getattr(transformers, f"{family}Config")(num_hidden_layers=2)
    with torch.device("meta"):
        found = find_targets(AutoModelForCausalLM.from_config(config))
    assert found.modules
    assert set(left_out) <= set(found.left_out)


@pytest.mark.parametrize("family", CONFIGS)
def test_adapters_learn_fold_and_come_back(family: str, tmp_path: Path) -> None:
    """Every adapter gets a gradient and no base weight; scores are the naive ones, folded, stored and loaded too."""
    base = random_model(family)
    adapted = get_peft_model(copy.deepcopy(base), find_targets(base).config(r=2, lora_alpha=4))
    ids = torch.arange(4, 20)[None]
    adapted(input_ids=ids, labels=ids).loss.backward()
    learning = {name: weight for name, weight in adapted.named_parameters() if weight.grad is not None}
    assert learning.keys() == {name for name, _ in adapted.named_parameters() if "lora_" in name}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for weight in learning.values():
            weight.add_(torch.randn_like(weight) * 0.2)
    adapted.eval()
    own = naive_scores(adapted, PROMPT, ANSWERS)
    task = ScoringTask(prompt_T=PROMPT, answers_C=ANSWERS)
    assert dict(HuggingFaceScorer(adapted).score([task]))[0] == pytest.approx(own, abs=1e-4)
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    with folded_meanwhile(adapted):
        assert naive_scores(adapted, PROMPT, ANSWERS) == pytest.approx(own, abs=1e-4)
    assert all(torch.equal(before[name], value) for name, value in adapted.state_dict().items())
    adapted.save_pretrained(str(tmp_path))
    assert naive_scores(fold(put_on(base, tmp_path)), PROMPT, ANSWERS) == pytest.approx(own, abs=1e-4)


def test_experts_train_with_the_default_dropout_and_merge(
    toy_copy: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    save("Mixtral", toy_copy.root / "experts", AutoTokenizer.from_pretrained(toy_copy.root / "tiny"))
    sft.run(sft_settings(toy_copy, backbone="experts", limit=16), toy_copy)
    said = capsys.readouterr().err
    assert "left out: of the blocks mlp.gate.weight." in said
    assert "LoRA on stacks of experts can't have a dropout: it is 0 in place of 0.05." in said
    folder = toy_copy.checkpoint(DATASET, "sft")
    assert read_json(folder / "adapter_config.json")["lora_dropout"] == 0
    assert any(float(value.abs().max()) > 0 for name, value in weights_of(folder).items() if "experts.lora_B" in name)
    merge.run(MergeSettings(dataset=DATASET, root=str(toy_copy.root)), toy_copy)


def test_a_dropout_that_experts_cannot_have_is_refused_before_anything_loads(tmp_path: Path) -> None:
    """Only a configuration is there, and no weights."""
    config_of("Mixtral").save_pretrained(tmp_path)
    with pytest.raises(SettingsError, match=r"MixtralForCausalLM keeps its experts in stacks, .* --lora-dropout 0"):
        lora_for(str(tmp_path), rank=4, alpha=4, dropout=0.1, insist=True)
    assert lora_for(str(tmp_path), rank=4, alpha=4, dropout=0.1).lora_dropout == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            transformers.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4),
            "MambaForCausalLM has layers of kind linear_attention",
        ),
        (transformers.BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4), "BloomForCausalLM .* ALiBi"),
        ({"model_type": "t5"}, "can't be trained: Unrecognized configuration class"),
        ({"model_type": "nowhere"}, "can't be loaded"),
    ],
)
def test_a_model_without_a_place_for_lora_is_refused_by_its_name(config: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config if isinstance(config, dict) else config.to_dict()))
    with pytest.raises(BackendError, match=message):
        lora_for(str(tmp_path), rank=4, alpha=4, dropout=0.0)
