"""What the body of a chat completion means: an answer, or one of a few kinds of failure.

Servers differ: some put hidden reasoning into a field of its own, some between think tags before the answer, some send
an error with status 200 or leave out the usage. Everything is read leniently and nothing raises, since one broken body
is one failed call and never the end of a stage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mllmrec.backends.base import Request
from mllmrec.backends.spending import estimate_prompt_tokens, estimate_tokens
from mllmrec.worklogs import Usage

THINK, END_OF_THINK = "<think>", "</think>"
PASSING_WORDS = {"timeout", "connection", "invalid_json", "error_body", "no_choices", "empty"}
KEPT_CHARACTERS = 4000
PASSING_STATUSES = (408, 409, 425, 429)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one call: a text, or a failure in one stable word.

    `wait_seconds` is what the server asked to wait before the next call, `status` and `code` are how it refused, and
    `detail` is what it said.
    """

    text: str | None = None
    failure: str | None = None
    wait_seconds: float = 0.0
    detail: str = ""
    status: int | None = None
    code: str = ""
    usage: Usage = field(default_factory=dict)

    @property
    def is_passing(self) -> bool:
        """Whether the call may be made again; not for an empty answer that was written at a price."""
        return is_passing(self.failure) and not (self.failure == "empty" and self.usage.get("completion_tokens"))


def refusal(status: int, error: Any, *, code: str = "", wait_seconds: float = 0.0) -> Outcome:
    """The outcome of a call that the server refused with an error object."""
    return Outcome(
        failure=f"http_{status}", wait_seconds=wait_seconds, detail=error_message(error), status=status, code=code
    )


def is_passing(failure: str | None) -> bool:
    """Whether a failure may go away when the call is made again.

    Truncated, filtered and refused answers don't: the same request would end the same way at the same price, and so
    would an empty one for which tokens were written (`Outcome.is_passing`).

    >>> [is_passing(word) for word in ("timeout", "http_429", "http_503", "http_400", "truncated", None)]
    [True, True, True, False, False, False]
    """
    status = int((failure or "").removeprefix("http_")) if (failure or "").startswith("http_") else 0
    return failure in PASSING_WORDS or status in PASSING_STATUSES or status >= 500


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
    written = _text(message.get("content"))
    usage = _told_usage(body) or _estimated_usage(request, written + _text(message.get("reasoning_content")))
    text = visible(written)
    if message.get("refusal"):
        return Outcome(failure="refused", usage=usage)
    if choice.get("finish_reason") == "content_filter":
        return Outcome(failure="filtered", usage=usage)
    if choice.get("finish_reason") == "length":
        return Outcome(failure="truncated", usage=usage)
    if not text:
        return Outcome(failure="empty", usage=usage)
    return Outcome(text=text, usage=usage)


def visible(text: str) -> str:
    """The answer behind hidden reasoning, whose opening tag may stand in the prompt, or its end be missing.

    >>> visible("<think>Warm, slow films.</think> Step 1: drama")
    'Step 1: drama'
    >>> visible("Warm, slow films.</think>Step 1: drama")
    'Step 1: drama'
    >>> visible("<think>Warm, slow")
    ''
    """
    _, ended, answer = text.rpartition(END_OF_THINK)
    answer = answer.strip()
    return "" if not ended and answer.startswith(THINK) else answer


def error_message(error: Any) -> str:
    """What an error object says, in one line."""
    said = (error.get("message") or error) if isinstance(error, Mapping) else error
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
        parts = (part.get("text") for part in content if isinstance(part, dict))
        content = "".join(part for part in parts if isinstance(part, str))
    return content.encode(errors="replace").decode() if isinstance(content, str) else ""


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
