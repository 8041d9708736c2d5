"""Records are frozen, keyword-only, and join by an id that hangs on user, target and history alone."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllmrec import records
from mllmrec.records import Item, example_id

IDS = st.text("abAB019._-", min_size=1, max_size=4)
QUESTIONS = st.tuples(IDS, IDS, st.lists(IDS, max_size=4))


def test_the_example_id_is_a_hash_anyone_can_repeat() -> None:
    assert example_id("7", "12", ["3", "4"]) == hashlib.sha256(b"7\t12\t3 4").hexdigest()[:16] == "4717a66b6bda7538"


@given(QUESTIONS, QUESTIONS)
@settings(deadline=None)
def test_two_questions_share_an_id_only_when_they_are_the_same(
    one: tuple[str, str, list[str]], two: tuple[str, str, list[str]]
) -> None:
    assert (example_id(*one) == example_id(*two)) == (one == two)


@pytest.mark.parametrize("name", ["Item", "Caption", "RankingExample", "Trace", "Ranking", "Table", "Summary"])
def test_records_are_frozen_and_keyword_only(name: str) -> None:
    record = getattr(records, name)
    assert record.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(record))


def test_a_record_cannot_be_changed_by_accident() -> None:
    item = Item(item_id="1", title="Lamp")
    with pytest.raises(dataclasses.FrozenInstanceError):
        item.title = "Lantern"
