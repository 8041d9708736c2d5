"""Adapters of any trainer: every weight lands and the folded model says what their own trainer says, or a refusal."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import naive_scores, random_model
from tiny_architectures import TINY, tiny_config
from transformers import AutoModelForCausalLM

from mllmrec.errors import ArtifactError, BackendError
from mllmrec.models.adapters import fold, put_on
from mllmrec.models.base import ScoringTask
from mllmrec.models.huggingface import load, read_config, read_weights, resolve, save_weights
from mllmrec.models.scoring import HuggingFaceScorer
from mllmrec.storage.workspace import Workspace, read_json, write_json

TARGETS = ["q_proj", "v_proj"]
PROMPT, ANSWERS = [5, 6, 7, 8], [[9, 10, 1], [9, 11, 1], [12, 1]]
CAUSAL = {"task_type": "CAUSAL_LM"}


def tied_model(vocab_size: int = 64) -> Any:
    return random_model(tie_word_embeddings=True, vocab_size=vocab_size)


def lora(**options: Any) -> peft.LoraConfig:
    return peft.LoraConfig(**({"r": 4, "lora_alpha": 8, "target_modules": TARGETS} | CAUSAL | options))


def trained_elsewhere(folder: Path, config: Any, model: Any | None = None) -> list[float]:
    """An adapter with weights far from zero, saved by peft as it is; the scores that its own trainer would give."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(model or tied_model(), config)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(1)
            for weight in adapted.parameters():
                if weight.requires_grad:
                    weight.add_(torch.randn_like(weight) * 0.2)
        adapted.eval().save_pretrained(str(folder))
    return naive_scores(adapted, PROMPT, ANSWERS)


def exact_scores(model: Any) -> list[float]:
    return dict(HuggingFaceScorer(model).score([ScoringTask(prompt_T=PROMPT, answers_C=ANSWERS)]))[0]


def rewritten(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)


GOOD = {
    "plain": lora(),
    "scaled by the root of the rank": lora(use_rslora=True),
    "weights decomposed": lora(use_dora=True),
    "biases": lora(bias="all"),
    "other ranks": lora(rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 3}),
    "one layer": lora(layers_to_transform=[1]),
    "started from singular values": lora(init_lora_weights="pissa"),
    "AdaLoRA": peft.AdaLoraConfig(init_r=4, target_r=2, total_step=10, target_modules=TARGETS, **CAUSAL),
    "LoHa": peft.LoHaConfig(r=4, target_modules=TARGETS, **CAUSAL),
    "LoKr": peft.LoKrConfig(r=4, target_modules=TARGETS, **CAUSAL),
    "tied head": lora(target_modules=[*TARGETS, "lm_head"]),
    "tied embeddings": lora(target_modules=[*TARGETS, "embed_tokens"]),
    "both of tied": lora(target_modules=[*TARGETS, "embed_tokens", "lm_head"]),
    "both of tied, kept tied": lora(target_modules=[*TARGETS, "embed_tokens"], ensure_weight_tying=True),
    "head saved": lora(modules_to_save=["lm_head"]),
    "embeddings saved": lora(modules_to_save=["embed_tokens"]),
    "embeddings saved, kept tied": lora(modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    "some tokens": lora(trainable_token_indices=[5, 9]),
}


@pytest.mark.parametrize("name", GOOD)
def test_an_adapter_scores_as_where_it_was_trained_unfolded_folded_and_stored(name: str, tmp_path: Path) -> None:
    own = trained_elsewhere(tmp_path / "adapter", GOOD[name])
    bare = naive_scores(tied_model(), PROMPT, ANSWERS)
    assert max(abs(a - b) for a, b in zip(own, bare, strict=True)) > 0.05
    adapted = put_on(tied_model(), tmp_path / "adapter")
    assert exact_scores(adapted) == pytest.approx(own, abs=1e-4)
    merged = fold(adapted)
    assert exact_scores(merged) == pytest.approx(own, abs=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    stored = type(merged).from_pretrained(tmp_path / "merged").eval()
    assert naive_scores(stored, PROMPT, ANSWERS) == pytest.approx(own, abs=1e-4)


SAVED = ["embed_tokens", "lm_head"]
OTHERS = {
    "every layer, embeddings and head": lora(target_modules="all-linear", use_rslora=True, modules_to_save=SAVED),
    "every layer decomposed": lora(target_modules="all-linear", use_dora=True),
    "by a pattern": lora(target_modules=r".*layers\.\d+\.self_attn\.[qv]_proj", rank_pattern={"q_proj": 2}),
    "head and norms": lora(target_modules=[*TARGETS, "lm_head"], modules_to_save=["input_layernorm", "ffn_norm"]),
    "some tokens": lora(trainable_token_indices=[5, 9]),
    "experts": lora(target_modules=[], target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]),
}
OF_ARCHITECTURES = [
    pytest.param(name, kind, marks=() if kind == next(iter(OTHERS)) or kind == "experts" else pytest.mark.slow)
    for kind in OTHERS
    for name in ("qwen3", "gemma3", "gpt_oss", "qwen3_5", "lfm2")
    if kind != "experts" or name == "gpt_oss"
]


