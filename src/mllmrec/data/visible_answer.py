"""What a model's text shows: the answer behind its reasoning and out of its wrappers.

Model families mark hidden reasoning in their own ways (`<think>`, `◁think▷`, `[THINK]`, `<seed:think>`, the channels of
the harmony format), and the marks may arrive whole, with the opening one left in the prompt, or, where a server drops
special tokens, as bare words (`analysis...assistantfinal...`). Some wrap the answer as well (`<answer>`, boxes). Every
text of a model is read by `visible_answer`, whether a server sent it or a local model wrote it.

An answer is what follows the last closed thought. A thought that began and never ended leaves what stood before it,
and is named, because a text that was cut there is no answer to keep.
"""

from __future__ import annotations

import re
from typing import NamedTuple

EMPTY, ONLY_REASONING, UNFINISHED_THOUGHT = "empty", "only_reasoning", "unfinished_thought"

_THOUGHT_TAGS = (
    *("think", "thinking", "thought", "thoughts", "reasoning", "reflection", "analysis", "scratchpad"),
    *("seed:think", "mm:think"),
)
_THOUGHT_PAIRS = (
    ("◁think▷", "◁/think▷"),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|think|>", "<|/think|>"),
    ("<|channel>thought", "<channel|>"),
    ("<unused94>thought", "<unused95>"),
)
_OPENINGS = {f"<{tag}>": tag for tag in _THOUGHT_TAGS} | {first.lower(): last for first, last in _THOUGHT_PAIRS}
_CLOSINGS = {f"</{tag}>": tag for tag in _THOUGHT_TAGS} | {last.lower(): last for _, last in _THOUGHT_PAIRS}

