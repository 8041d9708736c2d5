"""LoRA on the linear layers of the blocks: real architectures at width 32, whatever their layers are called."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import get_peft_model
from small_models import DATASET, SIZES, sft_settings, weights_of
from tiny_architectures import TINY, tiny_config
from transformers import AutoModelForCausalLM, AutoTokenizer

from mllmrec.errors import BackendError, SettingsError
from mllmrec.models.adapters import folded_meanwhile, put_on
from mllmrec.settings.training import MergeSettings
from mllmrec.storage.workspace import Workspace, read_json
from mllmrec.training import merge, sft
from mllmrec.training.lora_targets import find_targets, lora_for

QKVO = "q_proj k_proj v_proj o_proj"
MLP = "gate_proj up_proj down_proj"
DENSE = (f"{QKVO} {MLP}", "", "")
STACKS = "gate_up_proj down_proj"
EXPERTS = "experts.gate_up_proj experts.down_proj"
BY_WEIGHT = "gate_proj.weight up_proj.weight down_proj.weight"
"""Layers beside experts that the library would take for parts of them; it reaches them by their weight."""
NEOX = "query_key_value dense dense_h_to_4h dense_4h_to_h"
DELTA_NET = "in_proj_qkv in_proj_z in_proj_b in_proj_a out_proj"
SHARED = "shared_expert.gate_proj shared_expert.up_proj shared_expert.down_proj shared_expert_gate"
TARGETS: dict[str, tuple[str, str, str]] = {
    "qwen2": DENSE,
    "qwen3": DENSE,
    "llama": DENSE,
    "mistral": DENSE,
    "gemma2": DENSE,
    "gemma3": DENSE,
    "granite": DENSE,
    "smollm3": DENSE,
    "olmo3": DENSE,
    "cohere2": DENSE,
    "gemma4": (f"{QKVO} {MLP} per_layer_input_gate per_layer_projection", "", ""),
    "phi3": ("o_proj qkv_proj gate_up_proj down_proj", "", ""),
    "glm4": (f"{QKVO} gate_up_proj down_proj", "", ""),
    "starcoder2": (f"{QKVO} c_fc c_proj", "", ""),
    "gpt_neox": (NEOX, "", ""),
    "falcon": (NEOX, "", ""),
    "gpt2": ("c_attn c_proj c_fc", "", ""),
    "mixtral": (QKVO, STACKS, "mlp.gate.weight"),
    "phimoe": (QKVO, STACKS, "mlp.router.weight"),
    "gpt_oss": (QKVO, STACKS, "mlp.router.weight mlp.experts.gate_up_proj_bias mlp.experts.down_proj_bias"),
    "qwen3_moe": (QKVO, f"{EXPERTS} {BY_WEIGHT}", "mlp.gate.weight"),
    "deepseek_v3": (
        "q_a_proj q_b_proj kv_a_proj_with_mqa kv_b_proj o_proj",
        f"{EXPERTS} {BY_WEIGHT}",
        "mlp.gate.weight",
    ),
    "qwen3_5": (f"{QKVO} {MLP} {DELTA_NET}", "", "linear_attn.conv1d.weight"),
    "qwen3_5_moe": (f"{QKVO} {DELTA_NET} {SHARED}", EXPERTS, "mlp.gate.weight linear_attn.conv1d.weight"),
    "qwen3_next": (
        f"{QKVO} in_proj_qkvz in_proj_ba out_proj shared_expert_gate",
        f"{EXPERTS} {BY_WEIGHT}",
        "mlp.gate.weight linear_attn.conv1d.weight",
    ),
    "lfm2": ("q_proj k_proj v_proj out_proj in_proj w1 w2 w3", "", "conv.conv.weight"),
    "lfm2_moe": (
        "q_proj k_proj v_proj out_proj in_proj w1 w2 w3",
        STACKS,
        "conv.conv.weight feed_forward.gate.weight",
    ),
    "granitemoehybrid": (
        f"{QKVO} in_proj input_linear output_linear",
        STACKS,
        "block_sparse_moe.router.weight mamba.conv1d.weight mamba.out_proj.weight",
    ),
    "falcon_h1": (f"{QKVO} {MLP} in_proj", "", "mamba.conv1d.weight mamba.out_proj.weight"),
    "mamba2": ("in_proj", "", "mixer.conv1d.weight mixer.out_proj.weight"),
    "jamba": (
        f"{QKVO} {MLP} in_proj x_proj out_proj",
        EXPERTS,
        "mamba.A_log mamba.conv1d.weight mamba.dt_proj.weight feed_forward.router.weight",
    ),
}
ALIKE = (
    *("qwen2", "llama", "gemma2", "granite", "olmo3", "cohere2", "starcoder2", "falcon", "phimoe"),
    *("qwen3_5_moe", "lfm2_moe", "jamba", "mamba2"),
)
"""Architectures of which all that they have is in another one too, or that no exact score can be had of."""
IDS = torch.arange(40)[None] * 37 % 256


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=IDS, use_cache=False).logits
    return found


def adapted_model(base: Any, *, choice: str = "all") -> Any:
    """The model with LoRA of rank 2 on its targets."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return get_peft_model(copy.deepcopy(base), find_targets(base, choice).config(r=2, lora_alpha=4))


