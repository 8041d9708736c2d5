"""Loading: what is found, what is refused and in which words. Generating: K answers, best first, batch or not."""

from __future__ import annotations

import shutil
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_models import DATASET, WINDOW, make_backbone, naive_scores, random_model

from mllmrec.data.candidates.drawing import read_candidates
from mllmrec.data.sequences import Interactions
from mllmrec.errors import ArtifactError, BackendError, SettingsError
from mllmrec.models.adapters import folded_meanwhile
from mllmrec.models.base import ScoringTask
from mllmrec.models.chat import Encoder
from mllmrec.models.huggingface import (
    HuggingFaceGenerator,
    LoadedModel,
    choose_device,
    choose_dtype,
    folded,
    load,
    portable,
    resolve,
)
from mllmrec.models.scoring import HuggingFaceScorer
from mllmrec.storage.workspace import Workspace

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def full(trained: Workspace) -> LoadedModel:
    return load(trained, f"checkpoints/{DATASET}/full", device="cpu")


@pytest.fixture(scope="module")
def prompts(trained: Workspace, full: LoadedModel) -> list[list[int]]:
    """Eight test prompts of different lengths."""
    interactions = Interactions.load(trained, DATASET)
    encoder = Encoder.make(full.chat, interactions.catalogue, {}, 2048)
    path = trained.dataset(DATASET).candidates("test", "uni9", WINDOW, 42)
    chosen = [encoder.prompt_ids(example) for example in read_candidates(path)[:40]]
    lengths = sorted(range(40), key=lambda row: len(chosen[row]))
    return [chosen[row] for row in (lengths[0], lengths[-1], *lengths[10:34:4])]


