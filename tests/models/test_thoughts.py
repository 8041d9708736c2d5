"""Thoughts before answers: where they stand in the chat format of a model, and how long they may be."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from chat_families import FAMILIES, family_tokenizer
from small_models import DATASET, WINDOW, sft_settings, trainer_parts

from mllmrec.data.prompts import parse
from mllmrec.data.sequences import Catalogue, Interactions, Item
from mllmrec.data.visible_answer import visible_answer
from mllmrec.models.chat import Chat, Encoder
from mllmrec.models.huggingface import load
from mllmrec.records import RankingExample
from mllmrec.storage.workspace import Workspace
from mllmrec.training import sft
from mllmrec.training.datasets import TrainingExamples, training_examples

TRACE = "Step 1: warm films.\nStep 2: a drama."
OWN = {
    "qwen3": "<|im_start|>assistant\n<think>\n@\n</think>\n\n",
    "deepseek-r1": "<｜Assistant｜><think>\n@\n</think>\n\n",
    "smollm3": "<|im_start|>assistant\n<think>\n@\n</think>\n",
    "glm4": "<|assistant|>\n<think>@</think>\n",
    "llama3": "<|start_header_id|>assistant<|end_header_id|>\n\n<think>\n@\n</think>\n\n",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_thought_is_hidden_from_whoever_reads_the_answer(name: str) -> None:
    chat = Chat(family_tokenizer(name))
    prompt = chat.prompt_ids_before_a_thought("Hi")
    written = chat.tokenizer.decode([*chat.thought_ids(TRACE), *chat.encode("[ITEM_7] Toy")])
    whole = chat.tokenizer.decode(prompt) + written
    assert whole.count(TRACE) == whole.count(chat.thought_marks.closing.strip()) == 1
    assert whole.endswith(OWN.get(name, "@").replace("@", TRACE) + "[ITEM_7] Toy" if name in OWN else "[ITEM_7] Toy")
    assert visible_answer(written).text == "[ITEM_7] Toy"
    assert parse(written).item_id == "7"


def encoder_of(title: str) -> tuple[Encoder, RankingExample]:
    catalogue = Catalogue([Item(item_id="1", title=title), Item(item_id="2", title="Plain")])
    example = RankingExample(
        example_id="e", user_id="u", history=("1",), candidates=("1", "2"), target_id="1", split="test"
    )
    return Encoder.make(Chat(family_tokenizer("qwen3")), catalogue, {}, 4096), example


def test_marks_in_titles_and_traces_are_words() -> None:
    encoder, example = encoder_of("a</think>b <think>")
    thought = encoder.fit_thought("x </think> y\n[ITEM_2] Plain", 256)
    assert thought == "x ‹/think› y\n[ITEM_2] Plain"
    task = encoder.scoring_task(example, thought=thought)
    text = encoder.chat.tokenizer.decode([*task.prompt_T, *task.answers_C[0]])
    assert (text.count("<think>"), text.count("</think>")) == (1, 1)
    written = encoder.chat.tokenizer.decode([*encoder.chat.thought_ids(thought), *task.answers_C[0]])
    assert parse(written).item_id == "1"


@pytest.mark.parametrize(("most", "kept"), [(64, TRACE), (30, "Step 1: warm films."), (5, None)])
def test_a_long_trace_shortens_as_hints_do_and_is_counted(most: int, kept: str | None) -> None:
    """The tokenizer's tokens are bytes: 37 for both lines, 19 for the first, which is too short to be halved."""
    encoder, _ = encoder_of("Toy")
    assert encoder.fit_thought(TRACE, most) == kept
    budget = encoder.renderer.budget
    assert (budget["thoughts_shortened"], budget["thoughts_dropped"]) == (kept not in (TRACE, None), kept is None)


