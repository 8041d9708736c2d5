"""What a server's refusal is about, in its own words, and which flag mends it.

Servers and gateways word the same refusal in many ways and often leave out which parameter they mean, so the message is
read beside the parameter.
"""

from __future__ import annotations

import re
from typing import Literal

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
