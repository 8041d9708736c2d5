"""Traces join the window they were written for: ours or not at all, the reference's where all of it is verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from traces import key, own, reference
from workspaces import write_dataset

from mllmrec import ArtifactError, DataError, Workspace
from mllmrec.data.sequences import Interactions
from mllmrec.data.traces import TraceJoin, TrainWindows, usable_traces, written_traces
from mllmrec.records import example_id
from mllmrec.storage.json_streams import read_list
from mllmrec.storage.workspace import DatasetFiles, write_json, write_text

TRAIN = "1\tx a b c\n\n2\ta b c\n1\td e f\n"
VALID = "1\tx a b c d\n2\ta b c g\n"
TEST = "1\tx a b c d h\n2\ta b c g h\n3\ta b c\n"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return write_dataset(tmp_path_factory.mktemp("shop"), train=TRAIN, valid=VALID, test=TEST)


@pytest.fixture(scope="module")
def interactions(shop: Workspace) -> Interactions:
    return Interactions.load(shop, "shop")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop_deepseek_cot.json"


def join(path: Path, interactions: Interactions, records: list[Any]) -> tuple[dict[str, str], dict[str, int]]:
    write_text(path, json.dumps(records))
    joined = TraceJoin(path, interactions)
    return {trace.example_id: trace.reasoning for trace, _ in joined}, dict(joined.counts)


def test_records_of_the_reference_join_by_the_physical_line_they_name(path: Path, interactions: Interactions) -> None:
    records = [
        reference(0, "1", "a b c", " for 1 "),
        reference(2, "2", "a b c", "for 2"),
        reference(3, "1", "d e f", "later"),
        reference(0, "1", "x a b", None),
    ]
    traces, counts = join(path, interactions, records)
    assert traces == {
        key("1", "a b c"): "for 1",
        key("2", "a b c"): "for 2",
        key("1", "d e f"): "later",
        key("1", "x a b"): "",
    }
    assert counts == {"joined": 4}


def test_ids_may_be_numbers_or_plain(tmp_path: Path, path: Path) -> None:
    interactions = Interactions.load(write_dataset(tmp_path, train="7\t1 2 3\n"), "shop")
    record = {"line_idx": 0, "user_id": 7, "history_items": [1, "2"], "target_item": 3, "reasoning": "r"}
    assert join(path, interactions, [record])[0] == {key("7", "1 2 3"): "r"}


@pytest.mark.parametrize(
    "record",
    [
        reference(1, "1", "a b c"),  # a line that is not there: the row after filtering, not the physical line
        reference(2, "1", "a b c"),  # another user's line
        reference(0, "1", "a b d"),  # another target
        reference(0, "1", "b a c"),  # another history
        reference(0, "1", "x a c"),  # an item left out
        reference(3, "1", "a b c"),  # another line of the same user
        reference(0, "1", "b c d"),  # a window of the validation line
        reference(True, "1", "d e f"),
        reference(0, None, "a b c"),
        reference(0, "1", "c"),
        reference(0, "1", "a b c") | {"target_item": None},
        reference(0, "1", "a b c") | {"history_items": None},
        reference(0, "1", "a b c") | {"history_items": "ab"},
        reference(0, "1", "a b c") | {"history_items": [None, "a", "b"]},
        reference(0, "1", "a b c") | {"history_items": [{"title": "a"}, "b"]},
        reference(0, "1", "a b c") | {"target_item": "\ud800"},
        reference(0, "1", "a b c") | {"line_idx": "0"},
        reference(0, "1", "a b c") | {"line_idx": [0]},
        {"reasoning": "of nobody"},
    ],
)
def test_a_record_of_the_reference_that_fits_nothing_is_counted(
    path: Path, interactions: Interactions, record: Any
) -> None:
    assert join(path, interactions, [record]) == ({}, {"mismatched": 1})


def test_our_records_join_by_example_id_wherever_their_line_went(tmp_path: Path, path: Path) -> None:
    records = [own("1", "d e f"), own("2", "a b c")]
    for train in (TRAIN, "\n" + TRAIN, "1\td e f\n9\tx y z\n2\ta b c\n"):
        traces, counts = join(path, Interactions.load(write_dataset(tmp_path, train=train), "shop"), records)
        assert set(traces) == {key("1", "d e f"), key("2", "a b c")}
        assert counts == {"joined": 2}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (own("9", "a b c"), "its user has no line"),
        (own("3", "a b c"), "it is of the test split"),
        (own("1", "b c d"), "it is of the valid split"),
        (own("1", "c d h"), "it is of the test split"),
        (own("2", "d e f"), "don't follow each other in a line of its user"),
        (own("1", "x b c"), "don't follow each other in a line of its user"),
        (own("1", "a b c") | {"example_id": key("2", "a b c")}, "isn't what its example id was made of"),
        (own("1", "a b c") | {"user_id": "2"}, "isn't what its example id was made of"),
        (own("1", "a b c") | {"example_id": None}, "isn't what its example id was made of"),
        (own("1", "a b c") | {"history_items": [{"item_id": "a"}]}, "isn't what its example id was made of"),
        (own("1", "a b c") | {"history_items": 5}, "missing or no id"),
        ({"example_id": "x"}, "missing or no id"),
    ],
)
def test_a_stale_record_of_ours_is_an_error(
    path: Path, interactions: Interactions, record: dict[str, Any], reason: str
) -> None:
    records = [own("2", "a b c"), record, reference(0, "1", "b a c"), record]
    with pytest.raises(DataError) as error:
        join(path, interactions, records)
    assert f"{path}: 2 of its traces can't be joined to train.tsv" in str(error.value)
    assert "The first is record 2, " in str(error.value)
    assert reason in str(error.value)
    assert "`mllmrec pseudo-cot --overwrite`" in str(error.value)


def test_a_trace_goes_stale_when_its_history_changes(tmp_path: Path, path: Path) -> None:
    records = [own("1", "a b c"), own("2", "a b c")]
    join(path, Interactions.load(write_dataset(tmp_path, train=TRAIN), "shop"), records)
    changed = Interactions.load(write_dataset(tmp_path, train=TRAIN.replace("x a b c", "x b a c")), "shop")
    with pytest.raises(DataError, match=r"1 of its traces.*record 1, of user 1 and target c"):
        join(path, changed, records)


def test_of_one_example_the_first_record_counts_in_every_pass(path: Path, interactions: Interactions) -> None:
    write_json(path, [own("1", "a b c", reasoning="one"), own("2", "a b c"), own("1", "a b c", reasoning="two")])
    joined = TraceJoin(path, interactions)
    for _ in range(2):
        assert [trace.reasoning for trace, _ in joined] == ["one", "Step 1."]
        assert joined.counts == {"joined": 2, "repeated": 1}


def test_the_most_finished_file_is_read(shop: Workspace, tmp_path: Path) -> None:
    workspace, files = Workspace(tmp_path), DatasetFiles(Workspace(tmp_path), "shop")
    with pytest.raises(ArtifactError, match=r"shop_pseudo-cot\.json does not exist.*`mllmrec pseudo-cot"):
        usable_traces(files)
    write_json(workspace.dataset("shop").pseudo_cot, [])
    assert written_traces(files) == usable_traces(files) == workspace.dataset("shop").pseudo_cot
    write_json(workspace.dataset("shop").refined_cot, [])
    assert written_traces(files) == usable_traces(files) == workspace.dataset("shop").refined_cot
    write_json(workspace.dataset("shop").assessed_cot, [])
    assert written_traces(files) == workspace.dataset("shop").refined_cot
    assert usable_traces(files) == workspace.dataset("shop").assessed_cot


def test_the_spelling_beside_the_dataset_folder_is_read(tmp_path: Path) -> None:
    beside = tmp_path / "data" / "shop_deepseek_cot.json"
    write_json(beside, [])
    assert usable_traces(DatasetFiles(Workspace(tmp_path), "shop")) == beside


# ---- anything may stand in a file

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.sampled_from("abcx12"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ["line_idx", "user_id", "history_items", "target_item", "reasoning", "example_id", "keep"]
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(st.dictionaries(st.sampled_from(FIELDS), JSON))
@RELAXED
def test_a_corrupted_record_joins_or_is_refused_as_data(interactions: Interactions, damage: dict[str, Any]) -> None:
    for record in (reference(0, "1", "a b c"), own("1", "a b c"), {}):
        try:
            trace, line = TrainWindows(interactions).find(record | damage)
        except DataError:
            continue
        assert line in interactions.train
        assert trace.user_id in ("1", "2")
        assert trace.example_id == example_id(trace.user_id, trace.target_id, trace.history)


@given(st.lists(JSON | st.fixed_dictionaries(dict.fromkeys(FIELDS, JSON)), max_size=4))
@RELAXED
def test_a_corrupted_file_is_read_counted_or_refused(
    path: Path, interactions: Interactions, records: list[Any]
) -> None:
    write_text(path, json.dumps([own("1", "a b c"), *records]))
    joined = TraceJoin(path, interactions)
    try:
        found = [trace for trace, _ in joined]
    except DataError:
        return
    assert len(found) == joined.counts["joined"] >= 1
    assert sum(joined.counts.values()) == 1 + len(records)


WHOLE = json.dumps([own("1", "a b c"), reference(2, "2", "a b c", "why \U0001f600 é")], ensure_ascii=False).encode()


@given(st.data())
@RELAXED
def test_damaged_bytes_are_read_or_refused(path: Path, interactions: Interactions, data: st.DataObject) -> None:
    text = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3) | st.sampled_from([b"[", b'"']))
        if not text:
            break
    path.write_bytes(bytes(text))
    joined = TraceJoin(path, interactions)
    rows, found = read_or_refusal(lambda: list(read_list(path))), read_or_refusal(lambda: list(joined))
    for told in (rows, found):
        assert str(path) in told if isinstance(told, str) else isinstance(told, list)
    if isinstance(rows, str):
        assert isinstance(found, str), "traces of a file that can't be read"
    else:
        assert all(isinstance(row, dict) for row in rows)
        if not isinstance(found, str):
            assert len(found) == joined.counts["joined"]
            assert sum(joined.counts.values()) == len(rows)


def read_or_refusal(read: Callable[[], list[Any]]) -> list[Any] | str:
    """What is read, or the words in which it is refused."""
    try:
        return read()
    except DataError as error:
        return str(error)