def test_a_model_is_found_below_the_root_and_by_any_path(toy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = toy.root / "tiny"
    assert Path(resolve(toy, "tiny")) == folder
    assert Path(resolve(Workspace("/nowhere"), str(folder))) == folder
    monkeypatch.chdir(toy.root / "data")
    assert Path(resolve(Workspace("/nowhere"), "../tiny")).resolve() == folder.resolve()
    assert load(toy, "tiny", device="cpu").names == (str(folder),)


def test_weights_that_were_altered_after_training_are_refused(trained: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "full"
    shutil.copytree(trained.checkpoint(DATASET, "full"), folder)
    assert load(trained, str(folder), device="cpu").names == (str(folder),)
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    with pytest.raises(ArtifactError, match=r"no longer what .* finished: model\.safetensors was altered"):
        load(trained, str(folder), device="cpu")
    (folder / "manifest.json").unlink()
    assert load(trained, str(folder), device="cpu").names == (str(folder),), "nothing vouches for it"


def test_a_name_of_two_parts_is_a_hub_id(toy: Workspace) -> None:
    assert resolve(toy, "Qwen/Qwen3-4B") == "Qwen/Qwen3-4B"
    with pytest.raises(BackendError, match=r"no-such-owner/no-such-model can't be loaded: .*`mllmrec fetch backbone`"):
        load(toy, "no-such-owner/no-such-model", device="cpu")


def test_manifests_name_models_so_that_a_workspace_can_move(toy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert portable(toy, str(toy.root / "tiny")) == "tiny"
    assert portable(Workspace("/nowhere"), str(toy.root / "tiny")) == str((toy.root / "tiny").resolve())
    assert portable(toy, "Qwen/Qwen3-4B") == "Qwen/Qwen3-4B"
    monkeypatch.chdir(toy.root)
    assert portable(Workspace("."), "tiny") == "tiny"


@pytest.mark.parametrize(
    ("removed", "named"),
    [
        ("model.safetensors", r"weights \(model\.safetensors\)"),
        ("config.json", r"config\.json"),
        ("tokenizer.json", r"a tokenizer \(tokenizer\.json\)"),
    ],
)
def test_an_incomplete_folder_says_what_is_missing_and_what_is_there(
    toy: Workspace, tmp_path: Path, removed: str, named: str
) -> None:
    folder = shutil.copytree(toy.root / "tiny", tmp_path / "half")
    (folder / removed).unlink()
    with pytest.raises(ArtifactError, match=rf"half is no complete model folder: {named} missing; it holds .*\.json"):
        load(toy, folder, device="cpu")


def test_weights_cut_short_are_no_complete_model(toy: Workspace, tmp_path: Path) -> None:
    folder = shutil.copytree(toy.root / "tiny", tmp_path / "half")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ArtifactError, match=r"half is no complete model folder: a whole model\.safetensors"):
        load(toy, folder, device="cpu")


def test_an_unknown_name_lists_the_models_that_are_here(toy: Workspace) -> None:
    with pytest.raises(ArtifactError) as error:
        resolve(toy, "Qwen3-4B")
    assert "There is no model 'Qwen3-4B'" in str(error.value)
    assert f"Models under {toy.root}: tiny." in str(error.value)
    assert "mllmrec fetch backbone Qwen/Qwen3-4B" in str(error.value)
    with pytest.raises(ArtifactError, match=r"no model 'little'.*mllmrec fetch backbone Qwen/Qwen3-4B`"):
        resolve(toy, "little")


def test_adapters_folded_into_float32_weights_score_alike(trained: Workspace) -> None:
    adapter = trained.checkpoint(DATASET, "sft")
    loaded = load(trained, f"checkpoints/{DATASET}/full", adapter, device="cpu", dtype="float32")
    ids = torch.arange(2, 12)[None]
    with torch.no_grad():
        with loaded.model.disable_adapter():
            bare = loaded.model(ids).logits
        expected = loaded.model(ids).logits
        assert not torch.allclose(bare, expected, atol=1e-3)
        one = folded(loaded)
        assert not hasattr(one.model, "peft_config")
        torch.testing.assert_close(one.model(ids).logits, expected, atol=1e-4, rtol=1e-4)
    assert folded(one) is one
    half = load(trained, f"checkpoints/{DATASET}/full", adapter, device="cpu", dtype="bfloat16")
    assert folded(half) is half


def test_adapters_folded_for_a_while_leave_every_weight_as_it_was(trained: Workspace) -> None:
    """Within the block base layers hold the sum; after it, however it ended, no bit has moved."""
    with_adapter = load(trained, f"checkpoints/{DATASET}/full", trained.checkpoint(DATASET, "sft"), device="cpu").model
    before = {name: weight.clone() for name, weight in with_adapter.state_dict().items()}
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        plain = with_adapter(ids).logits
        with suppress(KeyboardInterrupt), folded_meanwhile(with_adapter):
            torch.testing.assert_close(with_adapter(ids).logits, plain, rtol=0, atol=1e-4)
            assert any(not torch.equal(before[name], now) for name, now in with_adapter.state_dict().items())
            raise KeyboardInterrupt
        assert torch.equal(with_adapter(ids).logits, plain)
    after = with_adapter.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], weight) for name, weight in after.items())
    half = with_adapter.to(torch.bfloat16)
    rounded = {name: weight.clone() for name, weight in half.state_dict().items()}
    with folded_meanwhile(half):
        assert all(torch.equal(rounded[name], weight) for name, weight in half.state_dict().items())


def test_adapters_load_only_on_the_model_they_were_trained_on(trained: Workspace) -> None:
    adapter = trained.checkpoint(DATASET, "grpo")
    with pytest.raises(ArtifactError) as error:
        load(trained, f"checkpoints/{DATASET}/full", adapter, device="cpu")
    assert f"was trained on checkpoints/{DATASET}/sft-merged" in str(error.value)
    assert "--force" in str(error.value)
    merged = load(trained, f"checkpoints/{DATASET}/sft-merged", adapter, device="cpu")
    assert merged.names == (str(trained.checkpoint(DATASET, "sft-merged")), str(adapter))
    forced = load(trained, f"checkpoints/{DATASET}/full", adapter, device="cpu", force=True)
    assert forced.names[0] == str(trained.checkpoint(DATASET, "full"))


def test_another_seed_is_another_model(trained_copy: Workspace) -> None:
    """The same architecture and tokenizer, other weights: only a look at the weights tells."""
    make_backbone(trained_copy, out="other", seed=7)
    with pytest.raises(ArtifactError, match=r"and .*other is not that model \(their hashes differ\)"):
        load(trained_copy, "other", trained_copy.checkpoint(DATASET, "sft"), device="cpu")


