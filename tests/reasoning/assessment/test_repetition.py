"""Near-duplicates: exactly those that comparing all pairs finds, and in time where all are alike."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllmrec.reasoning.assessment.verdicts import find_repeats

WORDS = st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=14)


def runs(text: str) -> set[tuple[str, ...]]:
    found = text.split()
    return {tuple(found[at : at + 3]) for at in range(max(1, len(found) - 2))}


def by_all_pairs(texts: list[tuple[str, str]]) -> dict[str, str]:
    """The same by the definition: the first earlier text that repeats none itself and is similar enough."""
    found: dict[str, str] = {}
    for at, (key, text) in enumerate(texts):
        for other, earlier in texts[:at]:
            one, two = runs(text), runs(earlier)
            if other not in found and 5 * len(one & two) >= 4 * len(one | two):
                found[key] = other
                break
    return found


@given(st.lists(WORDS, max_size=25))
@settings(deadline=None, max_examples=60)
def test_all_pairs_give_the_same(texts: list[list[str]]) -> None:
    pairs = [(str(at), " ".join(words)) for at, words in enumerate(texts)]
    assert find_repeats(pairs) == by_all_pairs(pairs)


def test_long_texts_with_a_few_words_changed() -> None:
    """100 words are 98 runs, and each changed word takes 3 of them: 3 changes leave 89/107 > 4/5, 4 leave 86/110."""
    rng = random.Random(0)
    texts = []
    for number in range(40):
        words = [f"w{rng.randrange(10_000)}" for _ in range(100)]
        texts.append((f"{number}", " ".join(words)))
        for changes in (1, 3, 4, 12):
            changed = [
                f"new{at}of{changes}" if at % 7 == 5 and at < 7 * changes else word for at, word in enumerate(words)
            ]
            texts.append((f"{number} but {changes}", " ".join(changed)))
    found = find_repeats(texts)
    assert {key for key in found if "but 4" not in key} == {
        f"{at} but {changes}" for at in range(40) for changes in (1, 3)
    }
    assert set(found.values()) == {str(number) for number in range(40)}


def test_of_like_texts_the_one_that_ranks_first_stays() -> None:
    texts = [(key, "quiet lakes far in the north") for key in "abcd"] + [("e", "something else")]
    assert find_repeats(texts, "cadbe".index) == {"a": "c", "b": "c", "d": "c"}


def test_case_and_punctuation_make_no_difference() -> None:
    assert find_repeats([("a", "Step 1: Quiet lakes, far."), ("b", "step 1 quiet LAKES far")]) == {"b": "a"}


@pytest.mark.parametrize("texts", [[], [("a", "")], [("a", "one")], [("a", "!?"), ("b", "one two")]])
def test_short_and_empty_texts_are_borne(texts: list[tuple[str, str]]) -> None:
    assert find_repeats(texts) == {}


def test_thousands_of_like_texts_take_seconds() -> None:
    """Every text says the same of another thing, so that any two share most of their words."""
    shared = " ".join(f"common{number}" for number in range(60))
    started = time.perf_counter()
    found = find_repeats((str(number), f"{shared} thing{number}") for number in range(4000))
    assert len(found) == 3999
    assert time.perf_counter() - started < 10
