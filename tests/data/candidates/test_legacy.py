"""The reference implementation's draw, to the last id, and the caches it left behind."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from mllmrec import DataError, Workspace
from mllmrec.data.candidates.drawing import candidate_rows
from mllmrec.data.candidates.legacy import draw_legacy, load_candidates, read_legacy_cache
from mllmrec.data.sequences import Catalogue, Interactions, Line
from mllmrec.records import Item, example_id
from mllmrec.storage.workspace import write_json, write_jsonl

POOL = list("abcdefgh")
LINES = [
    Line(user_id="1", items=("a", "b", "c"), line_index=0),
    Line(user_id="2", items=("a", "b"), line_index=1),
    Line(user_id="3", items=("h", "a", "g", "d"), line_index=3),
]


class Scripted(random.Random):
    """A generator whose choices are written down beforehand and whose shuffle reverses."""

    script: list[str]

    def choice(self, pool: Any) -> Any:
        assert pool == POOL
        return self.script.pop(0)

    def shuffle(self, x: Any) -> None:
        x.reverse()


def test_the_draw_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """One generator for the whole file; window and accepted ids are forbidden; short lines draw nothing."""
    rng = Scripted()
    # First line: window a b c, so a is refused, d accepted, d refused, h accepted; second line is too short; third
    # line: window a g d, so g and d are refused, h is accepted although the user has it, then b.
    rng.script = ["a", "d", "d", "h", "g", "d", "h", "b"]
    monkeypatch.setattr("mllmrec.data.candidates.legacy.random.Random", lambda seed: {7: rng}[seed])
    examples = draw_legacy(LINES, POOL, "test", window=3, num_neg=2, seed=7)
    assert [(e.user_id, e.history, e.target_id, e.candidates) for e in examples] == [
        ("1", ("a", "b"), "c", ("h", "d", "c")),
        ("3", ("a", "g"), "d", ("b", "h", "d")),
    ]
    assert rng.script == []


def test_the_draw_with_the_real_generator() -> None:
    rng = random.Random(42)
    expected = []
    for span in (["a", "b", "c"], ["a", "g", "d"]):
        chosen: list[str] = []
        while len(chosen) < 4:
            pick = rng.choice(POOL)
            if pick not in span and pick not in chosen:
                chosen.append(pick)
        chosen = [span[-1], *chosen]
        rng.shuffle(chosen)
        expected.append(tuple(chosen))
    assert [e.candidates for e in draw_legacy(LINES, POOL, "train", window=3, num_neg=4, seed=42)] == expected


def test_of_equal_examples_the_first_draw_stays_in_its_place() -> None:
    lines = [LINES[0], LINES[2], LINES[0]]
    drawn = draw_legacy(lines, POOL, "test", window=3, num_neg=3, seed=1)
    assert [example.user_id for example in drawn] == ["1", "3"]
    assert drawn == draw_legacy(lines[:2], POOL, "test", window=3, num_neg=3, seed=1)


def test_a_pool_that_is_too_small_is_told() -> None:
    assert len(draw_legacy(LINES, POOL, "test", window=3, num_neg=5, seed=1)[0].candidates) == 6
    with pytest.raises(DataError, match="6 negatives can't be drawn from 8 items; lower --num-neg"):
        draw_legacy(LINES, POOL, "test", window=3, num_neg=6, seed=1)


# ---- caches


def row(target: str, *others: str, **more: object) -> dict[str, object]:
    return {
        "prompt": [{"role": "user", "content": "old"}],
        "target_id": target,
        "candidates": [*others, target],
        **more,
    }


ROWS = [row("c", "d", "h"), row("d", "b", "h")]


def cache(tmp_path: Path, content: object, name: str = "test_generate_seed42_neg2.json") -> Path:
    write_json(tmp_path / name, content)
    return tmp_path / name


@pytest.mark.parametrize(
    "name",
    [
        "test_generate_seed42_neg2.json",
        "test_generate_seed42_neg2_cot_0.1.json",
        "test_generate_seed42_neg2_cot_0.1_int_3.json",
        "test_generate_seed7_neg99_int_3.json",
        "train_generate_seed42_neg2.json",
    ],
)
def test_caches_of_every_generation_are_joined_by_position(tmp_path: Path, name: str) -> None:
    examples = read_legacy_cache(cache(tmp_path, ROWS, name), LINES, 3)
    assert [(e.user_id, e.history, e.target_id, e.candidates) for e in examples] == [
        ("1", ("a", "b"), "c", ("d", "h", "c")),
        ("3", ("a", "g"), "d", ("b", "h", "d")),
    ]
    assert examples[0].example_id == example_id("1", "c", ("a", "b"))
    assert {e.split for e in examples} == {name.split("_")[0]}


def test_numbers_in_a_cache_are_ids(tmp_path: Path) -> None:
    lines = [Line(user_id="1", items=("1", "2", "3"), line_index=0)]
    (example,) = read_legacy_cache(cache(tmp_path, [{"target_id": 3, "candidates": [5, 3]}]), lines, 3)
    assert (example.target_id, example.candidates) == ("3", ("5", "3"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [ROWS[1], ROWS[0]],
            r"row 0 doesn't belong to line 1 of the test file.* is c\..*draw candidates anew",
        ),
        ([ROWS[0], row("a", "b")], r"row 1 doesn't belong to line 4 of the test file, whose target is d"),
        ([ROWS[0], "text"], "row 1 doesn't belong to line 4"),
        ([ROWS[0]], "has 1 rows; the test split keeps 2 lines of 3 items"),
        ({"rows": ROWS}, "has dict rows; the test split keeps 2 lines"),
        ([ROWS[0], {"target_id": "d"}], "row 1 has no list of candidates with its target d in it"),
        ([ROWS[0], {"target_id": "d", "candidates": ["a", "b"]}], "row 1 has no list of candidates with its target d"),
    ],
)
def test_a_cache_of_other_data_is_refused_by_row(tmp_path: Path, rows: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_legacy_cache(cache(tmp_path, rows), LINES, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train_train_seed42_neg9_cot_0.1_int_10.json", "holds finished training messages.*only an audit can use it"),
        ("test_generate_seed42_neg2_cot_0.1_int_10.json", "was made with --min-inter 10, and 3 was asked for"),
        ("candidates.json", r"is not named like a cache.*`mllmrec candidates`"),
        ("test_generate_seed42.json", "is not named like a cache"),
    ],
)
def test_a_cache_of_another_kind_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_legacy_cache(cache(tmp_path, ROWS, name), LINES, 3)


def test_a_missing_cache_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_legacy_cache(tmp_path / "test_generate_seed42_neg9.json", LINES, 3)


def test_candidates_are_read_from_our_files_and_from_caches(tmp_path: Path) -> None:
    catalogue = Catalogue(Item(item_id=item, title=item) for item in POOL)
    interactions = Interactions(train=LINES[:1], valid=[], test=LINES, catalogue=catalogue, held_out=False)
    from_cache = load_candidates(cache(tmp_path, ROWS), interactions, 3)
    assert [example.user_id for example in from_cache] == ["1", "3"]
    write_jsonl(tmp_path / "test_uni2_w3_s42.jsonl", candidate_rows(from_cache))
    assert load_candidates(tmp_path / "test_uni2_w3_s42.jsonl", interactions, 3) == from_cache
    train = load_candidates(cache(tmp_path, ROWS[:1], "train_generate_seed42_neg2.json"), interactions, 3)
    assert [example.split for example in train] == ["train"]
    with pytest.raises(DataError, match="not named like a cache"):
        load_candidates(cache(tmp_path, ROWS, "mine.json"), interactions, 3)


# ---- the reference's own output


@pytest.mark.real_data
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("num_neg", [9, 99])
def test_the_draw_equals_the_reference_to_the_last_id(real_data: Path, split: Any, num_neg: int) -> None:
    golden = real_data.parent / "golden" / f"candidates_{split}_seed42_neg{num_neg}_int10.json"
    if not golden.exists():
        pytest.skip(f"{golden} is not there")
    expected = json.loads(golden.read_text())
    interactions = Interactions.load(Workspace(real_data.parent), "movielens")
    drawn = draw_legacy(
        interactions.lines(split), interactions.catalogue.ids, split, window=10, num_neg=num_neg, seed=42
    )
    assert len(drawn) == expected["num_samples"] == 6040
    assert len(expected["first"]) >= 100
    for example, row in zip(drawn, expected["first"], strict=False):
        assert (example.target_id, list(example.candidates)) == (row["target_id"], row["candidates"])
