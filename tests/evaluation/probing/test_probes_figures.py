"""Figures of the probes worked out by hand, and what their changes promise."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllmrec.data.candidates.drawing import sliced
from mllmrec.data.sequences import Line
from mllmrec.evaluation.probing import groups
from mllmrec.evaluation.probing.conditions import CHANGES, PLAIN, Condition, changed, rotations, shuffled, swapped
from mllmrec.evaluation.probing.findings import reading
from mllmrec.evaluation.probing.sample import Ratios, Sample, kept
from mllmrec.records import RankingExample, example_id

ABC = ("a", "b", "c")
TURNED = rotations(3)


def example_of(user: str, target: str, candidates: tuple[str, ...] = ABC) -> RankingExample:
    history = ("x", "y", "z")
    return RankingExample(
        example_id=example_id(user, target, history),
        user_id=user,
        history=history,
        candidates=candidates,
        target_id=target,
        split="test",
    )


def sample_of(scores: dict[str, list[list[float]]], targets: str) -> Sample:
    examples = [example_of(str(number), target) for number, target in enumerate(targets)]
    arrays = {name: [np.array(own) for own in rows] for name, rows in scores.items()}
    return Sample(examples=examples, scores=arrays, top_k=(2,), seed=42)


def test_a_third_of_a_list_of_three_moves_one_candidate() -> None:
    shown = [changed(example_of("1", "a"), condition, 42).candidates for condition in (PLAIN, *TURNED)]
    assert shown == [("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b")]
    assert [condition.rotation for condition in TURNED] == [Fraction(1, 3), Fraction(2, 3)]


def test_slots_of_two_users_by_hand() -> None:
    """User 0 is always given a, the target; user 1 is given whatever stands first, and waits for b.

    HR@1 in slot 1 is (1 + 1) / 2, elsewhere (1 + 0) / 2. First choices: user 0 has one in every slot, user 1 three in
    slot 1: (1 + 3) / 6 in slot 1, 1 / 6 elsewhere. The first choice stays for user 0 alone.
    """
    content, first = [1.0, 0.0, 0.0], ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    scores = {"plain": [content, first[0]], "rotated-1/3": [content, first[1]], "rotated-2/3": [content, first[2]]}
    found = groups.probe_position(sample_of(scores, "ab"), TURNED)
    assert [slot["HR@1"]["value"] for slot in found["slots"]] == [1.0, 0.5, 0.5]
    assert [slot["first_choices"]["value"] for slot in found["slots"]] == pytest.approx([4 / 6, 1 / 6, 1 / 6])
    assert [slot["uniform"] for slot in found["slots"]] == pytest.approx([1 / 3] * 3)
    assert found["range"]["value"] == 0.5
    assert (found["range"]["low"], found["range"]["high"]) == (0.0, 1.0), "either user may be drawn twice"
    assert found["first_choice_kept"]["value"] == 0.5
    assert found["rotations_range"]["value"] == 0.5, "user 1 is right in one rotation of three"


def test_a_tied_first_choice_counts_in_parts() -> None:
    scores = {name: [[1.0, 1.0, 0.0]] for name in ("plain", "rotated-1/3", "rotated-2/3")}
    found = groups.probe_position(sample_of(scores, "a"), TURNED)
    assert [slot["HR@1"]["value"] for slot in found["slots"]] == [0.5] * 3
    assert found["first_choice_kept"]["value"] == 1.0
    assert found["choices_range"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_popularity_lifts_by_hand() -> None:
    """log(1 + 0, 1, 3) = 0, log 2, 2 log 2, of which the mean is log 2."""
    counts = {"a": 0, "b": 1, "c": 3}
    sample = sample_of({"plain": [[0.0, 1.0, 2.0], [0.0, 2.0, 1.0]]}, "ba")
    scores = {**sample.scores, "popularity": groups.popularity_scores(sample.examples, counts)}
    whole = Sample(examples=sample.examples, scores=scores, top_k=(2,), seed=42)
    told = {name: each["value"] for name, each in groups.probe_popularity(whole, counts)["log_popularity"].items()}
    assert told == pytest.approx(
        {
            "candidates": log(2),
            "first_choice_lift": (log(2) + 0) / 2,
            "target_lift": (0 - log(2)) / 2,
            "most_popular_lift": log(2),
            "first_choice_minus_target": (log(2) + log(2)) / 2,
            "agreement": 0.5,
        }
    )


def test_popularity_alone_is_set_against_the_model_in_every_band() -> None:
    """Training holds a 6 times, b 4 times, c twice: a is the head, b the middle, c the tail, new items too."""
    counts = groups.count_items([Line(user_id="u", items=tuple("aaaaaabbbbcc"), line_index=0)])
    assert counts == Counter(a=6, b=4, c=2)
    assert groups.bands(counts) == {"a": "head", "b": "middle", "c": "tail"}
    plain = [[2.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 1.0, 2.0]]
    sample = sample_of({"plain": plain, "popularity": [[6.0, 4.0, 2.0]] * 3}, "abc")
    everyone, head, middle, tail = groups.probe_popularity(sample, counts)["groups"]
    assert [group["num_users"] for group in (everyone, head, middle, tail)] == [3, 1, 1, 1]
    assert everyone["metrics"]["HR@1"]["model"]["value"] == 1.0
    assert everyone["metrics"]["HR@1"]["popularity"]["value"] == pytest.approx(1 / 3)
    assert [group["metrics"]["HR@1"]["difference"]["value"] for group in (head, middle, tail)] == [0.0, 1.0, 1.0]


def test_a_group_without_users_tells_none() -> None:
    sample = sample_of({"plain": [[1.0, 0.0, 0.0]], "popularity": [[6.0, 4.0, 2.0]]}, "a")
    reported = groups.probe_popularity(sample, {"a": 6, "b": 4, "c": 2})["groups"]
    assert [(group["num_users"], "metrics" in group) for group in reported] == [
        (1, True),
        (1, True),
        (0, False),
        (0, False),
    ]


def test_changes_are_paired_by_hand() -> None:
    """HR@1 of three users goes from 1, 1, 0 to 0, 1, 0: minus a third; the first choice stays for two of three."""
    plain = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    other = [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    found = groups.probe_change(sample_of({"plain": plain, "shuffled": other}, "abc"), ["shuffled"])["shuffled"]
    told = found["metrics"]["HR@1"]
    assert (told["plain"]["value"], told["changed"]["value"]) == pytest.approx((2 / 3, 1 / 3))
    assert told["difference"]["value"] == pytest.approx(-1 / 3)
    assert (told["difference"]["low"], told["difference"]["high"]) == (-1.0, 0.0)
    assert told["minimum_detectable"] == pytest.approx(2.8016 * 3**-0.5 / 3**0.5, rel=1e-4)
    assert found["first_choice_kept"]["value"] == pytest.approx(2 / 3)
    assert "no use of the order was found (differences from" in reading("shuffled", found, ["HR@1"])


def test_one_user_has_no_detectable_difference_to_tell() -> None:
    sample = sample_of({"plain": [[1.0, 0.0, 0.0]], "shuffled": [[1.0, 0.0, 0.0]]}, "a")
    found = groups.probe_change(sample, ["shuffled"])["shuffled"]
    assert found["metrics"]["HR@1"]["minimum_detectable"] is None
    assert reading("shuffled", found, ["HR@1"]).endswith("no use of the order was found.")


def test_ratios_weigh_users_by_what_they_have() -> None:
    ratios = Ratios(np.array([[2.0, 0.0], [0.0, 0.0]]), np.array([[3.0, 0.0], [1.0, 0.0]]), 42)
    ratio, nothing = ratios.columns()
    assert ratio is not None
    assert ratio.value == 0.5
    assert (ratio.low, ratio.high) == (0.0, pytest.approx(2 / 3))
    assert nothing is None


def test_the_chance_of_a_range_by_hand() -> None:
    """Two users, each right in slot 1 of three. Turned at random they agree on some slot in one of three draws."""
    hits = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    p_value = Ratios(hits, np.ones_like(hits), 42).p_value()
    assert p_value == pytest.approx(1 / 3, abs=0.05)
    assert Ratios(np.zeros_like(hits), np.ones_like(hits), 42).p_value() == 1.0
    assert Ratios(hits, np.zeros_like(hits), 42).p_value() is None


def test_a_users_history_is_the_whole_line_before_the_target() -> None:
    lines = [Line(user_id="1", items=("p", "q", "x", "y", "z", "a"), line_index=0)]
    known, unknown = example_of("1", "a"), example_of("2", "a")
    assert groups.history_lengths([known, unknown], lines) == [5, 3]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200))
def test_bins_of_lengths_cover_everyone_once(values: list[int]) -> None:
    found = groups.bins(values)
    assert 1 <= len(found) <= groups.BINS
    assert [sum(low <= value <= high for low, high in found) for value in values] == [1] * len(values)


@given(st.dictionaries(st.text("abcdef", min_size=1), st.sampled_from(["red", "blue", "green"]), max_size=30))
def test_a_swapped_caption_is_another_items_and_says_something_else(captions: dict[str, str]) -> None:
    given_ = swapped(captions, 42)
    assert given_.keys() == captions.keys()
    if len(set(captions.values())) > 1:
        assert all(given_[item] != captions[item] for item in captions)
        assert set(given_.values()) <= set(captions.values())
    else:
        assert given_ == captions


def test_captions_that_differ_are_all_used_once() -> None:
    captions = {str(number): f"caption {number}" for number in range(40)}
    assert Counter(swapped(captions, 1).values()) == Counter(captions.values())
    assert swapped(captions, 1) != swapped(captions, 2)


@given(st.lists(st.sampled_from("abcdefgh"), max_size=9).map(tuple), st.text(max_size=4))
def test_a_shuffled_history_has_the_same_items_in_another_order(history: tuple[str, ...], key: str) -> None:
    order = shuffled(history, 42, key)
    assert sorted(order) == sorted(history)
    if len(set(history)) > 1:
        assert order != history


def test_a_slice_holds_every_smaller_one_whatever_the_order_of_users() -> None:
    examples = [example_of(str(number), "a") for number in range(50)]
    large = sliced(examples, 20, 42)
    assert sliced(examples[::-1], 8, 42) == large[:8]
    assert len(sliced(examples, None, 42)) == 50
    assert sliced(examples, 8, 43) != large[:8]


def test_histories_are_changed_as_their_names_say() -> None:
    example = example_of("1", "a")
    shown = {name: changed(example, condition, 42).history for name, condition in CHANGES.items()}
    assert shown["last-item"] == ("z",)
    assert shown["no-history"] == ()
    assert sorted(shown["shuffled"]) == ["x", "y", "z"]
    assert shown["caption-swap"] == shown["title-mask"] == example.history


def test_the_same_choice_is_the_same_tie() -> None:
    tie, one, other = np.array([0.5, 0.5, 0.0]), np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])
    assert kept([tie, tie, one], [tie, one, other]).tolist() == [1.0, 0.5, 0.0]


def test_a_rotation_keeps_to_its_share_of_any_list() -> None:
    half = Condition(name="half", rotation=Fraction(1, 2))
    assert [half.shift(count) for count in (2, 3, 10, 99)] == [1, 1, 5, 49]
