"""Names of protocols: made, shown and read back, with the retriever wherever lists are its making."""

from __future__ import annotations

from pathlib import Path

import pytest

from mllmrec import Workspace
from mllmrec.data.candidates.protocols import Protocol, protocol_named, protocol_of

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
    assert protocol_named(stem) == protocol_named(shown) == protocol
    assert protocol_of(Workspace("/w").candidates("shop", "test", protocol.stem, 10, 42)) == shown


@pytest.mark.parametrize("ending", ["", "_int_10", "_cot_0.1_int_10"])
@pytest.mark.parametrize("mode", ["generate", "train"])
def test_caches_of_the_reference_hold_its_draw_whatever_their_generation(mode: str, ending: str) -> None:
    assert protocol_of(Path(f"processed/test_{mode}_seed42_neg99{ending}.json")) == "legacy-uni99"


def test_no_two_protocols_share_a_file() -> None:
    assert len({stem for _, stem, _ in NAMES}) == len(NAMES)


@pytest.mark.parametrize(
    "name", ["", "uni", "full9", "uni9-itemknn", "hard", "legacy-pop9", "UNI9", "uni9 ", "hard19-"]
)
def test_other_names_are_none_of_ours(name: str) -> None:
    assert protocol_named(name) is None


def test_a_file_named_otherwise_is_its_own_protocol() -> None:
    assert protocol_of(Path("x/mine.jsonl")) == "mine"
    assert protocol_of(Path("x/test_mine_w10_s42.jsonl")) == "mine"


def test_words_say_what_was_asked() -> None:
    assert "among 9 items drawn uniformly" in Protocol("uniform", 9).words
    assert "19 other items that markov, fitted on train alone," in Protocol("hard", 19, "markov").words
    assert "counts as missed" in Protocol("rerank", 100, "itemknn").words
    assert "did meet" in Protocol("uniform", 9, legacy=True).words
