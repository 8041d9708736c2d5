"""Whether a text names an item by its id."""

from __future__ import annotations

import re
from collections.abc import Iterator

MIXED_ID, LONGEST_ANNOUNCEMENT = 5, 32

# What may stand between "item" and an id: a few marks within the sentence, "id", "no." or "number".
_MARKS = r"(?:_|[^\w.,;!?\n]){0,4}"
_KINDS = "item|id|movie|film|title|candidate|option|product|book|video"
_ID_COMES = re.compile(rf"(?:(?<![^\W_])(?:{_KINDS})|#|№){_MARKS}(?:(?:id|no\.?|nr\.?|number){_MARKS})?\Z")
_ID_ENDS, _ID_STARTS = re.compile(r"(?![\w.-]*[^\W_])"), re.compile(r"(?<![^\W_])(?<![.-])")
_BRACKETED_ID = re.compile(r"\[item_([a-z0-9_-][a-z0-9._-]*)\]")
# "rated the movie 9 out of 10", "saw the film 3 times": numbers that count something.
_COUNTED = re.compile(
    r"\s*(?:out of|of\b|/\s*\d|times|years?|hours?|minutes?|days?|stars?|points?|percent|%|[-\s]year)", re.IGNORECASE
)
_KIND = re.compile(rf"(?<![^\W_])(?:movie|film|title|candidate|option|product|book|video){_MARKS}\Z")


def mentions_id(text: str, item_id: str) -> bool:
    """`[ITEM_12]`, `item 12`, `movie 12`, `[12]`, `id: 12`, `#12`; an id of letters and digits also by itself.

    >>> [mentions_id(text, "12") for text in ("Candidate 12", "as in [12]", "12 of them", "the film 12 times")]
    [True, True, False, False]
    """
    text, folded = text.casefold(), item_id.casefold()
    if folded not in text:
        return False
    if folded in _BRACKETED_ID.findall(text) or f"[{folded}]" in text:
        return True
    text = _BRACKETED_ID.sub("[]", text)
    alone = len(folded) >= MIXED_ID and not folded.isdigit() and not folded.isalpha()
    return any(
        _ID_ENDS.match(text, at + len(folded))
        and (_is_announced(text, at, at + len(folded)) or (alone and _ID_STARTS.match(text, at)))
        for at in _occurrences(text, folded)
    )


def _is_announced(text: str, start: int, stop: int) -> bool:
    before = text[max(0, start - LONGEST_ANNOUNCEMENT) : start]
    if not _ID_COMES.search(before):
        return False
    return not (_KIND.search(before) and _COUNTED.match(text, stop))


def _occurrences(text: str, part: str) -> Iterator[int]:
    at = text.find(part)
    while at >= 0:
        yield at
        at = text.find(part, at + 1)
