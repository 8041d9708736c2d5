"""Form: steps and length as parts, and what is rejected for them."""

from __future__ import annotations

import pytest
from gallery import own_words

from mllmrec.reasoning.assessment.examination import form_of

GOOD = own_words(["101", "102", "103", "104"])


def test_a_refined_trace_of_four_steps_is_whole() -> None:
    form = form_of(GOOD, stepped=True)
    assert (form.reason, form.steps, form.length, form.words) == (None, 1.0, 1.0, len(GOOD.split()))


def test_one_that_strays_counts_half() -> None:
    assert form_of(GOOD.replace("stripe.\nStep 2", "stripe. And more.\nOf this.\nStep 2"), stepped=True)[:2] == (
        None,
        0.5,
    )
    assert form_of("Sure! Here it is:\n" + GOOD, stepped=True)[:2] == (None, 0.5)
    assert form_of(GOOD.replace("\nStep 4: A view", "\nStep 4: A lake. A view"), stepped=True)[:2] == (None, 0.5)


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("Step 2", "Then"),
        GOOD.replace("Step 3", "Step 5"),
        "\n".join(reversed(GOOD.splitlines())),
        GOOD + "\nStep 5: More of it.",
        "word " * 50,
    ],
)
def test_one_without_the_four_steps_is_rejected(text: str) -> None:
    assert form_of(text, stepped=True)[:2] == ("lacks the four steps", 0.0)


@pytest.mark.parametrize(
    ("count", "reason", "length"),
    [
        (0, "is empty", 0.0),
        (9, "has too few words", 0.0),
        (10, None, 0.0),
        (20, None, 0.5),
        (30, None, 1.0),
        (320, None, 1.0),
        (480, None, 0.5),
        (640, None, 0.0),
        (641, "has too many words", 0.0),
    ],
)
def test_length_rises_and_falls(count: int, reason: str | None, length: float) -> None:
    form = form_of("word " * count, stepped=False)
    assert (form.reason, form.steps, form.length, form.words) == (reason, None, length, count)