@pytest.mark.parametrize(("name", "kind"), OF_ARCHITECTURES)
def test_other_architectures_score_as_where_they_were_trained(name: str, kind: str, tmp_path: Path) -> None:
    """With sliding windows, experts, Gated DeltaNet and short convolutions; unfolded, folded, and stored as merged."""
    base = TINY[name](vocab_size=64)
    base.save_pretrained(tmp_path / "base")
    bare = naive_scores(base, PROMPT, ANSWERS)
    own = trained_elsewhere(tmp_path / "adapter", OTHERS[kind], base)
    assert max(abs(a - b) for a, b in zip(own, bare, strict=True)) > 0.05
    config = read_config(str(tmp_path / "base"))
    adapted = put_on(read_weights(AutoModelForCausalLM, str(tmp_path / "base"), config), tmp_path / "adapter").eval()
    assert naive_scores(adapted, PROMPT, ANSWERS) == pytest.approx(own, abs=1e-5)
    merged = fold(adapted)
    assert naive_scores(merged, PROMPT, ANSWERS) == pytest.approx(own, abs=5e-3)
    save_weights(merged, tmp_path / "merged", tmp_path / "base")
    stored = read_weights(AutoModelForCausalLM, str(tmp_path / "merged"), read_config(str(tmp_path / "merged"))).eval()
    assert naive_scores(stored, PROMPT, ANSWERS) == pytest.approx(own, abs=5e-3)


def one_for_each_expert(folder: Path, model: Any) -> None:
    """An adapter as it was written when each expert had layers of its own; `model` gets what it adds, by hand."""
    config = peft.LoraConfig(**CAUSAL, r=2, lora_alpha=6, target_modules=["gate_proj", "up_proj", "down_proj"])
    config.base_model_name_or_path = "base"
    config.save_pretrained(str(folder))
    found, random = {}, torch.Generator().manual_seed(1)
    for number, block in enumerate(model.model.layers):
        stacks = block.mlp.experts
        for expert in range(stacks.gate_up_proj.shape[0]):
            added = {}
            for part, (out, width) in {"gate": (24, 32), "up": (24, 32), "down": (32, 24)}.items():
                A, B = torch.randn(2, width, generator=random) * 0.3, torch.randn(out, 2, generator=random) * 0.3
                name = f"base_model.model.model.layers.{number}.mlp.experts.{expert}.{part}_proj"
                found |= {f"{name}.lora_A.weight": A, f"{name}.lora_B.weight": B}
                added[part] = 6 / 2 * B @ A
            with torch.no_grad():
                stacks.gate_up_proj[expert] += torch.cat([added["gate"], added["up"]])
                stacks.down_proj[expert] += added["down"]
    save_file(found, folder / "adapter_model.safetensors")


