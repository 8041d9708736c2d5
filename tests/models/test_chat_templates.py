"""Prompts are the same on every day and end where an answer begins; answers end as the template ends them."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_families import FAMILIES, THINKS, byte_tokenizer, family_tokenizer
from small_models import DATASET, WINDOW, random_model, sft_settings
from transformers import AutoTokenizer, GenerationConfig
from transformers.utils import chat_template_utils

from mllmrec.data.prompts import TEMPLATE_VERSION, PromptFormat
from mllmrec.data.sequences import Interactions
from mllmrec.errors import BackendError
from mllmrec.models.chat import Chat, Encoder
from mllmrec.models.huggingface import HuggingFaceGenerator, LoadedModel, load
from mllmrec.settings.training import MergeSettings, SftSettings
from mllmrec.storage.manifests import Manifest, write_manifest
from mllmrec.storage.workspace import Workspace
from mllmrec.training import merge, sft
from mllmrec.training.datasets import training_examples

DATED = (
    "{{- '<|im_start|>system\nToday is ' + strftime_now('%d %b %Y') + '.<|im_end|>\n' }}{%- for m in messages %}"
    "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
TURNS_THAT_END = (
    "{%- for m in messages %}{{- '<start_of_turn>' + m.role + '\n' + m.content + '<end_of_turn>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<start_of_turn>model\n' }}{%- endif %}"
)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_ends_where_an_answer_begins(name: str) -> None:
    family = FAMILIES[name]
    assert Chat(family_tokenizer(name)).prompt("Hi") == family.prompt


@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_ends_as_the_template_ends_it(name: str) -> None:
    tokenizer = family_tokenizer(name)
    chat = Chat(tokenizer)
    assert tokenizer.convert_ids_to_tokens(chat.end_id) == FAMILIES[name].end
    assert chat.answer_ids("[ITEM_1] A") == [*chat.encode("[ITEM_1] A"), chat.end_id]


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_added_to_a_template_is_told_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Chat(family_tokenizer(name))
    told = capsys.readouterr().err
    if remark := FAMILIES[name].remark:
        assert remark in " ".join(told.split())
        assert told.count("The chat template of a-model") == 1
    else:
        assert not told


def test_a_teacher_s_think_block_is_left_open(capsys: pytest.CaptureFixture[str]) -> None:
    """Its reasoning is read and hidden, and models that always think can't be told not to."""
    for name, opened in (("deepseek-r1", "<｜Assistant｜><think>\n"), ("qwen3-thinking", "assistant\n<think>\n")):
        for thinking in (True, False):
            assert Chat(family_tokenizer(name), thinking=thinking).prompt("Hi").endswith(opened)
    assert Chat(family_tokenizer("qwen3"), thinking=False).prompt("Hi").endswith("<think>\n\n</think>\n\n")
    assert Chat(family_tokenizer("qwen3"), thinking=True).prompt("Hi").endswith("<|im_start|>assistant\n")
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("opening", "closed"),
    [
        ("<think>", "<think>\n\n</think>\n\n"),
        ("[THINK]", "[THINK]\n\n[/THINK]\n\n"),
        ("<seed:think>\n", "<seed:think>\n\n</seed:think>\n\n"),
        ("◁think▷", "◁think▷\n\n◁/think▷\n\n"),
        ("<|START_THINKING|>", "<|START_THINKING|>\n\n<|END_THINKING|>\n\n"),
    ],
)
def test_think_blocks_of_other_families_are_closed_by_their_own_marks(
    opening: str, closed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    template = FAMILIES["plain"].template.replace("'### assistant: '", f"'### assistant: {opening}'")
    chat = Chat(byte_tokenizer(template.replace("\n", "\\n")))
    assert chat.prompt("Hi") == f"### user: Hi\n### assistant: {closed}"
    assert THINKS in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("opening", ["<|my_thoughts|>", "<|channel|>analysis<|message|>", "Reasoning first:\n"])
def test_a_think_block_that_nothing_is_known_to_close_is_refused(opening: str) -> None:
    template = FAMILIES["plain"].template.replace("'### assistant: '", f"'### assistant: {opening}'")
    with pytest.raises(
        BackendError, match=r"a-model opens a think block in every prompt, with .* choose another model"
    ):
        Chat(byte_tokenizer(template.replace("\n", "\\n")))


class NextYear(datetime):
    @classmethod
    def now(cls, *_: Any) -> NextYear:
        return cls(2027, 5, 9, 13, 45)


@pytest.mark.parametrize("name", ["llama3", "gpt-oss", "smollm3"])
def test_a_prompt_is_the_same_on_another_day(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template_utils, "datetime", NextYear)
    assert Chat(family_tokenizer(name)).prompt("Hi") == FAMILIES[name].prompt


def test_the_clock_stands_still_in_every_form() -> None:
    template = DATED.replace("%d %b %Y", "%A, %-d %B %Y at %H:%M:%S (%j)")
    assert "Friday, 26 July 2024 at 00:00:00 (208)" in Chat(byte_tokenizer(template)).prompt("Hi")


@pytest.mark.parametrize(
    ("content", "times"),
    [
        ("m.content + m.content", 2),
        ("'nothing'", 0),
        ("m.content | upper", 0),
        ("m.content | tojson", 0),
        ("m.content.split('\n')[0]", 0),
        ("m.content | e", 0),
    ],
)
def test_a_template_has_to_write_a_user_s_text_exactly_once(content: str, times: int) -> None:
    template = DATED.replace("m.content", content)
    with pytest.raises(BackendError, match=f"a-model writes a user's text {times} times as it is. Expected it exactly"):
        Chat(byte_tokenizer(template))


@pytest.mark.parametrize("chance", ["{{ ['a', 'b'] | random }}", "{{ lipsum(1) }}"])
def test_a_template_that_writes_by_chance_is_refused(chance: str) -> None:
    with pytest.raises(BackendError, match="a-model writes by chance"):
        Chat(byte_tokenizer(DATED + chance))


@pytest.mark.parametrize(
    "fault", ["{{ raise_exception('tools are needed') }}", "{{ 1 / 0 }}", "{% for %}", "{{ a.b }}"]
)
def test_a_template_that_fails_is_told_in_one_paragraph(fault: str) -> None:
    with pytest.raises(BackendError, match="The chat template of a-model can't write a conversation") as error:
        Chat(byte_tokenizer(DATED + fault))
    assert "\n" not in str(error.value)


# ---- models in folders


def with_template(workspace: Workspace, name: str, template: str, special: tuple[str, ...] = ()) -> Path:
    """`tiny` under another name with another chat template, and special tokens in place of words of its vocabulary."""
    folder = workspace.root / name
    loaded = load(workspace, "tiny", device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(workspace.root / "tiny")
    tokenizer.chat_template = template
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    loaded.model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    loaded.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def mark(folder: Path, template: str, finished_at: str) -> None:
    """Give a folder the manifest of a checkpoint that was trained with a version of the template."""
    form = PromptFormat(window=WINDOW, captions=False, max_prompt_tokens=2048, template=template).to_details()
    write_manifest(folder, SftSettings(dataset=DATASET), {}, started=0.0, details=form)
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"finished_at": finished_at}))


