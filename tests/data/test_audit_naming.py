"""Which titles a text names, and how surely."""

from __future__ import annotations

import doctest
import importlib

import pytest

from mllmrec.data.auditing.naming import Strength, TitleIndex
from mllmrec.data.sequences import Catalogue
from mllmrec.records import Item

TITLES = {
    "1": "Amber Lantern",
    "2": "Amber Lantern 2",
    "3": "Kettle, The (1995)",
    "4": "Blue (1993)",
    "5": "Black & White (1998)",
    "6": "Città perduta, La (The Lost Town) (1962)",
    "7": "銅の薬缶物語",
    "8": "???",
    "9": "",
    "10": "a day in the life",
    "11": "Blue (2011)",
}
INDEX = TitleIndex(Catalogue(Item(item_id=item, title=title) for item, title in TITLES.items()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is the Amber Lantern.", {"1": Strength.SPELLING}),
        ("It is the amber\nlantern.", {"1": Strength.PHRASE}),
        ("Amber Lantern 2 comes next", {"2": Strength.SPELLING}),
        ("amber, lantern", {"1": Strength.PHRASE}),
        ("an amberlantern", {}),
        ("The Kettle", {"3": Strength.SPELLING}),
        ("a kettle boils", {"3": Strength.WORD}),
        ("Kettle, The (1995)", {"3": Strength.SPELLING}),
        ("blue sea", {"4": Strength.WORD, "11": Strength.WORD}),
        ("Blue (1993)", {"4": Strength.SPELLING}),
        ("in black, white and grey", {"5": Strength.PHRASE}),
        ("La Città perduta", {"6": Strength.SPELLING}),
        ("銅の薬缶物語が好き", {"7": Strength.SPELLING}),
        ("銅の鍋", {}),
        ("??? and nothing", {}),
        ("a day in the life", {"10": Strength.SPELLING}),
        ("", {}),
        ("Blue Amber Lantern Blue", {"4": Strength.WORD, "11": Strength.WORD, "1": Strength.SPELLING}),
    ],
)
def test_titles_in_texts(text: str, expected: dict[str, Strength]) -> None:
    assert INDEX.named(text) == expected


def test_the_surest_way_counts() -> None:
    assert INDEX.named("an amber lantern, I mean Amber Lantern, the amber lantern")["1"] == Strength.SPELLING


@pytest.mark.parametrize("module", ["naming", "chance", "findings"])
def test_examples_in_docstrings(module: str) -> None:
    results = doctest.testmod(importlib.import_module(f"mllmrec.data.auditing.{module}"))
    assert results.attempted
    assert not results.failed
