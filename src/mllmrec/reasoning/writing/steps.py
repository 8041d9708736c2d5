"""The form of a trace: four lines `Step 1:` to `Step 4:`; and the form of a draft in free words.

Small departures are corrected: bold marks, labels and headings of steps, full-width colons, criteria as bullets below
their step, a code fence; words before the first step and one line behind the last are left out. Any other departure is
a broken rule, named in a few fixed words, which go into the second request to the writer and into the counts of
failures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from mllmrec.data.prompts import plain

NUM_STEPS, CRITERIA_STEP = 4, 3
FEWEST_CRITERIA, MOST_CRITERIA = 3, 5
FEWEST_STEP_WORDS, MOST_STEP_WORDS, MOST_WORDS = 3, 120, 320
FEWEST_DRAFT_WORDS, MOST_DRAFT_WORDS = 15, 400
MOST_LABEL_WORDS = 8
ORDER, OUTSIDE = "the steps aren't 1 to 4 in order, each once", "text outside the steps"

_HEAD = re.compile(
    r"(?P<marks>[\s*_#>•-]*+)(?:\d[.)]\s*+)?step\s*+(?P<number>\d)(?:\s*+(?:of|/)\s*+4)?[*_\s]*+"
    r"(?:\([^()]*+\)|（[^（）]*+）)?[*_\s]*+(?:[:：.–—-][*_\s]*+(?P<rest>.*))?",
    re.IGNORECASE,
)
_BOLD_LABEL = re.compile(r"(?P<label>[^*_]+?)\s*(?:[:：–—-]\s*(?:\*\*|__)|(?:\*\*|__)\s*[:：–—-])\s*(?P<text>.+)")
_ORNAMENT = re.compile(r"\s*+(?:`{3,}\w*+\s*+|[-*_=~\s]*+)")
_FULL_WIDTH = str.maketrans({"（": "(", "）": ") ", "；": "; "})
_BULLET = re.compile(r"\s*(?:[-*•–]|\(?\d[.)])\s*(.*)")
_NUMBERED = re.compile(r"(?:(?<=\s)|^)(?:\(\d\)|\d[.)])\s*")
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”")
_ABBREVIATION = r"(?<!\b[A-Z])(?<!\bDr)(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bSt)(?<!\bJr)(?<!\bSr)(?<!\bvs)"
_SENTENCE_END = re.compile(_ABBREVIATION + r"[.!?][\"”')\]]*\s+(?=[A-Z\"“])")


class BrokenRuleError(ValueError):
    """A text isn't of its form; the message is the rule it breaks."""


def four_steps(text: str, *, is_bare: bool = False) -> str:
    """The four lines of a trace, small departures corrected; with `is_bare`, words around the steps break a rule.

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

    Raises BrokenRuleError where the text departs from the form otherwise.
    """
    steps, around = _steps(text)
    if is_bare and around:
        raise BrokenRuleError(OUTSIDE)
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


def step_numbers(text: str) -> list[int]:
    """The numbers of the steps in the order of their lines."""
    return [int(match["number"]) for line in text.splitlines() if (match := _HEAD.fullmatch(line))]


def broken_rule(text: str, *, is_bare: bool = False) -> str | None:
    """The rule that a text of four steps breaks, if it breaks one.

    >>> broken_rule("They like lakes.")
    'text outside the steps'
    """
    try:
        four_steps(text, is_bare=is_bare)
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


@dataclass
class _Step:
    """One step as it was written: the text of its head line, and the lines below it up to the next step."""

    text: str
    is_heading: bool
    lines: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, head: re.Match[str]) -> _Step:
        rest = " ".join((head["rest"] or "").split())
        is_bold = any(head[0].removesuffix(head["rest"] or "").count(mark) % 2 for mark in ("**", "__"))
        if is_bold and (label := _BOLD_LABEL.fullmatch(rest)) and len(label["label"].split()) <= MOST_LABEL_WORDS:
            return cls(plain(label["text"]), is_heading=False)
        text = plain(rest.rstrip(" *_") if is_bold else rest)
        is_label = len(text.split()) <= MOST_LABEL_WORDS and not text.endswith((".", "!", "?"))
        return cls(text, is_heading=is_label and ("#" in head["marks"] or (is_bold and rest.endswith(("*", "_")))))

    def apart(self, number: int) -> tuple[str, list[str]]:
        """The text of step `number`, and the lines below it that don't belong to it.

        Lines below a step without text are its text, but for the last step, which is one line; bullets are criteria.
        """
        if number != CRITERIA_STEP:
            end = 0 if self.text else 1 if number == NUM_STEPS else len(self.lines)
            return self.text or _joined(self.lines[:end]), self.lines[end:]
        bullets = [plain(match[1]).strip(" ;,.") for line in self.lines if (match := _BULLET.fullmatch(line))]
        others = [line for line in self.lines if not _BULLET.fullmatch(line)]
        if not (self.text or bullets):
            self.text, others = _joined(others), []
        listed = "; ".join(f"({number}) {bullet}" for number, bullet in enumerate(bullets, 1))
        return " ".join([*self.text.translate(_FULL_WIDTH).split(), listed]).strip(), others


def _steps(text: str) -> tuple[list[str], list[str]]:
    """The texts of the four steps in order, and the lines around them: those before, and at most one behind."""
    steps, around = list[_Step](), list[str]()
    for line in text.splitlines():
        if match := _HEAD.fullmatch(line):
            if int(match["number"]) != len(steps) + 1:
                raise BrokenRuleError(ORDER)
            steps.append(_Step.of(match))
        elif not _ORNAMENT.fullmatch(line):
            (steps[-1].lines if steps else around).append(line)
    if around and not steps:
        raise BrokenRuleError(OUTSIDE)
    if len(steps) != NUM_STEPS:
        raise BrokenRuleError(ORDER)
    if all(step.lines and (step.is_heading or not step.text) for step in steps):
        for step in steps:
            step.text = ""  # a heading such as `### Step 1: Signals`
    texts, behind = zip(*(step.apart(number) for number, step in enumerate(steps, 1)), strict=True)
    if any(behind[:-1]) or len(behind[-1]) > 1:
        raise BrokenRuleError(OUTSIDE)
    return list(texts), [*around, *behind[-1]]


def _joined(lines: Sequence[str]) -> str:
    """Lines as one text; of bullets, a list with semicolons."""
    bullets = [plain(match[1]).strip(" ;,.") for line in lines if (match := _BULLET.fullmatch(line))]
    return "; ".join(bullets) if len(bullets) == len(lines) else " ".join(plain(line).strip(" *_") for line in lines)
