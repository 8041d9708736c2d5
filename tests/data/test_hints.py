"""Hints: an exact share drawn by hash; traces that belong to no training window are counted and never shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllmrec import ArtifactError, DataError, Workspace
from mllmrec.artifacts import write_json
from mllmrec.data.hints import draw_hints, join_traces, read_traces
from mllmrec.data.sequences import Catalogue, Line
from mllmrec.records import Item, RankingExample, example_id

PATH = Path("shop_deepseek_cot.json")
TRAIN = [
    Line(user_id="1", items=("x", "a", "b", "c"), line_index=0),
    Line(user_id="2", items=("a", "b", "c"), line_index=2),
    Line(user_id="1", items=("d", "e", "f"), line_index=3),
]


CATALOGUE = Catalogue([Item(item_id="c", title="The Copper Kettle (1995)")])


def examples(count: int) -> list[RankingExample]:
    return [
        RankingExample(
            example_id=f"e{number}", user_id="u", history=("a",), candidates=("b",), target_id="b", split="train"
        )
        for number in range(count)
    ]


def reference(line_idx: int, user: object, span: str, reasoning: str | None = "Step 1.", **more: Any) -> dict[str, Any]:
    """A record as the reference implementation writes it."""
    *history, target = span.split()
    return {
        "line_idx": line_idx,
        "user_id": user,
        "history_items": [{"item_id": item, "title": "t", "image_path": "p"} for item in history],
        "target_item": {"item_id": target, "title": "t", "image_path": "p"},
        "reasoning": reasoning,
        **more,
    }


def own(user: str, span: str, **more: Any) -> dict[str, Any]:
    """A record that knows its example."""
    *history, target = span.split()
    return reference(99, user, span, example_id=example_id(user, target, history), **more)


def key(user: str, span: str) -> str:
    *history, target = span.split()
    return example_id(user, target, history)


# ---- the share


@pytest.mark.parametrize(("count", "share", "expected"), [(1000, 0.1, 100), (7, 0.1, 1), (4, 0.1, 0), (10, 1.0, 10)])
def test_the_share_is_one_of_all_examples_and_exact(count: int, share: float, expected: int) -> None:
    traces = {f"e{number}": "why" for number in range(count)}
    assert len(draw_hints(examples(count), traces, share, 42)) == expected


def test_examples_without_a_trace_count_for_the_share_and_get_no_hint() -> None:
    traces = {f"e{number}": f"why {number}" for number in range(0, 100, 4)}
    hints = draw_hints(examples(100), traces, 0.2, 42)
    assert len(hints) == 20
    assert hints.items() <= traces.items()


def test_a_shortfall_gives_every_hint_there_is() -> None:
    traces = {"e1": "one", "e2": "two", "of another dataset": "three"}
    assert draw_hints(examples(100), traces, 0.1, 42) == {"e1": "one", "e2": "two"}


@given(st.permutations(range(30)), st.integers(0, 30))
@settings(deadline=None)
def test_the_choice_hangs_on_the_hash_of_each_example_alone(order: list[int], wanted: int) -> None:
    rows, traces = examples(30), {f"e{number}": "why" for number in range(30)}
    share = wanted / 30
    chosen = set(draw_hints(rows, traces, share, 42))
    assert set(draw_hints([rows[at] for at in order], traces, share, 42)) == chosen
    more = set(draw_hints(rows, traces, 1.0, 42)) if wanted == 30 else set(draw_hints(rows, traces, share + 1 / 30, 42))
    assert chosen <= more


def test_another_seed_chooses_others() -> None:
    traces = {f"e{number}": "why" for number in range(100)}
    assert set(draw_hints(examples(100), traces, 0.2, 1)) != set(draw_hints(examples(100), traces, 0.2, 2))


# ---- joining


def test_records_of_the_reference_join_by_the_physical_line_they_name() -> None:
    records = [
        reference(0, "1", "a b c", " for 1 "),
        reference(2, "2", "a b c", "for 2"),
        reference(3, "1", "d e f", "later"),
    ]
    traces, counts = join_traces(records, PATH, TRAIN, CATALOGUE, 3)
    assert traces == {key("1", "a b c"): "for 1", key("2", "a b c"): "for 2", key("1", "d e f"): "later"}
    assert counts == {"joined": 3}


def test_any_window_of_the_line_will_do() -> None:
    traces, _ = join_traces([reference(0, "1", "x a b")], PATH, TRAIN, CATALOGUE, 3)
    assert list(traces) == [key("1", "x a b")]


def test_ids_may_be_numbers_or_plain() -> None:
    train = [Line(user_id="7", items=("1", "2", "3"), line_index=0)]
    record = {"line_idx": 0, "user_id": 7, "history_items": [1, "2"], "target_item": 3, "reasoning": "r"}
    assert join_traces([record], PATH, train, CATALOGUE, 3)[0] == {key("7", "1 2 3"): "r"}


@pytest.mark.parametrize(
    "record",
    [
        reference(1, "1", "a b c"),  # a line that is not there: the row after filtering, not the physical line
        reference(2, "1", "a b c"),  # another user's line
        reference(0, "1", "a b d"),  # another target
        reference(0, "1", "b a c"),  # another history
        reference(0, "1", "b c"),  # a shorter window
        reference(0, "1", "x a b c"),  # a longer one
        reference(3, "1", "a b c"),  # another line of the same user
        reference(0, None, "a b c"),
        reference(0, "1", "a b c") | {"target_item": None},
        reference(0, "1", "a b c") | {"history_items": None},
        reference(0, "1", "a b c") | {"history_items": "ab"},
        reference(0, "1", "a b c") | {"line_idx": "0"},
        reference(0, "1", "a b c") | {"line_idx": [0]},
        {"reasoning": "of nobody"},
        "no record at all",
        None,
        own("1", "a b z"),  # no window of this user
        own("1", "a b c") | {"example_id": "0123456789abcdef"},  # an id of another example
    ],
)
def test_what_fits_no_window_is_counted_and_left_out(record: Any) -> None:
    assert join_traces([record], PATH, TRAIN, CATALOGUE, 3) == ({}, {"mismatched": 1})


def test_our_records_join_by_example_id_wherever_their_line_went() -> None:
    records = [own("1", "d e f"), own("2", "a b c")]
    for train in (TRAIN, TRAIN[::-1], [Line(user_id=e.user_id, items=e.items, line_index=50) for e in TRAIN]):
        traces, counts = join_traces(records, PATH, train, CATALOGUE, 3)
        assert set(traces) == {key("1", "d e f"), key("2", "a b c")}
        assert counts == {"joined": 2}


def test_empty_rejected_and_repeated_traces_are_counted_apart() -> None:
    records = [
        reference(0, "1", "a b c", "", error="timeout"),
        reference(2, "2", "a b c", None),
        reference(3, "1", "d e f", "  "),
        reference(0, "1", "x a b", "good", keep=True),
        reference(0, "1", "x a b", "second thought"),
        reference(0, "1", "a b c", "bad", keep=False),
    ]
    traces, counts = join_traces(records, PATH, TRAIN, CATALOGUE, 3)
    assert traces == {key("1", "x a b"): "good"}
    assert counts == {"empty": 3, "joined": 1, "repeated": 1, "rejected": 1}


@pytest.mark.parametrize("records", [{"0": {}}, "text", None])
def test_a_file_that_holds_no_list_is_refused(records: object) -> None:
    with pytest.raises(DataError, match=r"shop_deepseek_cot\.json: expected a JSON list of records"):
        join_traces(records, PATH, TRAIN, CATALOGUE, 3)


# ---- files


def test_the_most_finished_file_is_read(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with pytest.raises(ArtifactError, match=r"shop_deepseek_cot\.json does not exist.*`mllmrec refine`"):
        read_traces(workspace, "shop", TRAIN, CATALOGUE, 3)
    for path, text in (
        (workspace.pseudo_cot("shop"), "draft"),
        (workspace.refined_cot("shop"), "refined"),
        (workspace.assessed_cot("shop"), "assessed"),
    ):
        write_json(path, [reference(2, "2", "a b c", text)])
        assert read_traces(workspace, "shop", TRAIN, CATALOGUE, 3) == ({key("2", "a b c"): text}, {"joined": 1}, path)


def test_the_spelling_beside_the_dataset_folder_is_read(tmp_path: Path) -> None:
    beside = tmp_path / "data" / "shop_deepseek_cot.json"
    write_json(beside, [reference(2, "2", "a b c")])
    assert read_traces(Workspace(tmp_path), "shop", TRAIN, CATALOGUE, 3)[2] == beside


# ---- traces that give the answer away


@pytest.mark.parametrize(
    ("reasoning", "leaks"),
    [
        ("Step 3: something like [ITEM_c].", True),
        ("Step 3: the copper kettle comes to mind.", True),
        ("Step 3: The Copper Kettle (1995).", True),
        ("Step 3: copper kettles in general.", False),
        ("Step 3: [ITEM_cc], or [ITEM_a] again.", False),
    ],
)
def test_a_trace_that_names_its_own_target_is_left_out(reasoning: str, leaks: bool) -> None:
    traces, counts = join_traces([own("2", "a b c", reasoning=reasoning)], PATH, TRAIN, CATALOGUE, 3)
    assert counts == ({"leaking": 1} if leaks else {"joined": 1})
    assert bool(traces) != leaks