def test_adapters_without_a_manifest_are_used_with_a_remark(
    trained_copy: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = trained_copy.checkpoint(DATASET, "sft")
    (adapter / "manifest.json").unlink()
    load(trained_copy, "tiny", adapter, device="cpu")
    assert "no manifest that says which model it was trained on" in capsys.readouterr().err


def test_a_folder_without_adapters_is_no_adapter(trained: Workspace) -> None:
    with pytest.raises(ArtifactError, match=r"adapter_config\.json is missing\. Name a LoRA checkpoint"):
        load(trained, "tiny", trained.root / "tiny", device="cpu")


def test_device_and_number_format_are_chosen_and_told(toy: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert choose_dtype("auto", CPU) == torch.float32
    assert choose_dtype("bfloat16", CPU) == torch.bfloat16
    if not torch.cuda.is_available():
        assert choose_device("auto").type in ("cpu", "mps")
        with pytest.raises(SettingsError, match=r"--device cuda was asked for and there is none here"):
            choose_device("cuda")
    loaded = load(toy, "tiny", device="cpu", dtype="bfloat16")
    assert next(loaded.model.parameters()).dtype == torch.bfloat16
    told = capsys.readouterr().err
    assert told.startswith(f"model: {toy.root / 'tiny'} (0.06M parameters, torch.bfloat16 on cpu)")


def test_beams_come_in_the_order_of_their_exact_scores(full: LoadedModel, prompts: list[list[int]]) -> None:
    texts = HuggingFaceGenerator(full).generate(prompts, num_answers=4, max_new_tokens=16)
    tasks = [
        ScoringTask(prompt_T=prompt, answers_C=[full.chat.answer_ids(text) for text in beams])
        for prompt, beams in zip(prompts, texts, strict=True)
    ]
    scores = dict(HuggingFaceScorer(full.model).score(tasks))
    for index, beams in enumerate(texts):
        assert len(set(beams)) == 4
        assert all(better >= worse - 1e-4 for better, worse in pairwise(scores[index]))
    assert any(text.startswith("[ITEM_") for beams in texts for text in beams)


def test_a_longer_answer_has_no_advantage() -> None:
    """A model over twelve tokens ends answers at any length; the sum of log-probabilities counts, not the mean."""
    end, model = 1, random_model(vocab_size=12, seed=3)

    def spell(row: list[int], **_options: bool) -> str:
        return " ".join(map(str, row[: row.index(end) + 1])) if end in row else ""

    spelled = SimpleNamespace(pad_token_id=0, decode=spell, added_tokens_decoder={})
    loaded = LoadedModel(model=model, tokenizer=spelled, chat=SimpleNamespace(end_id=end), names=(), hashes={})
    texts = HuggingFaceGenerator(loaded).generate([[5, 6, 7]], num_answers=8, max_new_tokens=6)[0]
    answers = [list(map(int, text.split())) for text in texts if text]
    assert len({len(answer) for answer in answers}) > 2
    scores = naive_scores(model, [5, 6, 7], answers)
    assert scores == sorted(scores, reverse=True)


def test_answers_of_a_batch_are_those_of_one_by_one(full: LoadedModel, prompts: list[list[int]]) -> None:
    generator = HuggingFaceGenerator(full)
    together = generator.generate(prompts, num_answers=3, max_new_tokens=16)
    alone = [generator.generate([prompt], num_answers=3, max_new_tokens=16)[0] for prompt in prompts]
    assert together == alone
    greedy = generator.generate(prompts, num_answers=1, max_new_tokens=16)
    assert [len(texts) for texts in greedy] == [1] * len(prompts)


def test_an_answer_ends_at_the_end_token_and_holds_no_control_tokens(
    full: LoadedModel, prompts: list[list[int]]
) -> None:
    texts = HuggingFaceGenerator(full).generate(prompts, num_answers=2, max_new_tokens=16)
    assert not any("<|" in text or "think>" in text for beams in texts for text in beams)
