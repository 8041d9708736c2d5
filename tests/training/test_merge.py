"""`mllmrec merge`: one model that says what adapters and backbone said."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from small_models import DATASET, weights_of
from transformers import Qwen3ForCausalLM

from mllmrec.errors import ArtifactError, BackendError
from mllmrec.models.huggingface import load
from mllmrec.records import Summary
from mllmrec.settings.training import MergeSettings
from mllmrec.storage.manifests import Manifest, hash_model, vouched
from mllmrec.storage.workspace import Workspace, read_json, write_json, write_text
from mllmrec.training.merge import run, stored_dtype

IDS = torch.tensor([[7, 8, 9, 10, 11, 12, 300, 301, 302, 5, 6]])


def merge(workspace: Workspace, **knobs: Any) -> Summary:
    return run(MergeSettings(dataset=DATASET, root=str(workspace.root), **knobs), workspace)


@torch.no_grad()
def logits(workspace: Workspace, name: str, adapter: Path | None = None) -> torch.Tensor:
    loaded = load(workspace, name, adapter, device="cpu", dtype="float32")
    found: torch.Tensor = loaded.model(input_ids=IDS).logits
    return found


def vouch_for_all(folder: Path) -> None:
    """The manifest of a folder tells of its files as they are now."""
    path = folder / "manifest.json"
    write_json(path, read_json(path) | {"outputs": vouched(folder)})


def in_bfloat16(workspace: Workspace) -> None:
    """Store the backbone of the adapters in bfloat16; the manifests follow."""
    folder = workspace.checkpoint(DATASET, "full")
    load(workspace, folder, device="cpu").model.to(torch.bfloat16).save_pretrained(folder)
    vouch_for_all(folder)
    path = workspace.checkpoint(DATASET, "sft") / "manifest.json"
    manifest = read_json(path)
    manifest["inputs"]["model"] = hash_model(folder)
    write_json(path, manifest)


def test_the_merged_model_says_what_the_adapters_said(trained: Workspace) -> None:
    adapted = logits(trained, f"checkpoints/{DATASET}/full", trained.checkpoint(DATASET, "sft"))
    merged = logits(trained, f"checkpoints/{DATASET}/sft-merged")
    torch.testing.assert_close(merged, adapted, atol=1e-4, rtol=1e-4)
    assert (logits(trained, f"checkpoints/{DATASET}/full") - merged).abs().max() > 0.01


def test_the_product_is_added_to_the_weights(trained: Workspace) -> None:
    """W + alpha / r B A by hand, for one layer; what has no adapter stays to the bit."""
    before = weights_of(trained.checkpoint(DATASET, "full"))
    after = weights_of(trained.checkpoint(DATASET, "sft-merged"))
    adapters = weights_of(trained.checkpoint(DATASET, "sft"))
    name = "model.layers.1.mlp.down_proj"
    A, B = (adapters[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    torch.testing.assert_close(after[f"{name}.weight"], before[f"{name}.weight"] + 16 / 16 * B @ A)
    assert before.keys() == after.keys()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if "norm" in name or "embed" in name}


def test_the_manifest_carries_the_prompt_format_and_the_difference(trained: Workspace) -> None:
    adapter, merged = (Manifest.read(trained.checkpoint(DATASET, tag)) for tag in ("sft", "sft-merged"))
    assert adapter is not None
    assert merged is not None
    for name in ("prompt_format", "validation", "best_step"):
        assert merged.details[name] == adapter.details[name]
    assert merged.details["model"] == f"checkpoints/{DATASET}/sft-merged"
    assert merged.details["backbone"] == f"checkpoints/{DATASET}/full"
    assert 0 <= merged.details["largest_difference"] < 1e-3
    assert merged.inputs["model"] == hash_model(trained.checkpoint(DATASET, "full"))


def test_a_merged_model_is_stored_as_its_backbone_was(trained_copy: Workspace) -> None:
    in_bfloat16(trained_copy)
    assert stored_dtype(trained_copy, f"checkpoints/{DATASET}/full") == torch.bfloat16
    summary = merge(trained_copy, merged_tag="half", tolerance=1.0)
    weights = weights_of(trained_copy.checkpoint(DATASET, "half"))
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    assert 0 < float(str(summary.facts["largest_difference"])) < 1.0
    adapted = logits(trained_copy, f"checkpoints/{DATASET}/full", trained_copy.checkpoint(DATASET, "sft"))
    found = logits(trained_copy, f"checkpoints/{DATASET}/half")
    assert (found.log_softmax(-1) - adapted.log_softmax(-1)).abs().max() < 1.0


def test_beyond_the_tolerance_nothing_is_left(trained_copy: Workspace) -> None:
    """Rounding to bfloat16 moves log-probabilities by far more than 1e-6 nats."""
    in_bfloat16(trained_copy)
    with pytest.raises(BackendError, match=r"changed log-probabilities by .* nats on the probe; --tolerance is 1e-06"):
        merge(trained_copy, merged_tag="half", tolerance=1e-6)
    assert not trained_copy.checkpoint(DATASET, "half").exists()


def test_a_full_model_has_nothing_to_merge(trained: Workspace) -> None:
    summary = merge(trained, tag="full")
    assert summary.headline.endswith("full is a full model already; nothing to merge.")
    assert not trained.checkpoint(DATASET, "full-merged").exists()


def test_a_finished_merge_is_left_alone(trained: Workspace) -> None:
    path = trained.checkpoint(DATASET, "sft-merged") / "model.safetensors"
    before = path.stat().st_mtime_ns
    assert "nothing to do" in merge(trained).headline
    assert path.stat().st_mtime_ns == before


def test_other_adapters_under_the_same_tag_are_not_taken_for_the_old_ones(trained_copy: Workspace) -> None:
    path = trained_copy.checkpoint(DATASET, "sft") / "adapter_config.json"
    write_json(path, read_json(path) | {"lora_alpha": 8})
    with pytest.raises(ArtifactError, match="the input adapter has changed since"):
        merge(trained_copy)
    assert merge(trained_copy, overwrite=True).headline.startswith("Merged into")


def test_adapters_are_merged_into_no_other_model(trained_copy: Workspace) -> None:
    with pytest.raises(ArtifactError, match=r"was trained on checkpoints/toy/full, and .*tiny is not that model"):
        merge(trained_copy, merged_tag="wrong", backbone="tiny")
    assert not trained_copy.checkpoint(DATASET, "wrong").exists()


def test_a_backbone_that_moved_is_found_where_it_is_said_to_be(trained_copy: Workspace) -> None:
    trained_copy.checkpoint(DATASET, "full").rename(trained_copy.root / "moved")
    with pytest.raises(ArtifactError, match="There is no model 'checkpoints/toy/full'"):
        merge(trained_copy, merged_tag="again")
    merge(trained_copy, merged_tag="again", backbone="moved")
    old, new = (weights_of(trained_copy.checkpoint(DATASET, tag)) for tag in ("sft-merged", "again"))
    assert all(torch.equal(old[name], new[name]) for name in old)


def test_what_is_missing_or_unfinished_is_told(trained_copy: Workspace) -> None:
    with pytest.raises(ArtifactError, match=r"The checkpoint nowhere is missing: .* Train it with `mllmrec sft`"):
        merge(trained_copy, tag="nowhere")
    write_text(trained_copy.checkpoint(DATASET, "half-way") / "unfinished.json", "{}")
    with pytest.raises(ArtifactError, match=r"half-way isn't finished: .*Give its `mllmrec sft` command again"):
        merge(trained_copy, tag="half-way")
    folder = trained_copy.checkpoint(DATASET, "sft")
    write_text(folder / "unfinished.json", "{}")  # killed after the manifest was written, before the rest was cleared
    merge(trained_copy, merged_tag="all-the-same")
    (folder / "unfinished.json").unlink()
    (folder / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"has no manifest, which would say which model"):
        merge(trained_copy, merged_tag="foreign")
    merge(trained_copy, merged_tag="foreign", backbone=f"checkpoints/{DATASET}/full")
    ours, theirs = (weights_of(trained_copy.checkpoint(DATASET, tag)) for tag in ("sft-merged", "foreign"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("layer", ["lm_head", "embed_tokens"])
def test_adapters_on_tied_embeddings_are_merged_into_weights_of_their_own(toy_copy: Workspace, layer: str) -> None:
    """Tied, one tensor would get the product twice; what is stored says what the adapters' own trainer says."""
    folder = toy_copy.checkpoint(DATASET, "elsewhere")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = LoraConfig(r=2, target_modules=["q_proj", layer], task_type="CAUSAL_LM", init_lora_weights=False)
        adapted = get_peft_model(load(toy_copy, "tiny", device="cpu").model, config).eval()
        adapted.save_pretrained(str(folder))
    merge(toy_copy, tag="elsewhere", backbone="tiny")
    with torch.no_grad():
        own = adapted(input_ids=IDS).logits
    torch.testing.assert_close(logits(toy_copy, f"checkpoints/{DATASET}/elsewhere-merged"), own, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits(toy_copy, "tiny", folder), own, atol=1e-4, rtol=1e-4)
    assert read_json(toy_copy.checkpoint(DATASET, "elsewhere-merged") / "config.json")["tie_word_embeddings"] is False


def test_a_merged_model_that_says_something_else_once_stored_is_not_kept(
    trained_copy: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def store_half(model: Any, folder: Path, **_options: Any) -> None:
        whole = {
            name: torch.zeros_like(value) if "mlp" in name else value for name, value in model.state_dict().items()
        }
        save(model, folder, state_dict=whole)

    save = Qwen3ForCausalLM.save_pretrained
    monkeypatch.setattr(Qwen3ForCausalLM, "save_pretrained", store_half)
    with pytest.raises(BackendError, match=r"nats once it was stored and read again"):
        merge(trained_copy, merged_tag="torn")
    assert not trained_copy.checkpoint(DATASET, "torn").exists()
    assert not list(trained_copy.checkpoint(DATASET, "torn").parent.glob(".*")), "nor is the draft"


def test_a_model_of_the_users_own_is_not_merged_over(trained_copy: Workspace) -> None:
    folder = trained_copy.checkpoint(DATASET, "mine")
    write_text(folder / "config.json", "{}")
    with pytest.raises(ArtifactError, match=r"mine is there and `mllmrec merge` didn't make it"):
        merge(trained_copy, merged_tag="mine")
    assert [path.name for path in folder.iterdir()] == ["config.json"]
