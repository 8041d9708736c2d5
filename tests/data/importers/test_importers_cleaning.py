"""Total order, duplicates, repeats, k-core and ties on interactions small enough to follow by hand."""

from __future__ import annotations

from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllmrec.data.importers.source import Imported
from mllmrec.data.importers.splitting import clean, core, in_total_order, ties
from mllmrec.data.sequences import Catalogue
from mllmrec.errors import DataError

Row = tuple[str, str, int]
ROWS = st.lists(st.tuples(st.sampled_from("uvw"), st.sampled_from("abcd"), st.integers(0, 4)), min_size=1, max_size=40)


def frame(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"user": pl.String, "item": pl.String, "timestamp": pl.Int64}, orient="row")


def imported(rows: list[Row], *, timed: bool = True) -> Imported:
    return Imported(rows=frame(rows), catalogue=Catalogue(()), timed=timed)


def test_equal_times_stay_in_file_order() -> None:
    rows = [("u", "late", 9), ("u", "second", 5), ("u", "first", 1), ("u", "third", 5), ("u", "fourth", 5)]
    assert in_total_order(frame(rows))["item"].to_list() == ["first", "second", "third", "fourth", "late"]


def test_users_come_by_number_where_all_are_numbers_and_else_by_text() -> None:
    assert in_total_order(frame([("10", "a", 1), ("9", "a", 1), ("100", "a", 1)]))["user"].to_list() == [
        "9",
        "10",
        "100",
    ]
    assert in_total_order(frame([("10", "a", 1), ("9", "a", 1), ("x", "a", 1)]))["user"].to_list() == ["10", "9", "x"]


def test_only_exact_duplicates_go() -> None:
    rows = [("u", "a", 1), ("u", "a", 1), ("u", "a", 2), ("v", "a", 1), ("u", "a", 1)]
    left, facts = clean(imported(rows))
    assert left.rows() == [("u", "a", 1), ("u", "a", 2), ("v", "a", 1)]
    assert facts == {"rows_read": 5, "duplicates_removed": 2, "repeats_dropped": 0, "left_out": {}}


def test_rows_that_lack_something_are_counted_and_left_out() -> None:
    rows = [("u", "a", 1), ("", "a", 1), ("", "", 2), ("v", "", None), ("v", "b", None), ("v", "b", 3)]
    left, facts = clean(imported(rows))
    assert left.rows() == [("u", "a", 1), ("v", "b", 3)]
    assert (facts["rows_read"], facts["left_out"]) == (6, {"no user": 2, "no item": 1, "no time": 1})


def test_rows_that_all_lack_something_are_an_error() -> None:
    with pytest.raises(DataError, match="None of 2 rows has a user, an item and a time"):
        clean(imported([("", "a", 1), ("u", "", 1)]))


def test_without_times_equal_rows_are_repeats_and_stay() -> None:
    left, facts = clean(imported([("u", "a", 0), ("u", "a", 1)], timed=False))
    assert left.height == 2
    assert facts["duplicates_removed"] == 0


def test_drop_repeats_keeps_the_first_meeting_in_time() -> None:
    rows = [("u", "a", 5), ("u", "b", 3), ("u", "a", 2), ("v", "a", 9)]
    left, facts = clean(imported(rows), drop_repeats=True)
    assert left.rows() == [("u", "a", 2), ("u", "b", 3), ("v", "a", 9)]
    assert facts["repeats_dropped"] == 1


def test_core_goes_on_until_nothing_more_falls() -> None:
    # c has one interaction; without it w has one; without w, b has one; without b, nothing else falls.
    rows = [("u", "a", 1), ("u", "d", 2), ("v", "a", 1), ("v", "d", 2), ("v", "b", 3), ("w", "b", 1), ("w", "c", 2)]
    left, facts = core(frame(rows), 2)
    assert sorted(left.rows()) == [("u", "a", 1), ("u", "d", 2), ("v", "a", 1), ("v", "d", 2)]
    assert facts == {"k": 2, "rounds": 3, "users_removed": 1, "items_removed": 2, "interactions_removed": 3}


def test_an_empty_core_is_an_error() -> None:
    with pytest.raises(DataError, match="the 3-core is empty"):
        clean(imported([("u", "a", 1), ("v", "a", 1)]), k_core=3)


@given(rows=ROWS, k=st.integers(2, 4))
def test_core_equals_removing_one_at_a_time(rows: list[Row], k: int) -> None:
    left = list(rows)
    while True:
        users, items = Counter(row[0] for row in left), Counter(row[1] for row in left)
        weak = next((row for row in left if users[row[0]] < k or items[row[1]] < k), None)
        if weak is None:
            break
        left.remove(weak)
    if left:
        assert sorted(core(frame(rows), k)[0].rows()) == sorted(left)
    else:
        with pytest.raises(DataError):
            core(frame(rows), k)


def test_ties_by_hand() -> None:
    rows = [("u", "a", 1), ("u", "b", 1), ("u", "c", 2), ("v", "a", 2), ("v", "b", 3), ("v", "c", 3), ("v", "d", 3)]
    assert ties(in_total_order(frame(rows))) == {
        "interactions": {"count": 5, "share": round(5 / 7, 6)},
        "users_last": {"count": 1, "share": 0.5},
    }


@given(rows=ROWS)
def test_ties_equal_counting_times_of_each_user(rows: list[Row]) -> None:
    times: dict[str, list[int]] = {}
    for user, _, time in rows:
        times.setdefault(user, []).append(time)
    counted = ties(in_total_order(frame(rows)))
    assert counted["interactions"]["count"] == sum(
        number for of_user in times.values() for number in Counter(of_user).values() if number > 1
    )
    assert counted["users_last"]["count"] == sum(of_user.count(max(of_user)) > 1 for of_user in times.values())