_ANSWER_TAG = re.compile(r"<(answer|final_answer|final|output|response)>(.*?)(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_ANSWER_END = re.compile(r"</(?:answer|final_answer|final|output|response)>\s*\Z", re.IGNORECASE)
_BOX = re.compile(
    r"<\|begin_of_box\|>(.*?)(?:<\|end_of_box\|>|\Z)|<\|begin_of_solution\|>(.*?)(?:<\|end_of_solution\|>|\Z)"
    r"|<\|START_(?:RESPONSE|TEXT)\|>(.*?)(?:<\|END_(?:RESPONSE|TEXT)\|>|\Z)",
    re.DOTALL,
)
_FENCE = re.compile(r"```[\w-]*+[^\S\n]*+\n")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_LATEX_TEXT = re.compile(r"\A\\(?:text|textbf|mathrm)\s*\{(.*)\}\Z", re.DOTALL)
_BEHIND_A_BOX = re.compile(r"[\s.$*!\\\])]*")

_CHANNEL = r"<\|channel\|>\s*\w+[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>"
_MESSAGE = re.compile(
    r"(?:<\|channel\|>|\A)\s*(analysis|commentary|final)\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>"
    r"(.*?)(?=<\|(?:end|return|call|start|channel)\|>|\Z)",
    re.DOTALL,
)
_BARE_FINAL = re.compile(r"assistantfinal(?!ly\b)")
_BARE_THOUGHT = re.compile(r"\s*(?:analysis|commentary)(?=[\w\"'“‘])")
_SPOKEN_THOUGHT = re.compile(r"\A\s*Here is my thought process:.*\bHere is my response:", re.DOTALL)
_BARE_ANSWER = re.compile(r"\s*final(?=[A-Z0-9\"“(\[*#])")


def _any_of(spellings: list[str]) -> str:
    return "|".join(map(re.escape, sorted(spellings, key=len, reverse=True)))


_MARK = re.compile(_any_of([*_OPENINGS, *_CLOSINGS]), re.IGNORECASE)
_OPEN_AT_THE_END = re.compile(rf"((?:{_any_of(list(_OPENINGS))}|{_CHANNEL})\s*)\Z", re.IGNORECASE)
_EMPTY_AT_THE_END = re.compile(rf"({_any_of(list(_OPENINGS))})(\s*)({_any_of(list(_CLOSINGS))})(\s*)\Z", re.IGNORECASE)
_TOKEN = re.compile(
    rf"{_MARK.pattern}|<\|(?:channel|message|constrain|start|end|return|call)\|>|<\|(?:begin|end)_of_(?:box|solution)\|>"
    r"|<\|(?:START|END)_(?:RESPONSE|TEXT)\|>|<unused9[45]>",
    re.IGNORECASE,
)


class Visible(NamedTuple):
    """`text` is the visible answer; `fault` says in one stable word why there is none, None where there is one.

    After an `unfinished_thought` the text is what stood before it.
    """

    text: str
    fault: str | None


def visible_answer(written: str) -> Visible:
    """The answer in what a model wrote.

    >>> visible_answer("<think>Warm, slow films.</think> Step 1: drama").text
    'Step 1: drama'
    >>> visible_answer("Warm, slow films.[/THINK]Step 1: drama").text
    'Step 1: drama'
    >>> visible_answer("analysisWarm, slow films.assistantfinalStep 1: drama").text
    'Step 1: drama'
    >>> visible_answer("◁think▷Easy.◁/think▷ It is <|begin_of_box|>a red door<|end_of_box|>.").text
    'a red door'
    >>> visible_answer("<think>Warm, slow")
    Visible(text='', fault='unfinished_thought')
    """
    message = _final_message(written)
    before, answer, is_open = ("", "", True) if message is None else _behind_thoughts(message)
    text = _unwrapped((before if is_open else answer).strip())
    if is_open:
        return Visible(text, UNFINISHED_THOUGHT)
    if text:
        return Visible(text, None)
    return Visible("", ONLY_REASONING if _MARK.sub("", written).strip() else EMPTY)


def open_thought(prompt: str) -> str:
    """The mark of reasoning that a prompt leaves open at its end, as it stands there; nothing where it leaves none.

    >>> open_thought("<|im_start|>assistant\\n<think>\\n"), open_thought("<think>\\n\\n</think>\\n\\n")
    ('<think>\\n', '')
    """
    match = _OPEN_AT_THE_END.search(prompt)
    return match[1] if match else ""


def empty_thought(prompt: str) -> tuple[str, str] | None:
    """The empty think block that a prompt ends with, as what stands before a thought and behind it; None without one.

    >>> empty_thought("<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n")
    ('<think>\\n', '\\n</think>\\n\\n')
    """
    match = _EMPTY_AT_THE_END.search(prompt)
    if match is None or (closing_mark(match[1]) or "").lower() != match[3].lower():
        return None
    blank = match[2]
    return match[1] + blank[: len(blank) // 2], blank[len(blank) // 2 :] + match[3] + match[4]


def closing_mark(opening: str) -> str | None:
    """The mark that ends the thought which `opening` begins; None for a channel, which has none of its own.

    >>> closing_mark("<think>\\n"), closing_mark("[THINK]")
    ('</think>', '[/THINK]')
    """
    kind = _OPENINGS.get(opening.strip().lower())
    return kind if kind is None or kind.lower() in _CLOSINGS else f"</{kind}>"


def is_mark(token: str) -> bool:
    """Whether a token, as text, marks reasoning or wraps an answer, so that it has to be read before it is dropped."""
    return _TOKEN.fullmatch(token) is not None


def _final_message(written: str) -> str | None:
    """The message of the final channel where a text is in the harmony format, None where it has none; else the text."""
    if "<|channel|>" in written or "<|message|>" in written:
        messages = [(match[1], match[2]) for match in _MESSAGE.finditer(written)]
        return next((text for channel, text in reversed(messages) if channel == "final"), None)
    if finals := list(_BARE_FINAL.finditer(written)):
        return written[finals[-1].end() :]
    if _BARE_THOUGHT.match(written):
        return None
    if opening := _BARE_ANSWER.match(written) or _SPOKEN_THOUGHT.match(written):
        return written[opening.end() :]
    return written


def _behind_thoughts(text: str) -> tuple[str, str, bool]:
    """(what stands before a thought that is still open, what follows the last closed one, whether one is open).

    A mark inside a thought that doesn't end it is part of the thought; a closing one without its opening, which then
    stood in the prompt, makes a thought of all before it.
    """
    start, opened_at, open_kind = 0, 0, ""
    for mark in _MARK.finditer(text):
        spelling = mark[0].lower()
        if spelling in _OPENINGS:
            if not open_kind:
                opened_at, open_kind = mark.start(), _OPENINGS[spelling]
        elif not open_kind or _CLOSINGS[spelling] == open_kind:
            start, open_kind = mark.end(), ""
    return text[start:opened_at], text[start:], bool(open_kind)


def _unwrapped(text: str) -> str:
    """The text out of tags, boxes and fences that stand around all of it, or around what it comes to."""
    for unwrap in (_out_of_tags, _out_of_box_tokens, _out_of_latex, _out_of_a_fence) * 2:
        text = unwrap(text).strip()
    return text


def _out_of_tags(text: str) -> str:
    inside = [match[2].strip() for match in _ANSWER_TAG.finditer(text)]
    return next(filter(None, reversed(inside)), "") if inside else _ANSWER_END.sub("", text)


def _out_of_box_tokens(text: str) -> str:
    """The content of the only box, where it ends the text; of several, or amid a sentence, all without the marks."""
    boxes = list(_BOX.finditer(text))
    if len(boxes) == 1 and _BEHIND_A_BOX.fullmatch(text, boxes[0].end()):
        return "".join(part or "" for part in boxes[0].groups())
    return _BOX.sub(lambda box: "".join(part or "" for part in box.groups()), text)


def _out_of_latex(text: str) -> str:
    """The content of `\\boxed{...}` where it ends the text; amid a sentence, the text without the mark."""
    opening = next(_BOXED.finditer(text), None)
    if opening is None:
        return text
    depth = 1
    for end in range(opening.end(), len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if not depth:
            break
    else:
        end = len(text)
    content = text[opening.end() : end].strip()
    content = match[1] if (match := _LATEX_TEXT.match(content)) else content
    if _BEHIND_A_BOX.fullmatch(text, min(end + 1, len(text))):
        return content
    return text[: opening.start()] + content + text[end + 1 :]


def _out_of_a_fence(text: str) -> str:
    opening = _FENCE.match(text)
    return text[opening.end() : -3] if opening and text.endswith("```", opening.end()) else text
