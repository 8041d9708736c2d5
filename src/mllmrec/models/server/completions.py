"""What the body of a chat completion means: an answer, or one of a few kinds of failure.

Servers differ: some put hidden reasoning into a field of its own, some among marks before the answer, some send an
error with status 200 or leave out the usage. Everything is read leniently and nothing raises, since one broken body
is one failed call and never the end of a stage. An answer is whole only when the server says that the model ended it;
any other reason to finish, but for the limit of tokens and a filter, may pass.

What a server's refusal is about, in its own words, and which flag mends it.

Servers and gateways word the same refusal in many ways and often leave out which parameter they mean, so the message is
read beside the parameter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mllmrec.data.visible_answer import EMPTY, ONLY_REASONING, UNFINISHED_THOUGHT, visible_answer
from mllmrec.models.base import Request
from mllmrec.models.server.asking import estimate_prompt_tokens, estimate_tokens
from mllmrec.storage.log_lines import Usage

PASSING_WORDS = {"timeout", "connection", "invalid_json", "error_body", "no_choices", EMPTY}
CUT = "finish_"
"""Before the server's own word for why it stopped an answer half-way."""
ENDED = {
    "",
    "stop",
    "eos",
    "eos_token",
    "end_turn",
    "stop_sequence",
    "stop_token",
    "end_of_text",
    "complete",
    "completed",
}
AT_THE_LIMIT = {
    "length",
    "max_tokens",
    "max_length",
    "max_output_tokens",
    "model_length",
    "model_context_window_exceeded",
}
FILTERED = {"content_filter", "safety", "recitation", "sensitive"}
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
REASONING_PARTS = {"thinking", "reasoning", "thought", "redacted_thinking"}
HIDDEN = (
    "all that was written is reasoning, and no answer follows it. Give it more room with --max-new-tokens, or start "
    "the server without a reasoning parser or with thinking off"
)
KEPT_CHARACTERS, KEPT_LETTERS = 4000, 40
PASSING_STATUSES = (408, 409, 425, 429)

Refused = Literal["renamed", "temperature", "max_tokens", "context", "pictures"]
STATUSES = (400, 413, 415, 422)

_CONTEXT = re.compile(
    r"context[ _]?(?:length|window|size)|maximum (?:context|sequence|input|prompt)|max_model_len|max_seq_len|n_ctx"
    r"|(?:prompt|input|message|request)s? (?:is|are|was|were) too long|too many (?:input |prompt )?tokens"
    r"|reduce the length|exceeds? (?:the )?(?:available |model's )?context",
    re.IGNORECASE,
)
_LIMIT = re.compile(r"max_(?:completion_|new_|output_)?tokens|maxOutputTokens|max(?:imum)?_length", re.IGNORECASE)
_OTHER_NAME = re.compile(
    r"max_completion_tokens|unsupported|not supported|unrecogni[sz]ed|unknown|unexpected", re.IGNORECASE
)
_TOO_LARGE = re.compile(
    r"too (?:large|big|high)|at most|exceed|greater than|less than|maximum|must be|range", re.IGNORECASE
)
_PICTURES = re.compile(r"multi-?modal|image|vision|picture", re.IGNORECASE)

