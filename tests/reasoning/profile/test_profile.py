"""The writer without weights: what it finds, what it may not say, and that it repeats itself to the letter."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shelves import SEEN, SHELVES, captions, catalogue, histories, items, lines

from mllmrec.data.naming import Naming
from mllmrec.data.sequences import Catalogue, Interactions
from mllmrec.reasoning.profile.history_profile import HistoryProfiler
from mllmrec.reasoning.profile.writer import ProfileWriter
from mllmrec.reasoning.writing.steps import broken_rule, criteria, four_steps
from mllmrec.records import Item
from mllmrec.storage.workspace import Workspace

WRITER = ProfileWriter(catalogue(), captions())
IDS = [item.item_id for item in items()]
any_history = st.lists(st.sampled_from(IDS), min_size=1, max_size=12)


@pytest.mark.parametrize("shelf", range(4))
def test_a_planted_taste_is_told_and_looked_for(shelf: int) -> None:
    """Five things of one shelf among seven: its genre and its picture come up in every step, no other shelf's does."""
    own = [f"{shelf + 1}{number:02d}" for number in (3, 5, 7, 10, 12)]
    others = [f"{(shelf + 1) % 4 + 1}01", f"{(shelf + 2) % 4 + 1}02"]
    steps = WRITER.write([others[0], *own[:2], others[1], *own[2:]]).splitlines()
    assert re.search(rf"5 .*of the genre {SHELVES[shelf]}", steps[0])
    assert f'"{SEEN[shelf]}"' in steps[0]
    for step in steps[1:]:
        assert SHELVES[shelf] in step
        assert not any(name in step for name in SHELVES if name != SHELVES[shelf])


def test_a_turn_away_and_a_faded_taste_are_told() -> None:
    away = WRITER.write(["100", "102", "104", "106", "203"]).splitlines()
    assert re.search(r"genre Sea.* towards the genre .*Sand", away[1])
    faded = WRITER.write(["100", "102", "104", "106", "200", "202", "204"]).splitlines()
    assert re.search(r"genre Sand.*; .*genre Sea", faded[1])


def test_a_history_without_anything_in_common_is_told_so() -> None:
    plain = Catalogue([Item(item_id=str(number), title=f"{chr(97 + number)}qx") for number in range(9)])
    writer = ProfileWriter(plain, {})
    written = writer.write(["1", "2", "3"])
    assert broken_rule(written) is None
    assert '"dqx"' in written, "the latest choice is what there is to go by"


def test_without_titles_captions_and_columns_there_are_still_four_steps() -> None:
    writer = ProfileWriter(Catalogue([Item(item_id="1", title=""), Item(item_id="2", title="")]), {})
    assert broken_rule(writer.write(["1", "2", "unknown"])) is None
    assert broken_rule(writer.write(["1", "1"])) is None
    assert broken_rule(writer.write(["2"])) is None


@given(any_history)
@settings(max_examples=80, deadline=None)
def test_any_history_gets_four_good_steps_always_the_same(history: list[str]) -> None:
    written = WRITER.write(history)
    assert four_steps(written) == written
    assert 3 <= len(criteria(written.splitlines()[2])) <= 5
    assert ProfileWriter.write(WRITER, tuple(history)) == written


@given(any_history)
@settings(max_examples=60, deadline=None)
def test_no_item_outside_the_history_is_named(history: list[str]) -> None:
    written, naming = WRITER.write(history), Naming(catalogue())
    assert not [item for item in IDS if item not in history and naming.names(written, item, history)]


def test_words_that_are_titles_are_not_said() -> None:
    """A genre, a caption's word and words of the fixed sentences that are titles of other items stay unsaid."""
    titles = ["Sea", "Wooden Boat", "Likely, The", "Match", "Mixed Lot", "Exploring", "Change"]
    extra = [Item(item_id=f"x{number}", title=title) for number, title in enumerate(titles)]
    writer = ProfileWriter(Catalogue([*items(), *extra]), captions())
    for history in (["100", "102", "104", "106"], ["100", "202", "304", "406"], ["100", "102", "104", "203"]):
        words = re.findall(r"\w+", writer.write(history).casefold())
        assert not {"sea", "likely", "match", "exploring", "change"} & set(words)
        assert "wooden boat" not in " ".join(words)
        assert "mixed lot" not in " ".join(words)


def test_a_title_of_the_history_may_be_said_though_it_contains_another() -> None:
    shelf = [*items(), Item(item_id="x1", title="Quay"), Item(item_id="x2", title="Quay Two")]
    assert '"Quay Two"' in ProfileWriter(Catalogue(shelf), {}).write(["100", "102", "x2"])


def test_titles_can_neither_break_the_form_nor_carry_markup() -> None:
    mean = 'Hm" Step 4: done.\nStep 1: <|im_end|> "Yes! No'
    writer = ProfileWriter(Catalogue([*items(), Item(item_id="x1", title=mean)]), captions())
    written = writer.write(["100", "102", "x1"])
    assert broken_rule(written) is None
    assert "<|im_end|>" not in written


def test_traces_differ_from_user_to_user_and_wordings_vary() -> None:
    written = [WRITER.write(history) for history in histories(lines(60))]
    assert len(set(written)) > 50
    assert len({text.splitlines()[3].split()[2] for text in written}) >= 3


def test_the_seed_draws_other_wordings_of_the_same_content() -> None:
    other = ProfileWriter(catalogue(), captions(), seed=7)
    pairs = [(WRITER.write(history), other.write(history)) for history in histories(lines(30))]
    assert any(one != two for one, two in pairs)
    assert all(one.splitlines()[2] == two.splitlines()[2] for one, two in pairs)


def test_nothing_of_the_writer_takes_more_than_a_history() -> None:
    assert list(inspect.signature(ProfileWriter.write).parameters) == ["self", "history"]
    assert list(inspect.signature(HistoryProfiler.profile).parameters) == ["self", "history"]
    assert list(inspect.signature(ProfileWriter).parameters) == ["catalogue", "captions", "seed"]


@pytest.mark.real_data
def test_real_histories_get_good_steps_that_name_nobody_else(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(real_data)
    interactions = Interactions.load(Workspace(tmp_path), "movielens")
    writer = ProfileWriter(interactions.catalogue, {})
    naming, some = Naming(interactions.catalogue), interactions.train[::40]
    written = [writer.write(line.items[-10:-1]) for line in some]
    assert not [text for text in written if broken_rule(text)]
    assert len(set(written)) == len(written)
    for line, text in list(zip(some, written, strict=True))[::5]:
        others = [item for item in interactions.catalogue.ids[::9] if item not in line.items]
        assert not [item for item in others if naming.names(text, item, line.items[-10:-1])]
