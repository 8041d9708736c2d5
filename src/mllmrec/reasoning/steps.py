"""The form of a trace: four lines `Step 1:` to `Step 4:`, and what a draft in free words must be.

Writers stray in small ways that cost nothing (bold marks, retrieval criteria as bullets below their step), which are
put right. Everything else that departs from the form is a broken rule in a few stable words: the writer is told it when
it is asked again, and failures are counted by it.
"""

from __future__ import annotations

import re

from mllmrec.data.prompts import plain

NUM_STEPS, CRITERIA_STEP = 4, 3
FEWEST_CRITERIA, MOST_CRITERIA = 3, 5
FEWEST_STEP_WORDS, MOST_STEP_WORDS, MOST_WORDS = 3, 120, 320
FEWEST_DRAFT_WORDS, MOST_DRAFT_WORDS = 15, 400

_STEP = re.compile(r"[\s*_#>]*step\s*(\d)\s*[*_]*\s*[:.][*_\s]*(.*)", re.IGNORECASE)
_BULLET = re.compile(r"\s*(?:[-*•–]|\(?\d[.)])\s*(.*)")
_NUMBERED = re.compile(r"(?:(?<=\s)|^)(?:\(\d\)|\d[.)])\s*")
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”")
_ABBREVIATION = r"(?<!\b[A-Z])(?<!\bDr)(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bSt)(?<!\bJr)(?<!\bSr)(?<!\bvs)"
_SENTENCE_END = re.compile(_ABBREVIATION + r"[.!?][\"”')\]]*\s+(?=[A-Z\"“])")


class BrokenRuleError(ValueError):
    """A text isn't of its form; the message is the rule it breaks."""


def four_steps(text: str) -> str:
    """The four lines of a trace, put right in small ways.

    >>> print(four_steps('''**Step 1:** Likes quiet lakes.
    ... Step 2: Moves on to rivers.
    ... Step 3:
    ... - near water
    ... - few people
    ... - in the north
    ... Step 4: A calm river in the far north.'''))
    Step 1: Likes quiet lakes.
    Step 2: Moves on to rivers.
    Step 3: (1) near water; (2) few people; (3) in the north
    Step 4: A calm river in the far north.

    Raises BrokenRuleError.
    """
    steps = _steps(text)
    for number, step in enumerate(steps, 1):
        length = len(step.split())
        if not step:
            raise BrokenRuleError(f"Step {number} is empty")
        if not FEWEST_STEP_WORDS <= length <= MOST_STEP_WORDS:
            raise BrokenRuleError(f"Step {number} has fewer than {FEWEST_STEP_WORDS} or over {MOST_STEP_WORDS} words")
    if sum(len(step.split()) for step in steps) > MOST_WORDS:
        raise BrokenRuleError(f"the steps have over {MOST_WORDS} words together")
    if not FEWEST_CRITERIA <= len(criteria(steps[CRITERIA_STEP - 1])) <= MOST_CRITERIA:
        raise BrokenRuleError(f"Step {CRITERIA_STEP} hasn't {FEWEST_CRITERIA} to {MOST_CRITERIA} criteria")
    if _SENTENCE_END.search(_QUOTED.sub("x", steps[-1])):
        raise BrokenRuleError(f"Step {NUM_STEPS} is more than one sentence")
    return "\n".join(f"Step {number}: {step}" for number, step in enumerate(steps, 1))


def free_words(text: str) -> str:
    """A draft without markup and blank lines. Raises BrokenRuleError when it is too short or too long."""
    lines = [line for line in map(plain, text.splitlines()) if line]
    length = sum(len(line.split()) for line in lines)
    if length < FEWEST_DRAFT_WORDS:
        raise BrokenRuleError(f"fewer than {FEWEST_DRAFT_WORDS} words")
    if length > MOST_DRAFT_WORDS:
        raise BrokenRuleError(f"over {MOST_DRAFT_WORDS} words")
    return "\n".join(lines)


def broken_rule(text: str) -> str | None:
    """The rule that a text of four steps breaks, if it breaks one.

    >>> broken_rule("They like lakes.")
    'text outside the steps'
    """
    try:
        four_steps(text)
    except BrokenRuleError as error:
        return str(error)
    return None


def criteria(step: str) -> list[str]:
    """The criteria of Step 3, separated by numbers, else by semicolons, else by commas.

    >>> criteria("(1) calm; (2) near water, in the north; (3) cheap.")
    ['calm', 'near water, in the north', 'cheap']
    >>> criteria("calm, cheap and near water")
    ['calm', 'cheap', 'near water']
    """
    if len(_NUMBERED.findall(step)) > 1:
        parts = _NUMBERED.split(step)[1:]
    elif ";" in step:
        parts = step.split(";")
    else:
        parts = re.split(r",\s*(?:and\s+)?|\s+and\s+", step)
    return [part for part in (part.strip(" ;,.") for part in parts) if part]


def _steps(text: str) -> list[str]:
    """The texts of the four steps in order."""
    steps, bullets = list[str](), list[str]()
    for line in filter(str.strip, text.splitlines()):
        if match := _STEP.fullmatch(line):
            if int(match[1]) != len(steps) + 1:
                raise BrokenRuleError("the steps aren't 1 to 4 in order, each once")
            steps.append(plain(match[2]))
        elif len(steps) == CRITERIA_STEP and (bullet := _BULLET.fullmatch(line)):
            bullets.append(plain(bullet[1]).strip(" ;,."))
        else:
            raise BrokenRuleError("text outside the steps")
    if len(steps) != NUM_STEPS:
        raise BrokenRuleError("the steps aren't 1 to 4 in order, each once")
    if bullets:
        listed = "; ".join(f"({number}) {bullet}" for number, bullet in enumerate(bullets, 1))
        steps[CRITERIA_STEP - 1] = f"{steps[CRITERIA_STEP - 1]} {listed}".strip()
    return steps