def take_steps(adapted: Any, *, number: int) -> None:
    """Steps of plain SGD on every weight that asks for a gradient; the first moves B alone, the second A too."""
    learning = torch.optim.SGD([weight for weight in adapted.parameters() if weight.requires_grad], lr=0.05)
    for _ in range(number):
        learning.zero_grad()
        adapted(input_ids=IDS, labels=IDS).loss.backward()
        learning.step()


def widen(adapted: Any) -> None:
    """Adapters far from zero, so that one that were left out of a sum would show."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.add_(torch.randn_like(weight), alpha=0.1)


def save(name: str, folder: Path, tokenizer: Any) -> Any:
    """A model folder that answers in the tokens of `tokenizer`, and its model."""
    model = TINY[name](vocab_size=len(tokenizer))
    model.config.eos_token_id, model.config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def test_every_tiny_architecture_is_tried() -> None:
    assert TARGETS.keys() == TINY.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_the_linear_layers_of_the_blocks_are_targets(name: str) -> None:
    """Worked out by hand from the architectures. Names with two words are those that mean something else alone."""
    with torch.device("meta"):
        found = find_targets(AutoModelForCausalLM.from_config(tiny_config(name)))
    modules, parameters, left_out = (set(words.split()) for words in TARGETS[name])
    last = {word.rpartition(".")[2] for word in modules}
    assert {module.rpartition(".")[2] for module in found.modules} == last
    assert {stack.removeprefix("experts.") for stack in found.parameters} == {
        stack.removeprefix("experts.") for stack in parameters
    }
    assert set(found.left_out) == left_out
    assert (found.describe() == "") == (not found.left_out and not found.outside)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ()) for name in TINY])
def test_adapters_reach_every_block_learn_alone_come_back_and_merge(name: str, toy: Workspace, tmp_path: Path) -> None:
    """Two steps move every adapter and nothing else; stored, loaded, folded and merged by the verb: equal logits."""
    tokenizer = AutoTokenizer.from_pretrained(toy.root / "tiny")
    base = save(name, tmp_path / "base", tokenizer)
    adapted = adapted_model(base)
    before = {name: weight.detach().clone() for name, weight in adapted.named_parameters()}
    take_steps(adapted, number=2)
    moved = {name for name, weight in adapted.named_parameters() if not torch.equal(before[name], weight)}
    assert moved == {name for name in before if "lora_" in name}
    blocks = {match[1] for name in moved if (match := re.search(r"\.(?:layers|h)\.(\d+)\.", name))}
    assert len(blocks) == base.config.num_hidden_layers
    widen(adapted)
    own = logits(adapted.eval())
    assert (own - logits(base)).abs().max() > 0.5
    kept = {name: value.clone() for name, value in adapted.state_dict().items()}
    with folded_meanwhile(adapted):
        torch.testing.assert_close(logits(adapted), own, atol=2e-3, rtol=0)
    assert all(torch.equal(kept[name], value) for name, value in adapted.state_dict().items())
    workspace = Workspace(tmp_path)
    adapted.save_pretrained(str(workspace.checkpoint(DATASET, "sft")))
    back = put_on(base, workspace.checkpoint(DATASET, "sft"))
    assert torch.equal(logits(back), own)
    merge.run(MergeSettings(dataset=DATASET, root=str(tmp_path), backbone="base", device="cpu"), workspace)
    stored = AutoModelForCausalLM.from_pretrained(workspace.checkpoint(DATASET, "sft-merged"), dtype=torch.float32)
    torch.testing.assert_close(logits(stored.eval()), own, atol=2e-3, rtol=0)


def test_attention_is_whatever_mixes_tokens() -> None:
    """In Qwen3.5 three layers in four are Gated DeltaNet; in LFM2 short convolutions, and attention's out_proj too."""
    assert set(find_targets(TINY["qwen3_5"](), "attention").modules) == set(f"{QKVO} {DELTA_NET}".split())
    assert set(find_targets(TINY["lfm2"](), "attention").modules) == {
        "q_proj",
        "k_proj",
        "v_proj",
        "out_proj",
        "in_proj",
    }
    assert set(find_targets(TINY["falcon_h1"](), "attention").modules) == set(f"{QKVO} in_proj".split())
    assert not find_targets(TINY["qwen3_next"](), "attention").parameters


