"""Prompts are the same on every day and end where an answer begins; answers end as the template ends them."""

from __future__ import annotations

import json
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_families import FAMILIES, THINKS, byte_tokenizer, family_tokenizer
from small_models import DATASET, WINDOW, grpo_settings, random_model, sft_settings, trainer_parts
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, GenerationConfig
from transformers.utils import chat_template_utils

from mllmrec.data.prompts import TEMPLATE_VERSION, PromptFormat
from mllmrec.errors import ArtifactError, BackendError, SettingsError
from mllmrec.evaluation.ranking import stage as evaluate
from mllmrec.models import chat as chat_module
from mllmrec.models.chat import Chat
from mllmrec.models.chat_templates import PLAIN, read_template
from mllmrec.models.huggingface import HuggingFaceGenerator, LoadedModel, load
from mllmrec.settings.evaluation import EvaluateSettings
from mllmrec.settings.training import MergeSettings, SftSettings
from mllmrec.storage.manifests import Manifest, write_manifest
from mllmrec.storage.workspace import Workspace
from mllmrec.training import merge, sft
from mllmrec.training.grpo import stage as grpo

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


@pytest.mark.parametrize("name", [name for name in FAMILIES if FAMILIES[name].prompt.startswith("<bos>")])
def test_a_text_begins_once(name: str) -> None:
    """The template writes the token, and a tokenizer that would add it by itself adds no second one."""
    for adds_bos in (False, True):
        tokenizer = family_tokenizer(name, adds_bos=adds_bos)
        tokens = tokenizer.convert_ids_to_tokens(Chat(tokenizer).prompt_ids("Hi"))
        assert (tokens[0], tokens.count("<bos>")) == ("<bos>", 1)


def test_a_model_without_a_template_is_asked_in_the_plain_one(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = byte_tokenizer("", adds_bos=True)
    chat = Chat(tokenizer)
    assert chat.prompt("Hi") == "<bos>Hi\n\nAnswer:\n"
    assert tokenizer.convert_ids_to_tokens(chat.answer_ids("A")) == ["A", "<eos>"]
    assert tokenizer.convert_ids_to_tokens(chat.prompt_ids("x")).count("<bos>") == 1
    assert chat.put_template == tokenizer.chat_template == PLAIN
    told = " ".join(capsys.readouterr().err.split())
    assert told == "a-model has no chat template: prompts are written in the plain one."


def test_the_plain_template_needs_no_token_that_begins_texts() -> None:
    tokenizer = byte_tokenizer("")
    tokenizer.bos_token = None
    assert Chat(tokenizer).prompt("Hi") == "Hi\n\nAnswer:\n"


def test_a_template_that_is_named_takes_the_place_of_the_model_s_own(tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(TURNS_THAT_END)
    chat = Chat(family_tokenizer("phi4"), template=read_template(str(path)))
    assert chat.prompt("Hi") == "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"
    assert Chat(family_tokenizer("phi4"), template=read_template("plain")).prompt("Hi") == "<bos>Hi\n\nAnswer:\n"
    assert Chat(family_tokenizer("phi4"), template=read_template("")).prompt("Hi") == FAMILIES["phi4"].prompt


@pytest.mark.parametrize(
    ("content", "told"), [(None, "can't be read"), (b"\xff\xfe", "is no text"), (b" ", "is empty")]
)
def test_a_template_that_cannot_be_read_is_one_sentence(tmp_path: Path, content: bytes | None, told: str) -> None:
    path = tmp_path / "own.jinja"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=f"--chat-template .*own.jinja {told}.* Expected"):
        read_template(str(path))


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


def base_model(workspace: Workspace) -> str:
    """`tiny` as a model that was trained on texts alone: without a template, and with a token that begins texts."""
    folder = with_template(workspace, "base", "", ("<bos>",))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bos = ("<bos>", tokenizer.convert_tokens_to_ids("<bos>"))
    tokenizer.bos_token = bos[0]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[bos])
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder)("Hi")["input_ids"][0] == bos[1]
    return folder.name


def trained_template(folder: Path) -> str:
    form = PromptFormat.of(Manifest.read(folder))
    assert form is not None
    return form.chat_template


