"""Titles that were cut out of web pages: without character references, tags and script."""

from __future__ import annotations

import html
import re

TAGS = (
    "a|abbr|article|b|big|body|br|center|cite|code|div|em|font|form|h[1-6]|head|hr|html|i|img|input|label|li|link|meta|"
    "noscript|ol|option|p|pre|s|script|section|select|small|span|strong|style|sub|sup|table|tbody|td|th|title|tr|tt|u|ul"
)
HIDDEN = re.compile(r"<(script|style|noscript)\b[^>]*>.*?(?:</\1\s*>|$)|<!--.*?(?:-->|$)", re.DOTALL | re.IGNORECASE)
TAG = re.compile(rf"</?(?:{TAGS})(?:\s[^<>]*|\s*/)?>|<(?:{TAGS})\s+[\w-]+\s*=[^<>]*$", re.IGNORECASE)
SCRIPT = re.compile(
    r"\bvar\s+\w+\s*=|\bfunction\s*\w*\s*\([^)]*\)\s*\{|\bP\.when\s*\(|\(new Date\(\)\)|\bwindow\.\w+\s*[=.(\[]|"
    r"\bdocument\.\w+\s*[=.(]|\bue_t0\b|\.getTime\(\)"
)
"""Where script begins that was left without its tags."""
ROUNDS = 3
"""How often references may stand in references, as in &amp;amp;quot;."""


def plain_text(text: str) -> str:
    """The words of a title; nothing where it is script alone. Angle brackets that are no tag stay.

    >>> plain_text('<span id="productTitle"> Tea &amp; Kettle </span> var aPageStart = (new Date()).getTime();')
    'Tea & Kettle'
    >>> plain_text("C++ <vector>, age < 5, I <3 tea")
    'C++ <vector>, age < 5, I <3 tea'
    """
    for _ in range(ROUNDS):
        text = html.unescape(text)
    bare = TAG.sub(" ", HIDDEN.sub(" ", text))
    if (script := SCRIPT.search(bare)) is not None:
        bare = bare[: script.start()]
    return text if bare == text else " ".join(bare.split())
