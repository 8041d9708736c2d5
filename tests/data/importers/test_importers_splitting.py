"""Who gets which line under leave-one-out and under a cut in time."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from raw_files import settings

from mllmrec.data.importers.source import Imported
from mllmrec.data.importers.splitting import Division, divide, global_time, in_total_order, leave_one_out
from mllmrec.data.sequences import Catalogue
from mllmrec.errors import DataError, SettingsError

Row = tuple[str, str, int]


def frame(rows: list[Row]) -> pl.DataFrame:
    schema = {"user": pl.String, "item": pl.String, "timestamp": pl.Int64}
    return in_total_order(pl.DataFrame(rows, schema=schema, orient="row"))


def lines(division: Division, split: str) -> dict[str, str]:
    return {user: " ".join(items) for user, items in division.lines[split].rows()}


def history(user: str, items: str, start: int = 0) -> list[Row]:
    return [(user, item, start + index) for index, item in enumerate(items)]


def test_leave_one_out_by_hand() -> None:
    division = leave_one_out(frame(history("u", "abcde") + history("v", "abcd")), 2)
    assert lines(division, "train") == {"u": "a b c", "v": "a b"}
    assert lines(division, "valid") == {"u": "a b c d", "v": "a b c"}
    assert lines(division, "test") == {"u": "a b c d e", "v": "a b c d"}


def test_leave_one_out_keeps_users_whose_train_line_holds_a_window() -> None:
    division = leave_one_out(frame(history("long", "abcde") + history("just", "abcd") + history("short", "abc")), 2)
    assert set(lines(division, "train")) == {"long", "just"}
    assert division.facts["dropped_users"] == {"fewer than 4 interactions (min-inter + 2)": 1}
    assert division.facts["dropped_interactions"] == 3
    assert set(division.rows["user"]) == {"long", "just"}


def test_min_inter_longer_than_every_line_is_an_error_with_the_longest() -> None:
    with pytest.raises(DataError, match=r"No user has 12 interactions.*longest sequence has 5\..*--min-inter to 3 or"):
        leave_one_out(frame(history("u", "abcde")), 10)
    with pytest.raises(DataError, match=r"longest sequence has 3.*right file"):
        leave_one_out(frame(history("u", "abc")), 10)


def test_global_time_by_hand() -> None:
    # Ten interactions at times 0..9: the validation cut at .6 is time 5, the test cut at .8 is time 7.
    rows = [
        *[("u", item, time) for item, time in zip("abcdef", (0, 1, 2, 6, 7, 8), strict=True)],
        *[("v", item, time) for item, time in zip("abxy", (3, 4, 5, 9), strict=True)],
    ]
    division = global_time(frame(rows), 2, 0.8, 0.6)
    assert (division.facts["valid_cut"], division.facts["test_cut"]) == (5, 7)
    assert lines(division, "train") == {"u": "a b c", "v": "a b x"}
    assert lines(division, "valid") == {"u": "a b c d"}
    assert lines(division, "test") == {"u": "a b c d e f", "v": "a b x y"}
    assert division.facts["interactions_after_last_target"] == 0


def test_a_share_is_not_a_row_off_by_rounding() -> None:
    division = global_time(frame([("u", str(time), time) for time in range(100)]), 2, 0.57, 0.55)
    assert (division.facts["valid_cut"], division.facts["test_cut"]) == (54, 56)


def test_global_time_leaves_out_short_lines_and_what_follows_the_target() -> None:
    rows = [*history("u", "abcdefgh"), ("late", "a", 6), ("late", "b", 7), ("late", "c", 7), ("u", "z", 9)]
    division = global_time(frame(rows), 3, 0.75, 0.5)
    # Times 0..7 with late's at 6, 7, 7 and 9: twelve rows, cuts at the 6th (time 5) and the 9th (time 7).
    assert (division.facts["valid_cut"], division.facts["test_cut"]) == (5, 7)
    assert lines(division, "train") == {"u": "a b c d e f"}
    assert lines(division, "valid") == {"u": "a b c d e f g"}
    assert lines(division, "test") == {"u": "a b c d e f g h z"}
    assert division.facts["dropped_users"] == {"no line of 3 items (min-inter)": 1}
    assert division.facts["dropped_interactions"] == 3


def test_cuts_that_fall_on_one_time_are_an_error() -> None:
    with pytest.raises(DataError, match="don't separate the data in time"):
        global_time(frame([("u", item, 1) for item in "abcdefgh"]), 2, 0.9, 0.8)


def test_a_split_without_lines_is_an_error() -> None:
    rows = [*history("u", "abcdefgh"), ("v", "a", 8), ("w", "b", 9)]
    with pytest.raises(DataError, match=r"No user has a line of 3 items in test\."):
        global_time(frame(rows), 3, 0.8, 0.5)


def test_a_source_without_times_cannot_be_cut_in_time(tmp_path: Path) -> None:
    imported = Imported(rows=frame(history("u", "abcde")), catalogue=Catalogue(()), timed=False)
    with pytest.raises(SettingsError, match="global-time needs timestamps"):
        divide(imported.rows, imported, settings(tmp_path, split="global-time"))


HISTORIES = st.lists(
    st.tuples(st.sampled_from("uvwxyz"), st.sampled_from("abcdefgh"), st.integers(0, 60)), min_size=20, max_size=120
)


@given(rows=HISTORIES, min_inter=st.integers(2, 4))
def test_no_line_of_a_cut_in_time_holds_what_came_later(rows: list[Row], min_inter: int) -> None:
    # Items carry their time, so that every place on a line can be checked.
    marked = frame([(user, f"{item}{index}-{time}", time) for index, (user, item, time) in enumerate(rows)])
    try:
        division = global_time(marked, min_inter, 0.8, 0.6)
    except DataError:
        assume(False)
        return
    cuts = {"valid": division.facts["valid_cut"], "test": division.facts["test_cut"]}
    times = {
        split: [[int(item.rpartition("-")[2]) for item in items] for _, items in of_split.rows()]
        for split, of_split in division.lines.items()
    }
    assert all(time <= cuts["valid"] for of_line in times["train"] for time in of_line)
    for split in ("valid", "test"):
        assert all(max(of_line[:-1]) <= cuts[split] < of_line[-1] for of_line in times[split])
    assert all(of_line[-1] <= cuts["test"] for of_line in times["valid"])
    assert all(len(of_line) >= min_inter for of_split in times.values() for of_line in of_split)


@given(rows=HISTORIES)
def test_leave_one_out_lines_are_prefixes_of_the_users_sequence(rows: list[Row]) -> None:
    ordered = frame(rows)
    try:
        division = leave_one_out(ordered, 3)
    except DataError:
        assume(False)
        return
    sequences: dict[str, list[str]] = {}
    for user, item, _ in ordered.rows():
        sequences.setdefault(user, []).append(item)
    expected = {user: items for user, items in sequences.items() if len(items) >= 5}
    for split, cut in (("train", 2), ("valid", 1), ("test", 0)):
        assert dict(division.lines[split].rows()) == {
            user: items[: len(items) - cut] for user, items in expected.items()
        }
