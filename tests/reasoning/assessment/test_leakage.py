"""Leakage: whatever tells of the target is rejected with its reason; what the history explains isn't."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gallery import GENERIC, caption, captions, catalogue, own_words, title, traces

from mllmrec.data.sequences import Catalogue
from mllmrec.models.embedding import TfidfEmbedder
from mllmrec.reasoning.assessment.examination import LeakageJudge, near, runs
from mllmrec.records import Item, Trace


@pytest.fixture(scope="module")
def judge() -> LeakageJudge:
    return LeakageJudge(catalogue(), captions(), TfidfEmbedder(), 42)


def reasons(judge: LeakageJudge, written: list[Trace]) -> set[str | None]:
    return {each.reason for each in judge.judge(written)}


def with_words(words: str) -> list[Trace]:
    """All traces in their own words and some more, in which {title}, {caption} and {id} are the target's."""
    return [
        replace(
            each,
            reasoning=each.reasoning
            + words.format(
                title=title(each.target_id).removesuffix(" (1990)"), caption=caption(each.target_id), id=each.target_id
            ),
        )
        for each in traces()
    ]


def test_traces_that_know_nothing_are_let_through(judge: LeakageJudge) -> None:
    found = judge.judge(traces())
    assert {each.reason for each in found} == {None}
    assert {(each.title_overlap, each.caption_overlap) for each in found} == {(0.0, 0.0)}
    assert reasons(judge, [replace(each, reasoning=text) for each in traces() for text in (GENERIC, "")]) == {None}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (" Then comes {title}.", "names the target's title"),
        (" then comes {title} (1990)!", "names the target's title"),
        (" Then comes [ITEM_{id}].", "names the target's id"),
        (" Its picture: {caption}", "repeats the target's caption"),
    ],
)
def test_a_planted_leak_is_rejected_with_its_reason(judge: LeakageJudge, words: str, reason: str) -> None:
    assert reasons(judge, with_words(words)) == {reason}


def test_a_paraphrase_of_the_title_is_rejected(judge: LeakageJudge) -> None:
    """The title's words in another order, inflected, with others in between."""

    def paraphrased(each: Trace) -> Trace:
        one, two = title(each.target_id).removesuffix(" (1990)").lower().split()
        return replace(each, reasoning=f"{each.reasoning} Something about {two}s, or the {one}, would do.")

    found = judge.judge([paraphrased(each) for each in traces()])
    assert {each.reason for each in found} == {"paraphrases the target's title"}
    assert {each.title_overlap for each in found} == {1.0}


def test_half_a_title_is_no_leak(judge: LeakageJudge) -> None:
    halves = [
        replace(each, reasoning=f"{each.reasoning} Like {title(each.target_id).split()[0].lower()}s.")
        for each in traces()
    ]
    assert reasons(judge, halves) == {None}


def test_words_of_a_title_that_stand_far_apart_are_no_paraphrase(judge: LeakageJudge) -> None:
    def apart(each: Trace) -> Trace:
        one, two = title(each.target_id).removesuffix(" (1990)").lower().split()
        return replace(each, reasoning=f"A {one} first. {own_words(each.history)} A {two} last.")

    assert {each.title_overlap for each in judge.judge([apart(each) for each in traces()])} == {0.0}


def test_what_the_history_explains_is_no_leak() -> None:
    """The words of the target's title and caption all occur in those of the history."""
    titles = {"1": "Amber Road", "2": "Silver Gate", "3": "Amber Gate", "4": "Moss"}
    shelf = Catalogue([Item(item_id=key, title=text) for key, text in titles.items()])
    hours = {"1": "two", "2": "ten", "3": "six"}
    told = {key: f"a lantern over a wide and quiet river at {hour}" for key, hour in hours.items()}
    judge = LeakageJudge(shelf, told, TfidfEmbedder(), 42)
    trace = next(iter(traces()))
    known = replace(
        trace, history=("1", "2"), target_id="3", reasoning="A gate, amber, a lantern over a wide and quiet river"
    )
    unknown = replace(known, history=("4",))
    assert judge.judge([known])[0][:3] == (None, 0.0, 0.0)
    assert judge.judge([unknown])[0].reason == "paraphrases the target's title"
    assert judge.judge([replace(unknown, reasoning="a lantern over a wide and quiet river")])[0].reason == (
        "repeats the target's caption"
    )


def test_a_text_about_the_target_alone_is_rejected_where_no_run_of_words_is_shared(judge: LeakageJudge) -> None:
    """The target's title and caption word for word, backwards: no title, few runs of words, but the same words."""
    each = traces()[0]
    backwards = " ".join(reversed(f"{caption(each.target_id)} {caption(each.target_id)}".split()))
    found = judge.judge([replace(each, reasoning=backwards)])[0]
    assert found.caption_overlap == 0.0
    assert found.similarity_gap > judge.judge([each])[0].similarity_gap
    assert found.similarity_gap > 5


def test_a_judgement_depends_on_its_trace_alone(judge: LeakageJudge) -> None:
    some = with_words(" like {title}")[:10] + traces()[:10]
    together = judge.judge(some)
    assert [judge.judge([each])[0] for each in some] == together


def test_a_target_outside_the_catalogue_and_a_tiny_catalogue_are_borne() -> None:
    judge = LeakageJudge(Catalogue([Item(item_id="1", title="Amber Road")]), {}, TfidfEmbedder(), 42)
    trace = replace(traces()[0], history=("1",), target_id="77", reasoning="Item 77, or the amber road")
    assert judge.judge([trace])[0] == ("names the target's id", 0.0, 0.0, 0.0)


def test_near_words_are_counted_within_reach() -> None:
    written = ["one", "", "two", "three", "", "", "one"]
    assert near(written, {"one", "two", "three"}, 4) == {"one", "two", "three"}
    assert near(written, {"one", "two", "three"}, 3) == {"one", "two"}
    assert near([], {"one"}, 3) == set()
    assert runs(["a", "b"]) == frozenset()
    assert runs(["a", "b", "c", "d"]) == {("a", "b", "c"), ("b", "c", "d")}
