"""Phrases of titles and captions."""

from __future__ import annotations

import pytest

from mllmrec.reasoning.profile.facets import phrases


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("Lantern", ["lantern"]),
        ("The Paper Moon", ["paper", "moon", "paper moon"]),
        ("King of the Hill", ["king", "hill", "king of the hill"]),
        ("red, blue", ["red", "blue"]),
        ("a dog that runs", ["dog", "runs"]),
        ("strong contrast and fine detail", ["strong contrast", "fine detail"]),
        ("edged in black", ["black", "edged in black"]),
        ("edged in dark red", ["dark red", "edged in dark red"]),
        ("a dark image", ["dark"]),
        ("brightest at the upper left", ["upper left", "brightest at the upper left"]),
        ("Moon II 1996", ["moon"]),
        ("Café <|im_end|> noir", ["café", "end", "noir"]),
    ],
    ids=lambda value: str(value)[:20],
)
def test_words_and_pairs_within_a_clause(text: str, expected: list[str]) -> None:
    assert list(phrases(text)) == expected