ADVICE: dict[Refused, str] = {
    "temperature": (
        "The server refuses --temperature {temperature:g} for this model: give the value that it takes, often "
        "--temperature 1."
    ),
    "max_tokens": "The server refuses --max-new-tokens {max_new_tokens}: give the number that it allows.",
    "context": (
        "The prompt and --max-new-tokens {max_new_tokens} together don't fit the model's context: lower "
        "--max-new-tokens, or have the server run the model with a longer context."
    ),
    "pictures": "The model takes no pictures: name one that does with --model, or write without them.",
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one call: a text, or a failure in one stable word.

    `wait_seconds` is what the server asked to wait before the next call, `status`, `code` and `parameter` are how it
    refused, `detail` is what it said, and `advice` what to do about it.
    """

    text: str | None = None
    failure: str | None = None
    wait_seconds: float = 0.0
    detail: str = ""
    advice: str = ""
    status: int | None = None
    code: str = ""
    parameter: str | None = None
    usage: Usage = field(default_factory=dict)

    @property
    def is_passing(self) -> bool:
        """Whether the call may be made again; not for an empty answer that was written at a price."""
        return is_passing(self.failure) and not (self.failure == "empty" and self.usage.get("completion_tokens"))


def refusal(status: int, error: Any, *, code: str = "", wait_seconds: float = 0.0) -> Outcome:
    """The outcome of a call that the server refused with an error object."""
    named = error.get("param") if isinstance(error, Mapping) else None
    return Outcome(
        failure=f"http_{status}",
        wait_seconds=wait_seconds,
        detail=error_message(error),
        status=status,
        code=code,
        parameter=named if isinstance(named, str) else None,
    )


def is_passing(failure: str | None) -> bool:
    """Whether a failure may go away when the call is made again.

    Truncated, filtered and refused answers don't, nor those that hold reasoning alone: the same request would end the
    same way at the same price, and so would an empty one for which tokens were written (`Outcome.is_passing`).

    >>> [is_passing(word) for word in ("timeout", "http_503", "finish_abort", "http_400", "truncated", None)]
    [True, True, True, False, False, False]
    """
    word = failure or ""
    status = int(word.removeprefix("http_")) if word.startswith("http_") else 0
    return word in PASSING_WORDS or word.startswith(CUT) or status in PASSING_STATUSES or status >= 500


def read_completion(content: str, request: Request) -> Outcome:
    """The outcome of a call that came back with status 200."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return Outcome(failure="invalid_json", detail=" ".join(content[:KEPT_CHARACTERS].split()))
    body = body if isinstance(body, dict) else {}
    if body.get("error"):
        return _error_body(body["error"])
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return Outcome(failure="no_choices", usage=_told_usage(body) or {})
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    written, reasoning = _text(message.get("content")), _reasoning(message)
    usage = _told_usage(body) or _estimated_usage(request, written + reasoning)
    text, fault = visible_answer(written)
    if message.get("refusal"):
        fault = "refused"
    elif (cut := _cut(choice.get("finish_reason"))) is not None:
        fault = cut
    elif fault == EMPTY and reasoning.strip():
        fault = ONLY_REASONING
    if fault is None:
        return Outcome(text=text, usage=usage)
    detail = HIDDEN if fault in (ONLY_REASONING, UNFINISHED_THOUGHT) else ""
    return Outcome(failure=fault, detail=detail, usage=usage)


def _cut(reason: Any) -> str | None:
    """The failure that a finish reason stands for, None where the model ended its answer by itself.

    >>> [_cut(reason) for reason in ("stop", None, "length", "SAFETY", "insufficient_system_resource")]
    [None, None, 'truncated', 'filtered', 'finish_insufficient_system_resource']
    """
    word = re.sub(r"\W+", "_", str(reason or "")).lower()[:KEPT_LETTERS]
    if word in ENDED:
        return None
    return "truncated" if word in AT_THE_LIMIT else "filtered" if word in FILTERED else CUT + word


def error_message(error: Any) -> str:
    """What an error object says, in one line."""
    said = (error.get("message") or error.get("detail") or error) if isinstance(error, Mapping) else error
    return " ".join(str(said)[:KEPT_CHARACTERS].split())


def _error_body(error: Any) -> Outcome:
    """An error that came with status 200; a code of its own that says 4xx counts as that status."""
    code = error.get("code") if isinstance(error, Mapping) else None
    if isinstance(code, int) and 400 <= code < 500:
        return refusal(code, error)
    return Outcome(failure="error_body", detail=error_message(error))


def _text(content: Any) -> str:
    """The text of a message, which some servers send in parts; half a surrogate pair, which no file holds, becomes ?"""
    if isinstance(content, list):
        parts = (part for part in content if isinstance(part, dict) and not _is_hidden(part))
        content = "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    return content.encode(errors="replace").decode() if isinstance(content, str) else ""


def _reasoning(message: Mapping[str, Any]) -> str:
    """What stands in the fields, or the parts, of hidden reasoning."""
    content = message.get("content")
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    fields = [message.get(name) for name in REASONING_FIELDS]
    hidden = [part.get(name) for part in parts if _is_hidden(part) for name in ("thinking", "reasoning", "text")]
    return next(filter(None, map(_text, fields)), "") + "".join(map(_text, hidden))


def _is_hidden(part: Mapping[str, Any]) -> bool:
    return str(part.get("type")) in REASONING_PARTS


def _told_usage(body: Mapping[str, Any]) -> dict[str, float] | None:
    """The tokens the server counted, None unless it told both."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return None
    found = {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
    told = {name: count for name, count in found.items() if type(count) is int and count >= 0}
    return dict(told) if len(told) == len(found) else None


def _estimated_usage(request: Request, written: str) -> dict[str, float]:
    read, wrote = estimate_prompt_tokens(request), estimate_tokens(written)
    return {"prompt_tokens": read, "completion_tokens": wrote, "estimated_tokens": read + wrote}


def refused_setting(
    status: int, parameter: str | None, message: str, *, limit_name: str, pictures: bool
) -> Refused | None:
    """The setting that a refusal is about, None where it names none.

    `renamed`: the limit of tokens goes by its other name, max_completion_tokens, where max_tokens was sent.

    >>> refused_setting(400, None, "Use 'max_completion_tokens' instead.", limit_name="max_tokens", pictures=False)
    'renamed'
    >>> refused_setting(400, None, "maximum context length is 2048 tokens", limit_name="max_tokens", pictures=False)
    'context'
    """
    if status not in STATUSES:
        return None
    if _CONTEXT.search(message):
        return "context"
    if parameter == "temperature" or (parameter is None and "temperature" in message.lower()):
        return "temperature"
    if parameter == limit_name or _LIMIT.search(message):
        may_be_renamed = limit_name == "max_tokens" and (_OTHER_NAME.search(message) or not _TOO_LARGE.search(message))
        return "renamed" if may_be_renamed else "max_tokens"
    return "pictures" if pictures and _PICTURES.search(message) else None
