"""Lines without a header, each a user and its items.

Text that would pass for ids and is something else (a header, quoted or bracketed items, further columns) is refused.
"""

from __future__ import annotations

import re

from mllmrec.errors import DataError

BETWEEN = re.compile(r"[,|;\s]+")
OPENING, CLOSING = "\"'[({", "\"'])}"
USERS = ("user", "user_id", "userid", "uid", "session_id")
"""What a column of users may be called, best first."""


def user_and_items(text: str, where: str) -> tuple[str, str]:
    """The first word of a line, and its other words as they stand; a DataError where the line is a header."""
    user, *rest = BETWEEN.split(text.strip(), maxsplit=1)
    if user.strip("\"'").partition(":")[0].lower() in USERS:
        raise DataError(
            f"{where}: {text.strip()[:80]!r} looks like a header. Expected a user and its items in each line, without "
            "one; take it away, or see docs/protocols.md for the tables that are read."
        )
    return user, rest[0] if rest else ""


def item_words(text: str, where: str) -> list[str]:
    """The items of a text, separated all in one way; a DataError where it is quoted, bracketed or several columns.

    >>> item_words("20, 21, 22", "lists.txt:1")
    ['20', '21', '22']
    """
    text = text.strip().rstrip(",;|").rstrip()
    if text and text[0] in OPENING and text[-1] in CLOSING:
        raise DataError(
            f"{where}: the items are quoted or in brackets: {text[:80]!r}. Expected plain ids, separated by spaces; "
            "take the marks away."
        )
    between = {"".join(sorted({*gap} - {" "})) or " " for gap in set(BETWEEN.findall(text))}
    if len(between) > 1:
        ways = ", ".join(map(repr, sorted(between)))
        raise DataError(
            f"{where}: the items are separated in several ways ({ways}), as columns are: {text[:80]!r}. Expected items "
            "alone, separated in one way; take the other columns away, or see docs/protocols.md for tables."
        )
    return [word for word in BETWEEN.split(text) if word]