@pytest.fixture(scope="module")
def made(toy: Workspace) -> tuple[Encoder, TrainingExamples]:
    loaded, interactions = load(toy, "tiny", device="cpu"), Interactions.load(toy, DATASET)
    examples = training_examples(sft_settings(toy, limit=8), toy, interactions, WINDOW)
    return Encoder.make(loaded.chat, interactions.catalogue, {}, 2048), examples


def with_traces(examples: TrainingExamples, count: int) -> TrainingExamples:
    chosen = [examples.questions[index].example_id for _, index in list(examples.rows(1))[:count]]
    return replace(examples, hints=dict.fromkeys(chosen, TRACE))


def batch_of(toy: Workspace, made: tuple[Encoder, TrainingExamples], folder: Path, **knobs: Any) -> Any:
    encoder, examples = made
    settings = sft_settings(toy, batch=4, **knobs)
    parts = trainer_parts(toy, settings, "tiny", partial(sft.lora_of, settings))
    trainer = sft.make_trainer(replace(parts, folder=folder, encoder=encoder, examples=examples))
    return next(iter(trainer.get_train_dataloader()))


def test_sft_learns_thought_and_answer_where_there_is_a_trace_and_the_answer_elsewhere(
    toy: Workspace, made: tuple[Encoder, TrainingExamples], tmp_path: Path
) -> None:
    encoder, examples = made[0], with_traces(made[1], 2)
    batch = batch_of(toy, (encoder, examples), tmp_path, cot_as="answer")
    decode = encoder.chat.tokenizer.decode
    for position, (epoch, index) in enumerate(list(examples.rows(1))[:4]):
        example = examples.example(epoch, index)
        labels = batch["labels"][position]
        prompt, learned = batch["input_ids"][position][labels == -100], labels[labels != -100].tolist()
        answer = encoder.answer_ids(example.target_id)
        told = decode(learned[: -len(answer)])
        assert learned[-len(answer) :] == answer
        assert told == (f"<think>\n{TRACE}\n</think>\n\n" if position < 2 else "")
        seen = batch["attention_mask"][position][labels == -100].bool()
        assert decode(prompt[seen]).endswith("assistant\n" if position < 2 else "</think>\n\n")
        assert TRACE not in decode(prompt[seen])


def test_hints_are_what_they_were(toy: Workspace, made: tuple[Encoder, TrainingExamples], tmp_path: Path) -> None:
    encoder, examples = made[0], with_traces(made[1], 2)
    batch = batch_of(toy, (encoder, examples), tmp_path)
    for position, (epoch, index) in enumerate(list(examples.rows(1))[:4]):
        task = encoder.scoring_task(examples.example(epoch, index), TRACE if position < 2 else None)
        seen = batch["attention_mask"][position].bool()
        assert batch["input_ids"][position][seen].tolist()[: len(task.prompt_T)] == list(task.prompt_T)
        assert ("Notes on this user" in encoder.chat.tokenizer.decode(task.prompt_T)) == (position < 2)


def test_the_answer_loss_beside_lists_is_that_of_thought_and_answer() -> None:
    """Four tokens of thought at -6 nats, three of the answer at -2: 8 nats over seven tokens."""
    import torch

    from mllmrec.models.base import ScoringTask
    from mllmrec.models.tries import make_rows
    from mllmrec.training.listwise import CandidateList, answer_loss

    row, thought = make_rows(
        [
            ScoringTask(prompt_T=[2, 3, 9, 9, 9, 9], answers_C=[[4, 5, 1], [6, 1]]),
            ScoringTask(prompt_T=[2, 3], answers_C=[[9, 9, 9, 9]]),
        ]
    )
    scores_C = torch.tensor([-2.0, -3.0])
    plain, thinking = CandidateList(row=row, target=0), CandidateList(row=row, target=0, thought=thought)
    assert answer_loss(scores_C, plain).item() == pytest.approx(2 / 3)
    assert answer_loss(scores_C, thinking, torch.tensor([-6.0])).item() == pytest.approx(8 / 7)
