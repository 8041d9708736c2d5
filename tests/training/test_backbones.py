"""`mllmrec backbone tiny`: an ordinary Qwen3 folder, the same bytes for the same seed."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import DATASET, make_backbone, random_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM
from trl.chat_template_utils import qwen3_chat_template

from mllmrec.data.sequences import Interactions, is_held_out
from mllmrec.errors import ArtifactError, DataError
from mllmrec.models.small_qwen3 import SPECIAL_TOKENS
from mllmrec.settings.training import BackboneSettings
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import Workspace, sha256, write_text
from mllmrec.training import pretraining as pretrain_module
from mllmrec.training.backbones import run, train_tokenizer
from mllmrec.training.pretraining import IGNORED, SequenceGame, copy_batch, keep_state, kept_position

FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def digests(folder: Path) -> dict[str, str]:
    return {name: sha256(folder / name) for name in (*FILES, "chat_template.jinja")}


def test_the_parameters_are_those_of_the_flags(toy: Workspace) -> None:
    """Two layers of width 32 with two heads of 32 dimensions, an MLP four times as wide, embeddings tied."""
    folder, width, heads, layers = toy.root / "tiny", 32, 2, 2
    vocab = len(AutoTokenizer.from_pretrained(folder))
    attention = 4 * width * heads * 32 + 2 * 32
    block = attention + 3 * width * 4 * width + 2 * width
    expected = vocab * width + layers * block + width
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model) is Qwen3ForCausalLM
    assert sum(weight.numel() for weight in model.parameters()) == expected
    manifest = Manifest.read(folder)
    assert manifest is not None
    assert manifest.details["num_parameters"] == expected
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.config.eos_token_id == AutoTokenizer.from_pretrained(folder).eos_token_id


def test_the_tokenizer_chats_like_qwen3(toy: Workspace) -> None:
    tokenizer = AutoTokenizer.from_pretrained(toy.root / "tiny")
    assert tokenizer.chat_template == qwen3_chat_template
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    for token in SPECIAL_TOKENS:
        assert len(tokenizer(token)["input_ids"]) == 1
    strange = "Léon: the Professional (1994) [ITEM_7] 千と千尋 \U0001f600\t\n  x"
    assert tokenizer.decode(tokenizer(strange)["input_ids"]) == strange


def test_ids_are_single_tokens_where_the_vocabulary_has_room(toy: Workspace) -> None:
    catalogue = Interactions.load(toy, DATASET).catalogue
    roomy, tight = train_tokenizer(catalogue, 600), train_tokenizer(catalogue, 300)
    assert all(len(roomy(item)["input_ids"]) == 1 for item in catalogue)
    assert roomy.tokenize("[ITEM_101] Amber Lantern") == ["[ITEM_", "101", "]", "ĠAmber", "ĠLantern"]
    assert (len(roomy) <= 600, len(tight)) == (True, 300)
    assert any(len(tight(item)["input_ids"]) > 1 for item in catalogue)


def test_the_same_seed_makes_the_same_bytes_and_another_seed_other_weights(toy: Workspace, toy_copy: Workspace) -> None:
    """Pre-training included, and whatever state the global generator is in."""
    knobs = {"copy_steps": 2, "sequence_steps": 2}
    first = digests(make_backbone(toy_copy, out="first", **knobs))
    torch.rand(7)
    assert digests(make_backbone(toy_copy, out="again", **knobs)) == first
    other, plain = digests(make_backbone(toy_copy, out="other", seed=7)), digests(toy.root / "tiny")
    assert [name for name in plain if other[name] != plain[name]] == ["model.safetensors"]


@pytest.mark.parametrize("stop", [1, 3])
def test_an_interrupted_pre_training_goes_on_to_the_same_bytes(
    toy_copy: Workspace, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """A stop in the game of copying, and one in the game of sequences; the second start takes only the steps left."""
    knobs: dict[str, int] = {"copy_steps": 2, "sequence_steps": 3}
    whole = digests(make_backbone(toy_copy, out="whole", **knobs))
    monkeypatch.setattr(pretrain_module, "SAVE_SECONDS", -1.0)
    taken: list[int] = []
    step = pretrain_module._Game._step

    def count(game: Any, model: Any, optimizer: Any, number: int) -> float:
        if len(taken) == stop:
            raise KeyboardInterrupt
        taken.append(number)
        return step(game, model, optimizer, number)

    monkeypatch.setattr(pretrain_module._Game, "_step", count)
    with pytest.raises(KeyboardInterrupt):
        make_backbone(toy_copy, out="cut", **knobs)
    stop, before = 99, len(taken)
    assert digests(make_backbone(toy_copy, out="cut", **knobs)) == whole
    assert len(taken) - before == 5 - before
    assert not (toy_copy.root / "cut" / "pretraining").exists()


def test_what_was_begun_with_other_settings_is_begun_anew(
    toy_copy: Workspace,
) -> None:
    model = random_model()
    optimizer = torch.optim.AdamW(model.parameters())
    keep_state(toy_copy.root / "state", model, optimizer, {"lr": 1}, {"game": "copying"})
    assert kept_position(toy_copy.root / "state", {"lr": 1}) == {"game": "copying"}
    assert kept_position(toy_copy.root / "state", {"lr": 2}) is None
    (toy_copy.root / "state" / "state.safetensors").write_bytes(b"cut short")
    assert kept_position(toy_copy.root / "state", {"lr": 1}) is None


def test_pre_training_on_sequences_lowers_the_loss(toy_copy: Workspace) -> None:
    """Guessing a token costs ln(482) = 6.2 nats; which token follows `[ITEM_` alone is 3.9 at chance."""
    manifest = Manifest.read(make_backbone(toy_copy, out="read", sequence_steps=80, lr=5e-3))
    untrained = Manifest.read(make_backbone(toy_copy, out="unread", sequence_steps=1, lr=1e-9))
    assert manifest is not None
    assert untrained is not None
    assert untrained.details["losses"]["sequences"] == pytest.approx(math.log(482), abs=0.2)
    assert manifest.details["losses"]["sequences"] < 3
    assert set(manifest.details["losses"]) == {"sequences"}


@pytest.mark.slow
def test_pre_training_on_copies_teaches_copying(toy_copy: Workspace) -> None:
    """Random tokens can't be guessed, only copied: any loss well below ln(320) = 5.8 is copying."""
    knobs = {"width": 64, "heads": 4, "vocab": 320, "copy_steps": 400, "batch": 32, "lr": 3e-3}
    manifest = Manifest.read(make_backbone(toy_copy, out="copies", **knobs))
    assert manifest is not None
    assert manifest.details["losses"]["copying"] < 3.5


