"""The visible answer behind every mark of reasoning and in every wrapper."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllmrec.data.prompts import ParsedAnswer, parse
from mllmrec.data.visible_answer import is_mark, open_thought, visible_answer

THOUGHT = "Okay, the user wants one sentence.\n[ITEM_3] Pot could be it, or <b>not</b>."
ANSWER = "A blue kettle stands on a shelf."
THOUGHTS = {
    "think": ("<think>\n", "\n</think>\n\n"),
    "upper case": ("<THINK>", "</THINK>"),
    "thinking": ("<thinking>", "</thinking>"),
    "thought": ("<thought>", "</thought>"),
    "reasoning": ("<reasoning>", "</reasoning>"),
    "seed": ("<seed:think>", "</seed:think>"),
    "kimi": ("◁think▷", "◁/think▷"),
    "mistral": ("[THINK]", "[/THINK]"),
    "cohere": ("<|START_THINKING|>", "<|END_THINKING|>"),
    "sky": ("<|begin_of_thought|>", "<|end_of_thought|>"),
    "gemma": ("<|channel>thought\n", "<channel|>"),
    "harmony": ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    "harmony, prefix lost": ("analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    "harmony, stripped": ("analysis", "assistantfinal"),
    "granite": ("Here is my thought process: ", "\n\nHere is my response: "),
}
WRAPPERS = {
    "answer": ("<answer>\n", "\n</answer>"),
    "answer, cut at its end": ("<answer>", ""),
    "answer, begun in the prompt": ("", "</answer>"),
    "talk and an answer": ("Sure! <Answer>", "</Answer>\nAnything else?"),
    "final answer": ("<final_answer>", "</final_answer>"),
    "output": ("<output>", "</output>"),
    "box": ("<|begin_of_box|>", "<|end_of_box|>"),
    "box in a sentence": ("The answer is <|begin_of_box|>", "<|end_of_box|>."),
    "response": ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    "latex": ("The final answer is $\\boxed{", "}$."),
    "latex text": ("\\boxed{\\text{", "}}"),
    "fence": ("```\n", "\n```"),
    "fence with a language": ("```text\n", "\n```"),
    "both": ("<answer><|begin_of_box|>", "<|end_of_box|></answer>"),
}


@pytest.mark.parametrize(("opening", "closing"), THOUGHTS.values(), ids=THOUGHTS)
@pytest.mark.parametrize(("before", "behind"), [("", ""), *WRAPPERS.values()], ids=["bare", *WRAPPERS])
def test_the_answer_behind_a_thought_and_in_a_wrapper(opening: str, closing: str, before: str, behind: str) -> None:
    assert visible_answer(f"{opening}{THOUGHT}{closing}{before}{ANSWER}{behind}") == (ANSWER, None)


@pytest.mark.parametrize(("opening", "closing"), THOUGHTS.values(), ids=THOUGHTS)
def test_an_item_in_a_thought_is_no_answer(opening: str, closing: str) -> None:
    assert parse(f"{opening}{THOUGHT}{closing}[ITEM_12] Lamp") == ParsedAnswer(item_id="12", lines=1)


@pytest.mark.parametrize("mark", [mark for mark in THOUGHTS if mark not in ("granite",)])
def test_a_thought_without_end_is_no_answer(mark: str) -> None:
    assert visible_answer(f"{THOUGHTS[mark][0]}{THOUGHT}") == ("", "unfinished_thought")


@pytest.mark.parametrize("mark", [mark for mark in THOUGHTS if not mark.startswith(("harmony", "granite"))])
def test_the_opening_mark_may_stand_in_the_prompt(mark: str) -> None:
    opening, closing = THOUGHTS[mark]
    assert open_thought(f"user: go on\nassistant: {opening}") == opening
    assert visible_answer(f"{THOUGHT}{closing}{ANSWER}") == (ANSWER, None)
    assert visible_answer(f"{opening}{closing}") == ("", "empty")
    assert visible_answer(f"{opening}{THOUGHT}{closing}") == ("", "only_reasoning")


def test_marks_that_a_thought_only_mentions_do_not_end_it() -> None:
    assert visible_answer("<think>a <reasoning>b</reasoning> c</think>d").text == "d"
    assert visible_answer("<think>a <reasoning>b</reasoning> c") == ("", "unfinished_thought")
    assert visible_answer("[THINK]write </think>? no[/THINK]d").text == "d"


def test_what_stands_before_an_open_thought_is_told_apart() -> None:
    assert visible_answer("Sure.<think>Okay, a") == ("Sure.", "unfinished_thought")
    assert visible_answer("<think>a</think>Sure.[THINK]Okay, a") == ("Sure.", "unfinished_thought")


@pytest.mark.parametrize(
    "text",
    [
        ANSWER,
        "analysis of the picture: a kettle",
        "Finally a kettle, the assistantfinally",
        "final words on a poster",
        "A kettle {blue} in [square] brackets, a < b > c",
        "Step 1: a\nStep 2: b",
        "A `kettle` and ```two``` marks",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert visible_answer(text) == (text, None)


def test_several_boxes_in_a_sentence_lose_their_marks_alone() -> None:
    boxed = "A <|begin_of_box|>blue<|end_of_box|> kettle on a <|begin_of_box|>shelf<|end_of_box|>."
    assert visible_answer(boxed).text == "A blue kettle on a shelf."
    assert visible_answer("A \\boxed{blue} kettle on a shelf.").text == "A blue kettle on a shelf."


def test_a_title_cannot_spell_a_mark_of_reasoning() -> None:
    for title in ("The [/THINK] of it", "◁/think▷", "assistantfinal cut", "\\boxed{x}", "[THINK]", "final</ answer>"):
        assert parse(f"[ITEM_12] {title}") == ParsedAnswer(item_id="12", lines=1)
    assert parse("[ITEM_3] Pot[/THINK][ITEM_12] Lamp") == ParsedAnswer(item_id="12", lines=1)


def test_marks_of_special_tokens_are_known() -> None:
    for token in ("[THINK]", "</think>", "<|channel|>", "<|message|>", "<|end_of_box|>", "<|START_RESPONSE|>"):
        assert is_mark(token)
    assert not any(map(is_mark, ("<|im_end|>", "[INST]", "think", "<s>")))


@given(st.text(alphabet="ab<>/[]THINK◁▷\\{}` \n|", max_size=60))
def test_of_any_text_a_part_is_visible_or_a_fault_says_why_not(text: str) -> None:
    found = visible_answer(text)
    assert (found.fault is None) == bool(found.text) or found.fault == "unfinished_thought"
    assert found.text in text.replace("\\boxed{", "")


@pytest.mark.parametrize(
    "text", ["```\n{}x", "<answer>{}x", "{}</answer>x", "\\boxed{{{}x", "analysis{}x", "<think>{}x"]
)
def test_a_hostile_text_costs_no_more_than_its_length(text: str) -> None:
    for filler in (" ", "\n", "<answer>", "</think>", "<|channel|>", "`", "\\boxed{"):
        assert visible_answer(text.format(filler * 50_000)) is not None
