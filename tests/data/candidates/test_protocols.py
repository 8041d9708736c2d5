"""Names of protocols: made, shown and read back, with the retriever wherever lists are its making."""

from __future__ import annotations

from pathlib import Path

import pytest

from mllmrec import Workspace
from mllmrec.data.candidates.protocols import ListsName, Protocol, protocol_of
from mllmrec.settings.data import CandidatesSettings, RetrieveSettings
from mllmrec.settings.evaluation import RunSettings

NAMES = [
    (Protocol("uniform", 9), "uni9", "uni9"),
    (Protocol("popularity", 99), "pop99", "pop99"),
    (Protocol("uniform", 99, legacy=True), "legacy-uni99", "legacy-uni99"),
    (Protocol("hard", 19, "itemknn"), "hard19", "hard19-itemknn"),
    (Protocol("hard", 99, "markov"), "hard99-markov", "hard99-markov"),
    (Protocol("rerank", 100, "itemknn"), "rr100", "rr100-itemknn"),
    (Protocol("rerank", 50, "sasrec"), "rr50-sasrec", "rr50-sasrec"),
    (Protocol("all"), "full", "full"),
]


@pytest.mark.parametrize(("protocol", "stem", "shown"), NAMES)
def test_a_name_is_read_back_from_its_file_and_from_what_is_shown(protocol: Protocol, stem: str, shown: str) -> None:
    assert (protocol.stem, protocol.shown) == (stem, shown)
    assert Protocol.parse(stem) == Protocol.parse(shown) == protocol
    name = ListsName("test", protocol, 10, 42)
    assert ListsName.parse(name.path(Workspace("/w").dataset("shop"))) == name
    assert protocol_of(name.path(Workspace("/w").dataset("shop"))).shown == shown


@pytest.mark.parametrize("ending", ["", "_int_10", "_cot_0.1_int_10"])
@pytest.mark.parametrize("mode", ["generate", "train"])
def test_caches_of_the_reference_hold_its_draw_whatever_their_generation(mode: str, ending: str) -> None:
    assert protocol_of(Path(f"processed/test_{mode}_seed42_neg99{ending}.json")).shown == "legacy-uni99"


def test_no_two_protocols_share_a_file() -> None:
    assert len({stem for _, stem, _ in NAMES}) == len(NAMES)


@pytest.mark.parametrize(
    "name", ["", "uni", "full9", "uni9-itemknn", "hard", "legacy-pop9", "UNI9", "uni9 ", "hard19-"]
)
def test_other_names_are_none_of_ours(name: str) -> None:
    assert Protocol.parse(name) == Protocol("foreign", name=name)
    assert Protocol.parse(name).shown == name


def test_a_file_named_otherwise_is_its_own_protocol() -> None:
    assert protocol_of(Path("x/mine.jsonl")).shown == "mine"
    assert protocol_of(Path("x/test_mine_w10_s42.jsonl")).shown == "mine"


def test_words_say_what_was_asked() -> None:
    assert "among 9 items drawn uniformly" in Protocol("uniform", 9).words
    assert "19 other items that markov, fitted on train alone," in Protocol("hard", 19, "markov").words
    assert "counts as missed" in Protocol("rerank", 100, "itemknn").words
    assert "did meet" in Protocol("uniform", 9, legacy=True).words
    assert "others' choice" in Protocol.of_others("llmrank").words
    assert not Protocol.parse("mine").words


def test_settings_that_make_lists_and_those_that_rank_them_name_one_file() -> None:
    made = [
        CandidatesSettings(dataset="shop", negatives="popularity", num_neg=99),
        RetrieveSettings(dataset="shop", retriever="markov", num=99),
        RetrieveSettings(dataset="shop", rerank=True, num=100),
        CandidatesSettings(dataset="shop", negatives="all"),
    ]
    ranked = [
        RunSettings(dataset="shop", negatives="popularity", num_neg=99),
        RunSettings(dataset="shop", negatives="hard", retriever="markov", num_neg=99),
        RunSettings(dataset="shop", negatives="rerank", num_neg=100),
        RunSettings(dataset="shop", negatives="all"),
    ]
    names = ["test_pop99_w10_s42", "test_hard99-markov_w10_s42", "test_rr100_w10_s42", "test_full_w10_s42"]
    assert [ListsName.asked(own).path(Workspace("/w").dataset("shop")).stem for own in made] == names
    assert [ListsName.asked(own).path(Workspace("/w").dataset("shop")).stem for own in ranked] == names
    imported = CandidatesSettings(dataset="shop", import_="lists/LLMRank.txt")
    assert ListsName.asked(imported).path(Workspace("/w").dataset("shop")).stem == "test_foreign-llmrank_w10_s42"


def test_a_foreign_name_that_begins_like_ours_is_no_random_draw() -> None:
    assert not Protocol.parse("unicorn").random
    assert not Protocol.parse("legacy-lists").legacy
    assert Protocol.parse("legacy-uni9").random


def test_drawn_lists_come_before_foreign_ones_and_short_before_long() -> None:
    names = ["uni9", "uni99", "pop9", "hard19", "rr100", "full", "foreign-llmrank"]
    assert sorted(set(names), key=lambda name: Protocol.parse(name).difficulty) == names
