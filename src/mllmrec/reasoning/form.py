"""The form of a trace: its steps and its length, as parts of its confidence.

A refined trace has the four steps of `steps.py`. One that lacks a step, or has them out of order, is rejected; one that
strays otherwise (a step too long, two sentences where there should be one) counts half. The length part is 1 for the
usual 30 to 320 words and falls to 0 at 10 and at 640, beyond which a trace is rejected too.
"""

from __future__ import annotations

from typing import NamedTuple

from mllmrec.reasoning.steps import NUM_STEPS, broken_rule, step_numbers

FEWEST_WORDS, USUAL_WORDS, MOST_WORDS = 10, (30, 320), 640
EMPTY, SHORT, LONG = "is empty", "has too few words", "has too many words"
STEPS = "lacks the four steps"


class Form(NamedTuple):
    """`steps` is None for a draft, which has none; `reason` is None where nothing is amiss."""

    reason: str | None
    steps: float | None
    length: float
    words: int


def form_of(text: str, *, stepped: bool) -> Form:
    """The form of a trace; `stepped` for refined ones.

    >>> form_of("Quiet lakes. " * 20, stepped=False)
    Form(reason=None, steps=None, length=1.0, words=40)
    """
    count = len(text.split())
    length = _length(count)
    if not stepped:
        return Form(_too_much(count), None, length, count)
    if step_numbers(text) != list(range(1, NUM_STEPS + 1)):
        return Form(_too_much(count) or STEPS, 0.0, length, count)
    return Form(_too_much(count), 1.0 if broken_rule(text, is_bare=True) is None else 0.5, length, count)


def _too_much(count: int) -> str | None:
    if not count:
        return EMPTY
    return SHORT if count < FEWEST_WORDS else LONG if count > MOST_WORDS else None


def _length(count: int) -> float:
    least, most = USUAL_WORDS
    rising, falling = (count - FEWEST_WORDS) / (least - FEWEST_WORDS), (MOST_WORDS - count) / (MOST_WORDS - most)
    return round(max(0.0, min(1.0, rising, falling)), 4)