def test_targets_are_chosen_by_the_last_words_of_their_names() -> None:
    assert find_targets(TINY["qwen3"](), "q_proj, v_proj").modules == ("q_proj", "v_proj")
    assert find_targets(TINY["qwen3"](), "attention,mlp.down_proj").modules == (*QKVO.split(), "down_proj")
    experts = find_targets(TINY["qwen3_moe"](), "mlp.gate_proj,experts.down_proj,o_proj")
    assert experts.modules == ("o_proj",)
    assert set(experts.parameters) == {"gate_proj.weight", "experts.down_proj"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny_config("llama"))
    assert "left out: of the blocks self_attn.k_proj.weight," in find_targets(model, "q_proj,v_proj").describe()


@pytest.mark.parametrize(
    ("name", "choice", "message"),
    [
        (
            "qwen3",
            "q_proj,c_attn,proj",
            r"--lora-targets names 'c_attn', 'proj', which is nothing that LoRA adapts in Qwen3ForCausalLM\. Expected "
            r"`all`, `attention`, or .* among self_attn\.q_proj, .*mlp\.down_proj",
        ),
        ("gpt_oss", "router", r"--lora-targets names 'router', .*mlp\.experts\.gate_up_proj"),
        ("jamba", "dt_proj", r"--lora-targets names 'dt_proj', .*mamba\.in_proj"),
        ("qwen3", "q_proj,,v_proj", r"--lora-targets names ''"),
        (
            "qwen3_5",
            "q_proj,v_proj",
            r"--lora-targets q_proj,v_proj leaves block 0 \(linear_attention\) of Qwen3_5ForCausalLM as it is\. "
            r"Expected a target in every block: name one of linear_attn\.out_proj,.*too, or `all`",
        ),
    ],
)
def test_a_choice_that_names_nothing_or_passes_a_block_over_is_refused(name: str, choice: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        find_targets(TINY[name](), choice)


def test_a_block_that_cannot_be_adapted_is_named() -> None:
    model = TINY["qwen3"]()
    block = model.model.layers[1]
    block.self_attn, block.mlp = torch.nn.Conv1d(32, 32, 1), torch.nn.Identity()
    with pytest.raises(BackendError, match=r"no layer that it could adapt in block 1 \(full_attention\) of Qwen3"):
        find_targets(model)


def test_a_vision_tower_stays_as_it_is_though_its_layers_have_the_same_names() -> None:
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.Gemma3Config(text_config=SIZES, vision_config=vision | {"image_size": 28, "patch_size": 14})
    with torch.device("meta"):
        found = find_targets(AutoModelForCausalLM.from_config(config))
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
    ("family", "left_out"),
    [
        ("ModernBertDecoder", ()),
        ("DeepseekV4", ("self_attn.o_a_proj.weight",)),
        ("Rwkv", ("attention.time_mix_key",)),
    ],
)
def test_odd_heads_layers_that_read_groups_and_stacks_beside_layers(family: str, left_out: tuple[str, ...]) -> None:
    """Of two layers with the sizes that they were published with, and no weights."""
    config = getattr(transformers, f"{family}Config")(num_hidden_layers=2)
    with torch.device("meta"):
        found = find_targets(AutoModelForCausalLM.from_config(config))
    assert found.modules
    assert set(left_out) <= set(found.left_out)