def test_a_copy_batch_labels_the_second_copy_but_its_first_token() -> None:
    input_ids, labels = copy_batch(random.Random(0), range(10, 99), 3)
    assert input_ids.shape == labels.shape
    for row, wanted in zip(input_ids.tolist(), labels.tolist(), strict=True):
        length = sum(label != IGNORED for label in wanted) + 1
        assert 8 <= length <= 32
        assert row[:length] == row[-length:]
        assert wanted == [IGNORED] * (len(row) - length + 1) + row[-length + 1 :]
        assert set(row) <= set(range(10, 99))


def test_validation_targets_are_in_no_sequence(toy_copy: Workspace) -> None:
    """Item 999 occurs as the target of validation users alone, and as nothing else."""
    toy_copy.dataset(DATASET).split("valid").unlink()
    rows = []
    for line in Interactions.load(toy_copy, DATASET).train:
        items = (*line.items[:-1], "999") if is_held_out(line.user_id) else line.items
        rows.append(f"{line.user_id}\t{' '.join(items)}")
    write_text(toy_copy.dataset(DATASET).split("train"), "\n".join(rows) + "\n")
    tokenizer = AutoTokenizer.from_pretrained(toy_copy.root / "tiny")
    toy = Interactions.load(toy_copy, DATASET)
    draw = SequenceGame(tokenizer, toy.catalogue, toy.training_lines(), 200, 0.5, 0.3)
    text = tokenizer.batch_decode(draw(random.Random(0))[0])
    assert not any("999" in row for row in text)
    assert any("[ITEM_101]" in row for row in text)


def test_a_finished_backbone_is_left_alone_and_another_one_refused(toy_copy: Workspace) -> None:
    settings = BackboneSettings(
        dataset=DATASET, root=str(toy_copy.root), layers=2, width=32, heads=2, vocab=600, batch=8
    )
    before = digests(toy_copy.root / "tiny")
    assert "nothing to do" in run(settings, toy_copy).headline
    with pytest.raises(ArtifactError, match=r"setting width was 32 and is now 64"):
        run(settings.model_copy(update={"width": 64}), toy_copy)
    assert digests(toy_copy.root / "tiny") == before
    run(settings.model_copy(update={"width": 64, "overwrite": True}), toy_copy)
    assert json.loads((toy_copy.root / "tiny/config.json").read_text())["hidden_size"] == 64


def test_a_model_of_another_origin_is_not_written_over(toy_copy: Workspace) -> None:
    (toy_copy.root / "tiny/manifest.json").unlink()
    before = digests(toy_copy.root / "tiny")
    with pytest.raises(ArtifactError, match=r"tiny is there and `mllmrec backbone` didn't make it"):
        make_backbone(toy_copy)
    assert digests(toy_copy.root / "tiny") == before


def test_sequences_that_hold_a_test_target_are_refused(toy_copy: Workspace) -> None:
    interactions = Interactions.load(toy_copy, DATASET)
    line, later = interactions.train[0], interactions.test[0]
    assert line.user_id == later.user_id
    path = toy_copy.dataset(DATASET).split("train")
    write_text(path, path.read_text().replace(f"{line.user_id}\t", f"{line.user_id}\t{later.items[-1]} ", 1))
    with pytest.raises(DataError, match=r"train.tsv:1: .*the test target of this user"):
        make_backbone(toy_copy, out="leaky", sequence_steps=1)


@pytest.mark.parametrize(("share", "titled"), [(0.0, 0), (1.0, 20)])
def test_the_share_of_titles_in_sequences(toy: Workspace, share: float, titled: int) -> None:
    interactions = Interactions.load(toy, DATASET)
    tokenizer = AutoTokenizer.from_pretrained(toy.root / "tiny")
    game = SequenceGame(tokenizer, interactions.catalogue, interactions.training_lines(), 20, 0.0, share)
    rows = tokenizer.batch_decode(game(random.Random(0))[0])
    answers = [f"[ITEM_{item}] {interactions.catalogue.title(item)}\n" for item in interactions.catalogue.ids]
    assert sum(any(answer in row for answer in answers) for row in rows) == titled