@pytest.mark.slow
def test_a_base_model_keeps_the_template_that_it_was_trained_with(
    toy_copy: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SFT, merging, scoring and GRPO read the same prompts, and still do when the plain template is another one."""
    name, quick = base_model(toy_copy), {"limit": 8, "eval_users": 2}
    sft.run(sft_settings(toy_copy, backbone=name, **quick), toy_copy)
    adapter, merged = (toy_copy.checkpoint(DATASET, tag) for tag in ("sft", "sft-merged"))
    assert trained_template(adapter) == PLAIN
    with monkeypatch.context() as later:
        later.setattr(chat_module, "PLAIN", PLAIN.replace("Answer", "Reply"))
        assert load(toy_copy, name, device="cpu").chat.prompt("Hi") == "<bos>Hi\n\nReply:\n"
        assert load(toy_copy, name, adapter, device="cpu").chat.prompt("Hi") == "<bos>Hi\n\nAnswer:\n"
        merge.run(MergeSettings(dataset=DATASET, root=str(toy_copy.root)), toy_copy)
    assert AutoTokenizer.from_pretrained(merged).chat_template == PLAIN == trained_template(merged)
    grpo.run(grpo_settings(toy_copy, sft_tag="sft-merged", rollouts="candidates", limit=4, eval_users=2), toy_copy)
    assert trained_template(toy_copy.checkpoint(DATASET, "grpo")) == PLAIN


def test_sft_on_a_base_model_begins_each_text_once(toy_copy: Workspace) -> None:
    name = base_model(toy_copy)
    settings = sft_settings(toy_copy, backbone=name, limit=8, batch=2)
    parts = trainer_parts(toy_copy, settings, name, partial(sft.lora_of, settings))
    trainer, loaded = sft.make_trainer(parts), parts.loaded
    batch = next(iter(trainer.get_train_dataloader()))
    bos, eos = loaded.tokenizer.bos_token_id, loaded.tokenizer.eos_token_id
    for row, seen in zip(batch["input_ids"], batch["attention_mask"].bool(), strict=True):
        ids = row[seen].tolist()
        assert (ids[0], ids[-1], ids.count(bos), ids.count(eos)) == (bos, eos, 1, 1)


def test_a_template_of_one_s_own_is_inherited_and_cannot_be_contradicted(toy_copy: Workspace) -> None:
    own = toy_copy.root / "own.jinja"
    own.write_text(PLAIN.replace("Answer", "Reply"))
    knobs = {"chat_template": str(own), "limit": 8, "eval_users": 2, "peft": "none"}
    sft.run(sft_settings(toy_copy, **knobs), toy_copy)
    folder = toy_copy.checkpoint(DATASET, "sft")
    assert trained_template(folder) == own.read_text() == AutoTokenizer.from_pretrained(folder).chat_template
    asked: dict[str, Any] = {"dataset": DATASET, "root": str(toy_copy.root), "sft_tag": "sft", "limit": 4}
    evaluate.run(EvaluateSettings(**asked, min_inter=WINDOW), toy_copy)
    for other in ("plain", str(own)):
        settings = EvaluateSettings(**asked, min_inter=WINDOW, chat_template=other, overwrite=True)
        if other == "plain":
            with pytest.raises(SettingsError, match="the chat template is another one than sft was trained with"):
                evaluate.run(settings, toy_copy)
        else:
            evaluate.run(settings, toy_copy)
    own.write_text(PLAIN.replace("Answer", "Choice"))
    with pytest.raises(ArtifactError, match="the input chat_template has changed since"):
        sft.run(sft_settings(toy_copy, **knobs), toy_copy)


def test_a_model_that_was_not_trained_here_is_ranked_in_the_template_that_is_named(toy_copy: Workspace) -> None:
    """The scores are another model's, as it were; the RUN says which template it was."""
    scores = {}
    for name in ("", "plain"):
        settings = EvaluateSettings(
            dataset=DATASET, root=str(toy_copy.root), backbone="tiny", limit=4, min_inter=WINDOW, chat_template=name
        )
        run = evaluate.run(settings.model_copy(update={"overwrite": True}), toy_copy).artifact
        assert run is not None
        scores[name] = (run / "rankings.jsonl").read_text()
        manifest = Manifest.read(run)
        assert manifest is not None
        assert ("chat_template" in manifest.inputs) == bool(name)
    assert scores[""] != scores["plain"]


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
    settings = sft_settings(toy_copy, backbone="turns", limit=8, batch=2)
    parts = trainer_parts(toy_copy, settings, "turns", partial(sft.lora_of, settings))
    loaded = parts.loaded
    end = loaded.tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert end != loaded.tokenizer.eos_token_id
    trainer = sft.make_trainer(parts)
    batch = next(iter(trainer.get_train_dataloader()))
    labels = [row[row != -100].tolist() for row in batch["labels"]]
    assert [row[-1] for row in labels] == [end, end]
    assert all(row.count(end) == 1 and loaded.tokenizer.eos_token_id not in row for row in labels)
    task = parts.encoder.scoring_task(parts.examples.example(0, 0))
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
