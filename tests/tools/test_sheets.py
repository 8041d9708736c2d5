"""Rows of tokens: the package's own prompt and chat, with the places that the loss and the readout look at."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo_backbone.lessons import Shape, make_lesson
from demo_backbone.sheets import PIECES, Desk, batch_size, corpus, lessons
from mllmrec.data.prompts import QUESTION
from mllmrec.models.chat import Chat
from mllmrec.models.small_qwen3 import make_tokenizer


@pytest.fixture(scope="module")
def desk() -> Desk:
    return Desk(Chat(make_tokenizer(corpus(random.Random(0)), 1920, PIECES)))


def test_a_sheet_is_the_real_prompt_and_answer(desk: Desk) -> None:
    lesson = make_lesson(random.Random(1), Shape(history=2, candidates=3, caption_words=6))
    sheet, target = desk.sheet(lesson), lesson.example.target_id
    prompt = desk.chat.tokenizer.decode(sheet.prompt_T)
    lines = prompt.split("\n")
    assert lines[:2] == ["<|im_start|>user", "A user chose these, oldest first:"]
    assert [line.split("]")[0] for line in lines[2:4]] == [f"[ITEM_{item}" for item in lesson.example.history]
    assert lines[8] == f"{QUESTION}<|im_end|>"
    assert prompt.endswith("<think>\n\n</think>\n\n")
    assert desk.chat.tokenizer.decode(sheet.answer_T) == f"[ITEM_{target}] {lesson.titles[target]}<|im_end|>"


@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(2, 10), st.sampled_from((0, 6)))
def test_the_readout_looks_at_the_end_of_each_candidates_line(
    desk: Desk, seed: int, history: int, candidates: int, caption_words: int
) -> None:
    shape = Shape(history=history, candidates=candidates, caption_words=caption_words)
    lesson = make_lesson(random.Random(seed), shape)
    sheet, decode = desk.sheet(lesson), desk.chat.tokenizer.decode
    assert len(sheet.line_ends_C) == len(lesson.example.candidates)
    for end, item in zip(sheet.line_ends_C, lesson.example.candidates, strict=True):
        written = decode(sheet.prompt_T[: end + 1])
        line = f"[ITEM_{item}] {lesson.titles[item]}"
        caption = lesson.captions.get(item)
        assert written.endswith(f"{line} | {caption}\n" if caption else f"{line}\n")
    assert lesson.example.candidates[sheet.right] == lesson.example.target_id
    assert decode(sheet.answer_T[1 : 1 + sheet.num_id_tokens]) == lesson.example.target_id


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("[ITEM_7]", ["[ITEM_", "7", "]"]),
        ("[ITEM_101]", ["[ITEM_", "101", "]"]),
        ("[ITEM_1234]", ["[ITEM_", "123", "4", "]"]),
        (" | Dark red (60%), black (5%)", ["Ġ|", "ĠDark", "Ġred", "Ġ(60%),", "Ġblack", "Ġ(5%)"]),
        ("Which candidate comes next?", ["Which", "Ġcandidate", "Ġcomes", "Ġnext", "?"]),
    ],
)
def test_ids_shares_and_the_package_s_own_words_cost_few_tokens(desk: Desk, text: str, tokens: list[str]) -> None:
    assert desk.chat.tokenizer.tokenize(text) == tokens


def test_lessons_depend_on_seed_purpose_and_key_alone() -> None:
    shape = Shape(history=2, candidates=3)
    first = lessons(1, "practice", "0/0", shape, 5)
    assert lessons(1, "practice", "0/0", shape, 3) == first[:3]
    others = (lessons(2, "practice", "0/0", shape, 5), lessons(1, "exam", "0/0", shape, 5))
    assert all(other != first for other in (*others, lessons(1, "practice", "0/1", shape, 5)))


def test_batches_are_about_as_long_as_asked_for(desk: Desk) -> None:
    for shape in (Shape(history=1, candidates=2), Shape(history=6, candidates=10, caption_words=12)):
        sheets = [desk.sheet(lesson) for lesson in lessons(0, "test", "", shape, batch_size(shape, 4000))]
        assert sum(len(sheet.prompt_T) + len(sheet.answer_T) for sheet in sheets) == pytest.approx(4000, rel=0.35)


def test_recitals_are_answers_with_other_items(desk: Desk) -> None:
    lesson = make_lesson(random.Random(5), Shape(history=2, candidates=3))
    sheet, decode = desk.sheet(lesson, 4), desk.chat.tokenizer.decode
    recited = {decode(given) + decode(rest) for given, rest in sheet.recitals}
    others = lesson.titles.keys() - {lesson.example.target_id}
    assert recited == {f"[ITEM_{item}] {lesson.titles[item]}<|im_end|>" for item in others}
    assert {decode(given) for given, _ in sheet.recitals} == {f"[ITEM_{item}" for item in others}
    assert desk.sheet(lesson, 2).recitals == sheet.recitals[:2]
