"""Reading what servers send: answers in all their shapes, and every failure in one stable word."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllmrec.models.base import Request
from mllmrec.models.server.completions import is_passing, read_completion

REQUEST = Request(key="1", text="abcd" * 10)
USAGE = {"prompt_tokens": 12, "completion_tokens": 3}


def body(content: Any = "Step 1: warm", reason: Any = "stop", usage: Any = USAGE, **message: Any) -> str:
    choice = {"message": {"role": "assistant", "content": content, **message}, "finish_reason": reason}
    return json.dumps({"choices": [choice], "usage": usage})


@pytest.mark.parametrize(
    "text",
    [
        body(),
        body(reasoning_content="They like warm films."),
        body("<think>They like warm films.</think>\n\nStep 1: warm"),
        body("They like warm films.</think>Step 1: warm\n"),
        body("<think>a</think> no <think>b</think>  Step 1: warm"),
        body([{"type": "text", "text": "Step 1:"}, {"type": "text", "text": " warm"}]),
        body(reason="eos"),
        body(reason=None),
        body(reason="STOP"),
        body("◁think▷They like warm films.◁/think▷Step 1: warm"),
        body("analysisThey like warm films.assistantfinalStep 1: warm"),
        body("<think>They like warm films.</think><answer>Step 1: warm</answer>"),
        body([{"type": "thinking", "thinking": "They like"}, {"type": "text", "text": "Step 1: warm"}]),
    ],
    ids=[
        *("plain", "own field", "tags", "end tag", "two thoughts", "parts", "other reason", "no reason", "upper case"),
        *("other tags", "bare channels", "wrapped", "parts of two kinds"),
    ],
)
def test_only_the_visible_answer_counts(text: str) -> None:
    outcome = read_completion(text, REQUEST)
    assert (outcome.text, outcome.failure) == ("Step 1: warm", None)
    assert dict(outcome.usage) == USAGE


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        (body(None), "empty"),
        (body("  \n"), "empty"),
        (body("<think>They like"), "unfinished_thought"),
        (body("Sure. <think>They like"), "unfinished_thought"),
        (body("<think>They like</think>"), "only_reasoning"),
        (body("analysisThey like"), "unfinished_thought"),
        (body(None, reasoning_content="They like warm films."), "only_reasoning"),
        (body("", reasoning="They like warm films."), "only_reasoning"),
        (body([{"type": "thinking", "thinking": [{"type": "text", "text": "They like"}]}]), "only_reasoning"),
        (body([{"type": "reasoning", "text": "They like"}]), "only_reasoning"),
        (body(None, reasoning_content=" "), "empty"),
        (body(17), "empty"),
        (body("Step 1: wa", reason="length"), "truncated"),
        (body("<think>They", reason="length"), "truncated"),
        (body("Step 1: wa", reason="MAX_TOKENS"), "truncated"),
        (body(None, reason="length", reasoning_content="They like"), "truncated"),
        (body("", reason="content_filter"), "filtered"),
        (body("Step 1: wa", reason="SAFETY"), "filtered"),
        (body("Step 1: wa", reason="abort"), "finish_abort"),
        (body("Step 1: wa", reason="insufficient_system_resource"), "finish_insufficient_system_resource"),
        (body("Step 1: wa", reason="error"), "finish_error"),
        (body("Step 1: wa", reason="tool_calls"), "finish_tool_calls"),
        (body("Step 1: wa", reason={"type": "x" * 90}), "finish__type_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        (body(None, refusal="I can't help with that."), "refused"),
        ('{"choices": []}', "no_choices"),
        ('{"choices": null}', "no_choices"),
        ('{"choices": ["a"]}', "no_choices"),
        ("{}", "no_choices"),
        ("[1]", "no_choices"),
        ('{"choices": [{"mess', "invalid_json"),
        ("<html>It works!</html>", "invalid_json"),
        ("", "invalid_json"),
        ("[" * 100_000, "invalid_json"),
        ('{"error": {"message": "overloaded", "code": 502}}', "error_body"),
        ('{"error": "overloaded"}', "error_body"),
        ('{"error": {"message": "too long", "code": 400}}', "http_400"),
        ('{"error": {"message": "slow down", "code": 429}}', "http_429"),
    ],
)
def test_each_failure_has_one_word(text: str, failure: str) -> None:
    outcome = read_completion(text, REQUEST)
    assert (outcome.text, outcome.failure) == (None, failure)


def test_what_a_failure_cost_is_counted() -> None:
    assert dict(read_completion(body("wa", reason="length"), REQUEST).usage) == USAGE
    assert dict(read_completion(json.dumps({"choices": [], "usage": USAGE}), REQUEST).usage) == USAGE
    assert dict(read_completion('{"choices": []}', REQUEST).usage) == {}


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 4}, {"prompt_tokens": -1, "completion_tokens": 2}, "4"])
def test_usage_that_the_server_left_out_is_estimated_and_marked(usage: Any) -> None:
    outcome = read_completion(body("abcd" * 5, usage=usage, reasoning_content="abcd" * 7), REQUEST)
    assert dict(outcome.usage) == {"prompt_tokens": 10, "completion_tokens": 12, "estimated_tokens": 22}


def test_what_no_file_can_hold_is_replaced() -> None:
    assert read_completion(body("a \ud83d b"), REQUEST).text == "a ? b"
    assert read_completion(body("a \U0001f600 b"), REQUEST).text == "a \U0001f600 b"


def test_which_failures_may_pass() -> None:
    passing = ["timeout", "connection", "empty", "no_choices", "invalid_json", "error_body", "finish_abort"]
    statuses = [408, 409, 429, 500, 502, 503, 504, 529]
    assert all(map(is_passing, [*passing, *(f"http_{status}" for status in statuses)]))
    assert not any(
        map(is_passing, ["truncated", "filtered", "refused", "only_reasoning", "http_400", "http_422", None])
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("choices", "message", "content", "error", "code", "usage", "prompt_tokens", "text", "refusal"),
                    *("type", "thinking", "reasoning", "finish_reason"),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values | st.fixed_dictionaries({"choices": st.lists(json_values, min_size=1, max_size=1)}))
def test_any_json_is_an_answer_or_a_failure(value: Any) -> None:
    outcome = read_completion(json.dumps(value), REQUEST)
    assert (outcome.text is None) == (outcome.failure is not None)
    assert not [count for count in outcome.usage.values() if type(count) is not int or count < 0]


@given(st.text())
def test_any_text_is_an_answer_or_a_failure(text: str) -> None:
    outcome = read_completion(text, REQUEST)
    assert outcome.failure in ("invalid_json", "no_choices")


@given(st.text(alphabet="ab<>/ "), st.text(alphabet="ab \n", min_size=1).filter(str.strip))
def test_an_answer_after_a_thought_is_that_answer(thought: str, answer: str) -> None:
    assert read_completion(body(f"<think>{thought}</think>{answer}"), REQUEST).text == answer.strip()


def test_an_answer_that_holds_reasoning_alone_says_what_to_do() -> None:
    assert "--max-new-tokens" in read_completion(body("", reasoning="They like warm films."), REQUEST).detail
