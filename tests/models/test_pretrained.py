"""Model folders that a library would read wrongly or not at all: one sentence, before weights are read where it can."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import SIZES, naive_scores, sft_settings
from transformers import AutoModelForCausalLM, AutoTokenizer, GptOssConfig, PreTrainedTokenizerFast

from mllmrec.errors import BackendError
from mllmrec.models.base import ScoringTask
from mllmrec.models.huggingface import load, read_config, save_weights
from mllmrec.models.scoring import HuggingFaceScorer
from mllmrec.storage.workspace import Workspace, read_json, write_json
from mllmrec.training import sft
from mllmrec.training.lora_targets import lora_for

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}
BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
PROMPT, ANSWERS = [5, 6, 7, 8], [[9, 10, 1], [9, 11, 1], [12, 1]]


@pytest.fixture
def folder(toy: Workspace, tmp_path: Path) -> Path:
    """The tiny backbone, to be changed: without its manifest, which vouches for its weights."""
    return shutil.copytree(toy.root / "tiny", tmp_path / "model", ignore=shutil.ignore_patterns("manifest.json"))


def change_config(folder: Path, **values: Any) -> None:
    write_json(folder / "config.json", read_json(folder / "config.json") | values)


def change_weights(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})


@pytest.mark.parametrize(
    ("stored", "method"),
    [(AWQ, "awq"), (GPTQ, "gptq"), (BITS, "bitsandbytes"), ({"load_in_8bit": True}, "bitsandbytes")],
)
def test_a_quantized_model_is_refused_by_its_method_before_anything_loads(
    toy: Workspace, folder: Path, stored: dict[str, Any], method: str
) -> None:
    change_config(folder, quantization_config=stored)
    change_weights(folder, lambda _: {"nothing": torch.zeros(1)})
    with pytest.raises(BackendError, match=rf"model is quantized by {method} \(quantization_config in config\.json\)"):
        load(toy, folder, device="cpu")
    with pytest.raises(BackendError, match=rf"quantized by {method}"):
        lora_for(str(folder), rank=4, alpha=4, dropout=0.0)


def test_weights_that_the_files_lack_are_not_made_up(toy: Workspace, folder: Path) -> None:
    """As AutoGPTQ stores them, without a word in config.json: by other names, and the library starts at random."""
    change_weights(folder, lambda found: {name.replace("proj.weight", "proj.qweight"): found[name] for name in found})
    with pytest.raises(BackendError, match=r"lacks 14 weights of Qwen3ForCausalLM \(such as .*proj\.weight\), which"):
        load(toy, folder, device="cpu")


def test_weights_of_another_size_are_one_sentence(toy: Workspace, folder: Path) -> None:
    change_config(folder, intermediate_size=96)
    with pytest.raises(BackendError, match="can't be loaded"):
        load(toy, folder, device="cpu")


def with_tokens(folder: Path, *tokens: str, special: bool) -> PreTrainedTokenizerFast:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(tokens), special_tokens=special)
    tokenizer.save_pretrained(folder)
    return tokenizer


def test_tokens_of_texts_without_a_row_are_refused(toy: Workspace, folder: Path) -> None:
    rows = read_json(folder / "config.json")["vocab_size"]
    with_tokens(folder, "comedy", "drama", special=False)
    with pytest.raises(BackendError) as error:
        load(toy, folder, device="cpu")
    assert f"writes 2 tokens for which its model has no row (such as 'comedy', number {rows})" in str(error.value)
    assert f"the embeddings have {rows} rows" in str(error.value)


def test_a_smaller_model_with_another_tokenizer_is_refused(toy: Workspace, folder: Path) -> None:
    change_config(folder, vocab_size=300)
    with pytest.raises(BackendError, match="the embeddings have 300 rows"):
        load(toy, folder, device="cpu")


def test_a_control_token_without_a_row_that_no_text_can_spell_is_harmless(toy: Workspace, folder: Path) -> None:
    """As Gemma 3 has one for images beside a model of texts alone."""
    with_tokens(folder, "<image_soft_token>", special=True)
    loaded = load(toy, folder, device="cpu")
    rows = loaded.model.get_input_embeddings().weight.shape[0]
    assert max(loaded.chat.prompt_ids(loaded.chat.harmless("a <image_soft_token> b"))) < rows


def gpt_oss(folder: Path, tokenizer: Any) -> Any:
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    sizes = SIZES | {"vocab_size": len(tokenizer), "intermediate_size": 32, "num_local_experts": 4}
    config = GptOssConfig(**(sizes | ends))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def test_a_model_without_fused_attention_loads_with_eager_attention(toy: Workspace, tmp_path: Path) -> None:
    made = gpt_oss(tmp_path / "model", AutoTokenizer.from_pretrained(toy.root / "tiny"))
    loaded = load(toy, tmp_path / "model", device="cpu")
    assert loaded.model.config._attn_implementation == "eager"
    found = dict(HuggingFaceScorer(loaded.model).score([ScoringTask(prompt_T=PROMPT, answers_C=ANSWERS)]))[0]
    assert found == pytest.approx(naive_scores(made, PROMPT, ANSWERS), abs=1e-4)


def test_weights_published_in_four_bits_are_unpacked(toy: Workspace, tmp_path: Path) -> None:
    """MXFP4 by hand: two numbers in a byte, the low half first, times two to the power of their block's scale."""
    folder = tmp_path / "model"
    gpt_oss(folder, AutoTokenizer.from_pretrained(toy.root / "tiny"))
    steps = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    numbers = torch.cat([steps, -steps])
    generator = torch.Generator().manual_seed(0)
    expected = {}

    def packed(found: dict[str, Any]) -> dict[str, Any]:
        plain = {name: value for name, value in found.items() if not name.endswith(("gate_up_proj", "down_proj"))}
        for name in sorted(found.keys() - plain.keys()):
            experts, inner, outer = found[name].shape
            blocks = torch.randint(0, 256, (experts, outer, inner // 32, 16), dtype=torch.uint8, generator=generator)
            scales = torch.randint(120, 126, (experts, outer, inner // 32), dtype=torch.uint8, generator=generator)
            halves = torch.stack([blocks & 15, blocks >> 4], dim=-1).long()
            unpacked = numbers[halves].flatten(-2) * 2.0 ** (scales[..., None].float() - 127)
            expected[name] = unpacked.flatten(-2).transpose(1, 2)
            plain |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        return plain

    change_weights(folder, packed)
    change_config(folder, quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})
    model = load(toy, folder, device="cpu").model
    weights = dict(model.named_parameters())
    assert len(expected) == 4
    for name, value in expected.items():
        torch.testing.assert_close(weights[name].float(), value, rtol=0, atol=0)
    with pytest.raises(BackendError, match="stored in mxfp4, of which all weights can't be trained"):
        sft.run(sft_settings(toy, backbone=str(folder), tag="never", peft="none", max_prompt_tokens=400), toy)
    save_weights(model, tmp_path / "again", folder)
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(again[name].float(), value) for name, value in expected.items())
    assert "quantization_config" not in read_json(tmp_path / "again" / "config.json")


def test_other_models_keep_fused_attention(toy: Workspace) -> None:
    assert load(toy, "tiny", device="cpu").model.config._attn_implementation == "sdpa"


def test_a_configuration_that_asks_for_a_missing_package_is_one_sentence(toy: Workspace, folder: Path) -> None:
    change_config(folder, _attn_implementation="flash_attention_2")
    with pytest.raises(BackendError, match=r"model can't be loaded: FlashAttention2"):
        load(toy, folder, device="cpu")


def test_a_model_that_is_not_quantized_is_read(toy: Workspace) -> None:
    assert read_config(str(toy.root / "tiny")).model_type == "qwen3"
