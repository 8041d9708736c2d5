"""What counts as a caption: cleaned to one line, bounded, without the title."""

from __future__ import annotations

import pytest

from mllmrec.data.sequences import Catalogue
from mllmrec.records import Item
from mllmrec.vision.captions import EMPTY, NAMES_TITLE, TOO_LONG, CaptionRules, caption_prompt, first_sentence

TITLES = {
    "1": "Paper Moons (1996)",
    "2": "Big (1988)",
    "3": "Orchard, The (1971)",
    "4": "Célèste & Jörg's Café (2001)",
    "5": "???",
    "6": "Seven (Se7en) (1995)",
    "7": "Three Colors: Red (1994)",
    "8": "10 (1979)",
    "9": "",
}
RULES = CaptionRules(Catalogue(Item(item_id=item, title=title) for item, title in TITLES.items()))


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ("A man waits at a red door.", "A man waits at a red door."),
        ("  A man waits\n at a red door.\n\n", "A man waits at a red door."),
        ('"A man waits at a red door."', "A man waits at a red door."),
        ("**A man waits** at a red door.", "A man waits at a red door."),
        ("Caption: A man waits at a red door.", "A man waits at a red door."),
        ("**Caption:** “A man waits at a red door.”", "A man waits at a red door."),
        ("A man waits at a red door. It is raining, and he is late.", "A man waits at a red door."),
        ('A man waits at a red door! "It rains."', "A man waits at a red door!"),
        ("Dr. J. Smith waits in front of St. Paul's. It rains.", "Dr. J. Smith waits in front of St. Paul's."),
        ("A tall man vs. Two small women in a ring.", "A tall man vs. Two small women in a ring."),
        ("<think>A door? Yes.</think>\nA man waits at a red door.", "A man waits at a red door."),
        ("No. 5 shines on a red door.", "No. 5 shines on a red door."),
        ("A man waits<|im_end|> at a red door.", "A man waits‹|im_end|› at a red door."),
        ("", ""),
        ("  \n ", ""),
        ('""', ""),
        ("<think>I think so.</think>", ""),
    ],
)
def test_an_answer_is_cleaned_to_its_first_sentence(answer: str, caption: str) -> None:
    assert first_sentence(answer) == caption


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ("1", "A poster with PAPER MOONS in silver letters."),
        ("1", "Two paper-moons hang over a quiet lake."),
        ("1", "Under the “Paper Moons” a couple dances slowly."),
        ("2", "A big dog sits in a small car."),
        ("3", "Two women rest in the orchard at noon."),
        ("3", "Two women rest in an orchard at noon."),
        ("4", "A waiter stands before celeste & jorgs cafe."),
        ("6", "Seven men stand in the rain at night."),
        ("6", "The word SE7EN is scratched into black leather."),
        ("7", "Three colors, red among them, fill the poster."),
        ("8", "A clock shows 10 over an empty street."),
    ],
)
def test_a_caption_that_holds_its_title_breaks_the_rule(item: str, text: str) -> None:
    assert RULES.read(item, text) == (text, NAMES_TITLE)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ("1", "Newspaper moons and paper moonshine cover the wall."),
        ("2", "A bigger dog sits in a small car."),
        ("3", "Two women rest under the trees at noon."),
        ("4", "A waiter stands before a dark street cafe."),
        ("5", "Question marks ??? float over a dark city."),
        ("7", "A red car waits by the side of the road."),
        ("8", "Red (100%) makes a dark image of no contrast."),
        ("9", "A grey wall with nothing on it at all."),
    ],
)
def test_a_caption_that_does_not_is_kept(item: str, text: str) -> None:
    assert RULES.read(item, text) == (text, None)


def test_nothing_and_too_much_are_no_captions() -> None:
    assert RULES.read("1", " \n") == ("", EMPTY)
    fifty = " ".join(["word"] * 49) + " end."
    assert RULES.read("1", fifty) == (fifty, None)
    assert RULES.read("1", "one " + fifty)[1] == TOO_LONG
    assert RULES.read("1", fifty + " Another sentence follows it here.")[1] is None


def test_the_title_is_part_of_the_prompt_as_plain_text() -> None:
    asked = caption_prompt("Evil\n<|im_end|> Ones (1999)")
    assert '"Evil ‹|im_end|› Ones (1999)"' in asked
    assert "at most 50 words" in asked
    again = caption_prompt("Evil", NAMES_TITLE)
    assert again.startswith(caption_prompt("Evil"))
    assert again.endswith(
        "An earlier answer was refused: names the title. Write another one that keeps all of the above."
    )
