"""From measurements to words: levels, places, the bound of 50 words, and going around a title."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllmrec.vision.measurements import COLOURS, Composition, Shares
from mllmrec.vision.pixels import ACCENTS, OTHER_NAMES, Measurements, sentence, series

EVEN = ((0.5, 0.5, 0.5),) * 3


def shares(**parts: float) -> Shares:
    """Shares by name (`dark_red=0.2`); the rest is black."""
    given_ = {name.replace("_", " "): share for name, share in parts.items()}
    return {name: given_.get(name, 0.0) for name in COLOURS} | {"black": 1 - sum(given_.values())}


def measured(**changes: Any) -> Measurements:
    """An image of which there is little to say, but for the changes."""
    shapes = {"brightness": 0.5, "contrast": 0.25, "detail": 0.25, "symmetry": 0.5, "light": EVEN, "text": (False,) * 3}
    colours = {"whole": shares(), "rim": shares(), "above": shares(), "below": shares(), "chroma": 0.05, "warmth": 0.0}
    shapes |= {name: value for name, value in changes.items() if name in shapes}
    colours |= {name: value for name, value in changes.items() if name in colours}
    return Measurements(**colours, shapes=Composition(**shapes))


def said(**changes: Any) -> str:
    return sentence(measured(**changes), lambda _: False)


def without(*words: str, **changes: Any) -> str:
    """The sentence when none of the words may occur, word by word."""

    def taken(text: str) -> bool:
        return any(re.search(rf"\b{word}\b", text, re.IGNORECASE) for word in words)

    return sentence(measured(**changes), taken)


def test_the_whole_sentence() -> None:
    found = said(
        whole=shares(red=0.16, brown=0.09, dark_grey=0.05, gold=0.02),
        rim=shares(),
        above=shares(),
        below=shares(brown=0.7),
        chroma=0.09,
        warmth=0.04,
        brightness=0.2,
        contrast=0.31,
        detail=0.33,
        symmetry=0.7,
        light=((0.9, 0.4, 0.3), (0.3, 0.2, 0.2), (0.2, 0.2, 0.2)),
        text=(True, False, True),
    )
    assert found == (
        "Black (70%), red (15%) and brown (10%), touched with gold, make a dark, warm, vivid image of strong contrast "
        "and fine detail, nearly symmetric, brightest at the upper left, with text-like marks across the top and "
        "bottom, black above and brown below, edged in black."
    )


def test_one_colour_alone_is_singular_and_has_no_rim() -> None:
    assert said() == "Black (100%) makes a mid-toned image of medium contrast and detail, evenly lit."


def test_only_the_three_largest_colours_are_listed_and_small_ones_not_at_all() -> None:
    assert said(whole=shares(white=0.3, tan=0.2, beige=0.1)).startswith("Black (40%), white (30%) and tan (20%) make")
    assert said(whole=shares(white=0.3, tan=0.03)).startswith("Black (65%) and white (30%) make a")


def test_the_accent_is_the_largest_eye_catching_colour_that_is_not_listed() -> None:
    start = said(whole=shares(red=0.3, brown=0.2, tan=0.1, yellow=0.02, pink=0.03))
    assert start.startswith("Black (35%), red (30%) and brown (20%), touched with pink, make")
    assert "touched" not in said(whole=shares(yellow=0.01, tan=0.03))


@pytest.mark.parametrize(("share", "percent"), [(0.024, 0), (0.074, 5), (0.075, 10), (0.125, 15), (0.5, 50)])
def test_shares_are_rounded_to_five_percent(share: float, percent: int) -> None:
    assert (f"red ({percent}%)" in said(whole=shares(red=share))) == (percent > 0)


@pytest.mark.parametrize(
    ("light", "words"),
    [
        (((1, 1, 1), (0, 0, 0), (0, 0, 0)), "brightest at the top"),
        (((0, 0, 0), (1, 1, 1), (0, 0, 0)), "brightest across the middle"),
        (((0, 0, 1), (0, 0, 1), (0, 0, 1)), "brightest down the right"),
        (((0, 0, 0), (0, 1, 0), (0, 0, 0)), "brightest in the centre"),
        (((0, 0, 0), (0, 0, 0), (1, 0, 0)), "brightest at the lower left"),
        (((1, 0, 0), (0, 1, 0), (0, 0, 1)), "brightest in the centre"),
        (((1, 0, 1), (0, 0, 0), (1, 0, 1)), "lit in patches"),
        (((0.5, 0.5, 0.6), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), "evenly lit"),
    ],
)
def test_where_it_is_brightest(light: tuple[tuple[float, ...], ...], words: str) -> None:
    assert said(light=light) == f"Black (100%) makes a mid-toned image of medium contrast and detail, {words}."


def test_levels_are_named_by_where_they_begin() -> None:
    assert " a very dark image" in said(brightness=0.149)
    assert " a dark image" in said(brightness=0.15)
    assert " a very bright, cool, muted image" in said(brightness=0.75, warmth=-0.013, chroma=0.034)
    assert " a mid-toned, warm, colourless image" in said(warmth=0.025, chroma=0.011)
    assert " of no contrast and no detail" in said(contrast=0, detail=0)
    assert " of soft contrast and medium detail" in said(contrast=0.1)
    assert ", lopsided," in said(symmetry=-1)
    assert ", symmetric," in said(symmetry=1)


def test_a_colour_that_holds_the_rim_or_a_third_is_told_there() -> None:
    assert said(whole=shares(white=0.5), rim=shares(white=0.6)).endswith(", edged in white.")
    assert "edged" not in said(whole=shares(white=0.5), rim=shares(white=0.5, red=0.1, blue=0.1))
    assert said(whole=shares(white=0.5), rim=shares(white=0.5), above=shares(white=0.9)).endswith(
        ", white above and black below."
    )


def test_words_that_are_taken_are_said_otherwise_or_left_out() -> None:
    red = {"whole": shares(red=0.3, white=0.2, teal=0.02, blue=0.1), "rim": shares(red=0.9), "above": shares(red=0.5)}
    assert said(**red).startswith("Black (40%), red (30%) and white (20%), touched with blue, make")
    assert without("red", **red).startswith("Black (40%), scarlet (30%) and white (20%), touched with blue, make")
    assert without("red", **red).endswith("evenly lit, edged in scarlet.")
    assert without("30", **red).startswith("Black (40%), red and white (20%), touched with blue, make")
    assert "touched with cobalt" in without("blue", **red)
    assert " make a image" not in without("toned", **red)
    assert " make an image of medium contrast" in without("toned", **red)
    assert without("contrast", "detail").startswith("Black (100%) makes a mid-toned image, evenly lit")
    assert without("lit") == "Black (100%) makes a mid-toned image of medium contrast and detail."
    assert "text-like" not in without("marks", text=(True, True, True))


def test_every_colour_has_another_name_of_other_words() -> None:
    assert set(OTHER_NAMES) == set(COLOURS)
    assert set(COLOURS) >= ACCENTS
    words = {word for name in COLOURS for word in name.split()}
    assert not words & set(OTHER_NAMES.values())
    assert len(set(OTHER_NAMES.values())) == len(COLOURS)


@pytest.mark.parametrize(("words", "text"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")])
def test_series(words: list[str], text: str) -> None:
    assert series(words) == text


fractions = st.floats(0, 1)


@st.composite
def any_shares(draw: st.DrawFn) -> Shares:
    weights = {name: draw(st.sampled_from([0, 0, 1, 5, 20])) for name in COLOURS}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()} if total else shares()


@given(
    st.builds(
        Measurements,
        whole=any_shares(),
        rim=any_shares(),
        above=any_shares(),
        below=any_shares(),
        chroma=st.floats(0, 0.33),
        warmth=st.floats(-0.33, 0.33),
        shapes=st.builds(
            Composition,
            brightness=fractions,
            contrast=st.floats(0, 0.5),
            detail=fractions,
            symmetry=st.floats(-1, 1),
            light=st.tuples(*[st.tuples(fractions, fractions, fractions)] * 3),
            text=st.tuples(st.booleans(), st.booleans(), st.booleans()),
        ),
    ),
    st.sampled_from([None, *COLOURS, "image", "warm", "dark", "brightest", "5", "100"]),
)
@settings(max_examples=150, deadline=None)
def test_whatever_was_measured_makes_one_sentence_of_at_most_fifty_words(image: Measurements, word: str | None) -> None:
    text = sentence(image, lambda words: word is not None and re.search(rf"\b{word}\b", words) is not None)
    assert len(text.split()) <= 50
    assert re.fullmatch(r"[A-Z][a-z0-9 ,()%-]*\.", text)
    assert "  " not in text
    assert ", ," not in text
    if word not in {None, "image"}:
        assert re.search(rf"\b{word}\b", text, re.IGNORECASE) is None
