"""Retry-After: seconds and dates, and whatever else a server may send."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllmrec.data.fetching.download import LONGEST_PAUSE_SECONDS, asked_pause

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("0.25", 0.25),
        ("-5", 0.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("9" * 400, LONGEST_PAUSE_SECONDS),
        ("inf", LONGEST_PAUSE_SECONDS),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_PAUSE_SECONDS),
        ("nan", None),
        ("", None),
        ("in a minute", None),
        ("Mon, 99 Foo 2000 00:00:00 GMT", None),
        (None, None),
    ],
)
def test_a_pause_is_read_as_seconds_or_as_a_date(value: str | None, seconds: float | None) -> None:
    assert asked_pause(value, NOW) == seconds


@given(st.text(st.characters(max_codepoint=255)))
def test_any_header_is_read(value: str) -> None:
    pause = asked_pause(value, NOW)
    assert pause is None or 0.0 <= pause <= LONGEST_PAUSE_SECONDS
