"""What a RUN brings over the one above it, by hand, and the pairs that a ladder holds against each other."""

from __future__ import annotations

import numpy as np
import pytest
from handmade import WriteRun
from test_compare import PERFECT

from mllmrec.evaluation.comparison.steps import corrected_on, differences_of_pairs, pairs_of, steps_table


def test_a_step_over_the_row_above_by_hand(make_run: WriteRun) -> None:
    """User by user 0, 0.5, 1 and 0.75 more of HR@1; four users can't make a find."""
    table = steps_table([make_run(), make_run("perfect", PERFECT)])
    assert table is not None
    (row,) = table.rows
    assert table.columns[:2] == ("step", "HR@1/uni3")
    assert row[0] == "perfect\n- hand"
    assert row[1].startswith("+0.562\n+0.")
    assert row[-1] == "not found"


def test_each_is_held_against_what_it_was_made_from_too(make_run: WriteRun) -> None:
    runs = [make_run(), make_run("sft", PERFECT), make_run("other", PERFECT), make_run("grpo", PERFECT)]
    table = steps_table(runs, {"grpo": "sft", "other": "gone", "sft": "hand"})
    assert table is not None
    assert [row[0].replace("\n", " ") for row in table.rows] == [
        "sft - hand",
        "other - sft",
        "grpo - other",
        "grpo - sft",
    ]
    assert table.rows[-1][1].startswith("+0.000")


def test_one_run_is_no_ladder(make_run: WriteRun) -> None:
    assert steps_table([make_run()]) is None


def test_a_find_is_told_with_its_direction() -> None:
    rng = np.random.default_rng(0)
    low = (rng.random((400, 1)) < 0.3).astype(float)
    high = (rng.random((400, 1)) < 0.6).astype(float)
    steps = differences_of_pairs([low, high], ["HR@1"], [(0, 1), (1, 0)], seed=1)
    up, down = corrected_on("HR@1", steps)
    assert up["HR@1"].interval.value == pytest.approx(float((high - low).mean()))
    assert down["HR@1"].interval.value == pytest.approx(-up["HR@1"].interval.value)
    assert (up["HR@1"].verdict, down["HR@1"].verdict) == ("better", "worse")
    assert up["HR@1"].p_holm == 2 * up["HR@1"].p


def test_no_pairs_no_differences() -> None:
    assert differences_of_pairs([np.zeros((3, 1))], ["HR@1"], [], seed=1) == []
    assert pairs_of(["one"], {}) == []