def test_layers_of_experts_that_are_stacks_now_are_added_to_their_parts(tmp_path: Path) -> None:
    """The first half of a stack's rows is gate_proj, the second up_proj."""
    config = tiny_config("qwen3_moe", vocab_size=64)
    config.mlp_only_layers = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_config(config).eval()
    by_hand = copy.deepcopy(base)
    one_for_each_expert(tmp_path, by_hand)
    own = naive_scores(by_hand, PROMPT, ANSWERS)
    assert max(abs(a - b) for a, b in zip(own, naive_scores(base, PROMPT, ANSWERS), strict=True)) > 0.05
    adapted = put_on(base, tmp_path).eval()
    assert naive_scores(adapted, PROMPT, ANSWERS) == pytest.approx(own, abs=1e-4)
    assert naive_scores(fold(adapted), PROMPT, ANSWERS) == pytest.approx(own, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("qwen3", {"lora_bias": True}, r"can't be added into the weights of Qwen3ForCausalLM: .*lora_bias=True"),
        ("jamba", {"target_modules": ["in_proj", "dt_proj"]}, r"of JambaForCausalLM, so it isn't a sum of weights"),
    ],
)
def test_what_is_no_sum_of_weights_is_refused_when_it_is_folded(
    name: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """A bias for a layer without one, and adapters on a layer whose weight its mixer reads past them."""
    trained_elsewhere(tmp_path, lora(**options), TINY[name](vocab_size=64))
    adapted = put_on(TINY[name](vocab_size=64), tmp_path)
    with pytest.raises(BackendError, match=message):
        fold(adapted)


REFUSED = {
    "PROMPT_TUNING": peft.PromptTuningConfig(num_virtual_tokens=3, **CAUSAL),
    "PREFIX_TUNING": peft.PrefixTuningConfig(num_virtual_tokens=3, **CAUSAL),
    "P_TUNING": peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=8, **CAUSAL),
    "IA3": peft.IA3Config(target_modules=TARGETS, feedforward_modules=[], **CAUSAL),
    "VERA": peft.VeraConfig(r=4, target_modules=["q_proj"], **CAUSAL),
    "alora_invocation_tokens": lora(alora_invocation_tokens=[7]),
    "init_lora_weights = pissa_niter_4": lora(init_lora_weights="pissa_niter_4"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_more_than_add_to_weights_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    trained_elsewhere(tmp_path, REFUSED[name])
    with pytest.raises(ArtifactError, match=re.escape(name)):
        put_on(tied_model(), tmp_path)


def test_weights_under_other_names_are_refused(tmp_path: Path) -> None:
    """Two layers x two modules x A and B are eight weights; half of them belong to the second layer."""
    trained_elsewhere(tmp_path, lora())
    rewritten(tmp_path, lambda found: {name.replace("layers.1.", "layers.7."): found[name] for name in found})
    with pytest.raises(ArtifactError, match=r"4 of its weights have no place .*such as .*layers\.7\.self_attn\.q_proj"):
        put_on(tied_model(), tmp_path)


def test_places_without_weights_are_refused(tmp_path: Path) -> None:
    trained_elsewhere(tmp_path, lora())
    rewritten(tmp_path, lambda found: {name: found[name] for name in found if "layers.1." not in name})
    with pytest.raises(ArtifactError, match=r"4 places get no weights \(such as .*layers\.1\.self_attn\.q_proj"):
        put_on(tied_model(), tmp_path)


def test_saved_modules_without_weights_are_refused(tmp_path: Path) -> None:
    trained_elsewhere(tmp_path, lora(modules_to_save=["lm_head"]))
    rewritten(tmp_path, lambda found: {name: found[name] for name in found if "lm_head" not in name})
    with pytest.raises(ArtifactError, match=r"its weights lack .*lm_head"):
        put_on(tied_model(), tmp_path)


def test_misfits_are_told_by_their_reason(tmp_path: Path) -> None:
    trained_elsewhere(tmp_path / "larger", lora(modules_to_save=["embed_tokens", "lm_head"]), tied_model(67))
    with pytest.raises(ArtifactError, match=r"the vocabulary of its model has another size, .*\[67, 32\].*\[64, 32\]"):
        put_on(tied_model(), tmp_path / "larger")
    trained_elsewhere(tmp_path / "rank", lora())
    path = tmp_path / "rank" / "adapter_config.json"
    write_json(path, read_json(path) | {"r": 8})
    with pytest.raises(ArtifactError, match=r"adapter_config\.json gives rank 8, and the weights have another"):
        put_on(tied_model(), tmp_path / "rank")
    write_json(path, read_json(path) | {"r": 4})
    with pytest.raises(ArtifactError, match="the layers of its model have other sizes"):
        put_on(random_model(hidden_size=48, tie_word_embeddings=True), tmp_path / "rank")
    write_json(path, read_json(path) | {"target_modules": ["c_attn"]})
    with pytest.raises(ArtifactError, match=r"doesn't fit this Qwen3ForCausalLM: Target modules .*c_attn"):
        put_on(tied_model(), tmp_path / "rank")


def test_weights_that_are_pickled_cut_short_empty_or_gone_are_refused(tmp_path: Path) -> None:
    trained_elsewhere(tmp_path, lora())
    path = tmp_path / "adapter_model.safetensors"
    whole = path.read_bytes()
    for content, message in (
        (whole[:-10], "is damaged"),
        (b"", "is damaged"),
        (None, r"adapter_model\.safetensors is missing; the folder holds README\.md, adapter_config\.json"),
    ):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ArtifactError, match=message):
            put_on(tied_model(), tmp_path)
        path.touch()
    save_file({}, path)
    with pytest.raises(ArtifactError, match="holds no weights"):
        put_on(tied_model(), tmp_path)
    path.unlink()
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(ArtifactError, match=r"adapter_model\.bin is a pickle"):
        put_on(tied_model(), tmp_path)


def test_options_that_the_library_leaves_out_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained_elsewhere(tmp_path, lora())
    path = tmp_path / "adapter_config.json"
    write_json(path, read_json(path) | {"of_the_future": {"a": 1}, "unused": None})
    put_on(tied_model(), tmp_path)
    assert "sets of_the_future, which the installed peft doesn't know" in capsys.readouterr().err


def test_a_fold_that_says_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_elsewhere(tmp_path, lora())
    adapted = put_on(tied_model(), tmp_path)
    monkeypatch.setattr(adapted.base_model, "merge_and_unload", adapted.base_model.unload)
    with pytest.raises(BackendError, match=r"changes log-probabilities by .* so it isn't a sum of weights"):
        fold(adapted)


def test_adapters_are_no_model(trained: Workspace) -> None:
    with pytest.raises(ArtifactError, match=r"sft holds adapters .*and was named as a model"):
        resolve(trained, "checkpoints/toy/sft")


def test_an_adapter_is_refused_before_its_model_loads(toy: Workspace, tmp_path: Path) -> None:
    trained_elsewhere(tmp_path, REFUSED["PREFIX_TUNING"])
    (tmp_path / "model").mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / "model" / name).write_bytes((toy.root / "tiny" / name).read_bytes())
    (tmp_path / "model" / "config.json").write_text('{"model_type": "nothing that could be loaded"}')
    with pytest.raises(ArtifactError, match="PREFIX_TUNING"):
        load(toy, tmp_path / "model", tmp_path, device="cpu")
