"""Which titles a text names, and how surely."""

from __future__ import annotations

import pytest

from mllmrec.data.auditing.title_index import Strength, TitleIndex
from mllmrec.data.naming import Naming
from mllmrec.data.sequences import Catalogue
from mllmrec.records import Item

LETTERS, WORDS = Strength.LETTERS, Strength.WORDS
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
CATALOGUE = Catalogue(Item(item_id=item, title=title) for item, title in TITLES.items())
INDEX = TitleIndex(CATALOGUE, Naming(CATALOGUE))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is the Amber Lantern.", {"1": LETTERS}),
        ("It is the amber\nlantern.", {"1": WORDS}),
        ("Amber Lantern 2 comes next", {"2": LETTERS}),
        ("amber, lantern", {"1": WORDS}),
        ("an amberlantern", {}),
        ("The Kettle", {"3": WORDS}),
        ("a kettle boils", {"3": WORDS}),
        ("Kettle, The (1995)", {"3": LETTERS}),
        ("blue sea", {"4": WORDS, "11": WORDS}),
        ("Blue (1993)", {"4": LETTERS, "11": WORDS}),
        ("in black, white and grey", {"5": WORDS}),
        ("La Città perduta", {"6": LETTERS}),
        ("銅の薬缶物語が好き", {"7": LETTERS}),
        ("銅の鍋", {}),
        ("??? and nothing", {}),
        ("a day in the life", {"10": LETTERS}),
        ("", {}),
        ("Blue Amber Lantern Blue", {"4": WORDS, "11": WORDS, "1": LETTERS}),
    ],
)
def test_titles_in_texts(text: str, expected: dict[str, Strength]) -> None:
    assert INDEX.named(text) == expected


def test_the_surest_way_counts() -> None:
    assert INDEX.named("an amber lantern, I mean Amber Lantern, the amber lantern")["1"] == LETTERS