def test_a_checkpoint_keeps_the_day_that_its_chat_showed_it(toy_copy: Workspace) -> None:
    """Of this version that is the constant; of the one before, the day of training; what is made of it keeps it."""
    folder = with_template(toy_copy, "dated", DATED)
    assert "Today is 26 Jul 2024." in load(toy_copy, "dated", device="cpu").chat.prompt("Hi")
    mark(folder, TEMPLATE_VERSION, "2026-12-24T10:00:00Z")
    assert "Today is 26 Jul 2024." in load(toy_copy, "dated", device="cpu").chat.prompt("Hi")
    mark(folder, "2026-11.2", "2026-11-05T10:00:00Z")
    assert "Today is 05 Nov 2026." in load(toy_copy, "dated", device="cpu").chat.prompt("Hi")

    sft.run(sft_settings(toy_copy, backbone="dated", limit=8, eval_users=2), toy_copy)
    adapter, merged = (toy_copy.checkpoint(DATASET, tag) for tag in ("sft", "sft-merged"))
    mark(adapter, PromptFormat.of(Manifest.read(adapter)).template, "2026-11-29T10:00:00Z")
    (adapter / "manifest.json").write_text(
        json.dumps(
            json.loads((adapter / "manifest.json").read_text())
            | {"inputs": {"model": load(toy_copy, "dated", device="cpu").hashes["model"]}}
            | {"details": {"model": "dated"} | json.loads((adapter / "manifest.json").read_text())["details"]}
        )
    )
    assert "Today is 05 Nov 2026." in load(toy_copy, "dated", adapter, device="cpu").chat.prompt("Hi")
    merge.run(MergeSettings(dataset=DATASET, root=str(toy_copy.root)), toy_copy)
    assert "Today is 05 Nov 2026." in load(toy_copy, merged, device="cpu").chat.prompt("Hi")