def test_experts_train_with_the_default_dropout_and_merge(
    toy_copy: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    save("mixtral", toy_copy.root / "experts", AutoTokenizer.from_pretrained(toy_copy.root / "tiny"))
    sft.run(sft_settings(toy_copy, backbone="experts", limit=16, max_prompt_tokens=960), toy_copy)
    said = capsys.readouterr().err
    assert "left out: of the blocks mlp.gate.weight." in said
    assert "LoRA on stacks of experts can't have a dropout: it is 0 in place of 0.05." in said
    folder = toy_copy.checkpoint(DATASET, "sft")
    assert read_json(folder / "adapter_config.json")["lora_dropout"] == 0
    assert any(float(value.abs().max()) > 0 for name, value in weights_of(folder).items() if "experts.lora_B" in name)
    merge.run(MergeSettings(dataset=DATASET, root=str(toy_copy.root)), toy_copy)


def test_a_dropout_that_experts_cannot_have_is_refused_before_anything_loads(tmp_path: Path) -> None:
    """Only a configuration is there, and no weights."""
    tiny_config("mixtral").save_pretrained(tmp_path)
    with pytest.raises(SettingsError, match=r"MixtralForCausalLM keeps its experts in stacks, .* --lora-dropout 0"):
        lora_for(str(tmp_path), rank=4, alpha=4, dropout=0.1, insist=True)
    assert lora_for(str(tmp_path), rank=4, alpha=4, dropout=0.1).lora_dropout == 0


def test_the_stage_adapts_what_it_is_told_to(toy_copy: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    sft.run(sft_settings(toy_copy, lora_targets="attention", limit=16), toy_copy)
    assert "left out: of the blocks mlp.gate_proj.weight, mlp.up_proj.weight" in capsys.readouterr().err
    folder = toy_copy.checkpoint(DATASET, "sft")
    assert set(read_json(folder / "adapter_config.json")["target_modules"]) == set(QKVO.split())
    assert len(weights_of(folder)) == 2 * 2 * 4  # A and B of four layers in each of two blocks


def test_a_choice_is_refused_before_weights_are_read(tmp_path: Path) -> None:
    tiny_config("qwen3").save_pretrained(tmp_path)
    with pytest.raises(SettingsError, match="--lora-targets names 'c_attn'"):
        lora_for(str(tmp_path), rank=4, alpha=4, dropout=0.0, choice="c_attn")


@pytest.mark.parametrize(
    "config",
    [
        transformers.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4),
        transformers.BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4),
    ],
)
def test_recurrent_layers_and_alibi_are_adapted(config: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert lora_for(str(tmp_path), rank=4, alpha=4, dropout=0.0).target_modules


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "t5"}, "can't be trained: Unrecognized configuration class"),
        ({"model_type": "nowhere"}, "can't be loaded"),
    ],
)
def test_a_model_without_a_place_for_lora_is_refused_by_its_name(config: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackendError, match=message):
        lora_for(str(tmp_path), rank=4, alpha=4, dropout=0.0)