def test_a_checkpoint_of_the_version_before_is_asked_as_it_was_trained(toy_copy: Workspace) -> None:
    """Its prompts came as the template made them, and its answers ended with the tokenizer's end of text."""
    template = TURNS_THAT_END.replace("model\n", "model\n<think>\n")
    folder = with_template(toy_copy, "former", template, ("<start_of_turn>", "<end_of_turn>"))
    mark(folder, "2026-11.2", "2026-11-05T10:00:00Z")
    chat = load(toy_copy, "former", device="cpu").chat
    assert chat.prompt("Hi").endswith("<start_of_turn>model\n<think>\n")
    assert chat.end_id == chat.tokenizer.eos_token_id


def test_training_scoring_and_generation_end_an_answer_with_the_same_token(toy_copy: Workspace) -> None:
    special = ("<start_of_turn>", "<end_of_turn>")
    with_template(toy_copy, "turns", TURNS_THAT_END, special)
    loaded = load(toy_copy, "turns", device="cpu")
    end = loaded.tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert end != loaded.tokenizer.eos_token_id
    interactions = Interactions.load(toy_copy, DATASET)
    encoder = Encoder.make(loaded.chat, interactions.catalogue, {}, 2048)
    settings = sft_settings(toy_copy, backbone="turns", limit=8, batch=2)
    examples = training_examples(settings, toy_copy, interactions, WINDOW)

    lora = sft._lora(settings, loaded.names[0])
    trainer = sft._trainer(settings, toy_copy.root / "out", loaded, encoder, examples, 1, lora)
    batch = next(iter(trainer.get_train_dataloader()))
    labels = [row[row != -100].tolist() for row in batch["labels"]]
    assert [row[-1] for row in labels] == [end, end]
    assert all(row.count(end) == 1 and loaded.tokenizer.eos_token_id not in row for row in labels)
    task = encoder.scoring_task(examples.example(0, 0))
    assert {answer[-1] for answer in task.answers_C} == {end}
    assert end in loaded.model.generation_config.eos_token_id

    sft.run(settings.model_copy(update={"peft": "none", "eval_users": 2}), toy_copy)
    stored = GenerationConfig.from_pretrained(toy_copy.checkpoint(DATASET, "sft"))
    assert set(stored.eos_token_id) == {end, loaded.tokenizer.eos_token_id}


@pytest.mark.parametrize(("first", "length"), [(255, 3), (258, 2)])
def test_generation_stops_at_the_end_of_an_answer_and_at_the_end_of_text(first: int, length: int) -> None:
    """Weights by hand: after token t the model writes t + 1. 258 is the end of text, 260 the end of an answer."""
    tokenizer = byte_tokenizer(TURNS_THAT_END, special=("<start_of_turn>", "<end_of_turn>"))
    count, chat = len(tokenizer), Chat(tokenizer)
    assert (chat.end_id, tokenizer.eos_token_id, count) == (260, 258, 261)
    model = random_model(vocab_size=count, hidden_size=count, eos_token_id=258, pad_token_id=256)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(count))
        model.lm_head.weight = torch.nn.Parameter(torch.eye(count).roll(1, dims=0))
    written: list[int] = []
    generate = model.generate

    def recording(**options: Any) -> Any:
        output = generate(**options)
        written.append(output.shape[1] - 1)
        return output

    model.generate = recording
    loaded = LoadedModel(model=model, tokenizer=tokenizer, chat=chat, names=(), hashes={})
    HuggingFaceGenerator(loaded).generate([[first]], num_answers=1, max_new_tokens=9)
    assert written == [length]
