"""Long JSON files: the same values as the standard reader, at any formatting and block size."""

from __future__ import annotations

import contextlib
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllmrec.errors import ArtifactError, DataError
from mllmrec.storage import json_streams as streams
from mllmrec.storage.json_streams import read_list, write_list, write_object

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=4), max_size=6)


@given(rows=ROWS, indent=st.sampled_from([None, 1, 2]), block=st.integers(1, 40), ascii_only=st.booleans())
@settings(max_examples=150, deadline=None)
def test_reading_gives_what_the_standard_reader_gives(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    indent: int | None,
    block: int,
    ascii_only: bool,
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
    path.write_text(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "BLOCK_CHARACTERS", block)
        assert list(read_list(path)) == json.loads(path.read_text(encoding="utf-8"))


def test_what_is_written_reads_back_and_has_a_line_for_each_record(tmp_path: Path) -> None:
    rows = [{"a": 1}, {"a": "é\n"}, {}]
    path = tmp_path / "rows.json"
    assert write_list(path, rows) == 3
    assert path.read_text(encoding="utf-8") == '[\n{"a": 1},\n{"a": "é\\n"},\n{}\n]\n'
    assert list(read_list(path)) == rows
    assert write_list(path, []) == 0
    assert list(read_list(path)) == []
    assert write_object(path, [("12", {"t": 1}), ("3", {})]) == 2
    assert json.loads(path.read_text()) == {"12": {"t": 1}, "3": {}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "record 1 can't be read"),
        ('{"a": 1}', "doesn't begin with"),
        ('[{"a": 1}', "breaks off"),
        ('[{"a": 1}, {"b"', "record 2"),
        ('[{"a": 1} {"b": 2}]', "comma"),
        ("[{}, 3]", "record 2 is a int"),
        ("[{}] []", "something follows"),
    ],
)
def test_what_is_no_list_of_objects_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(DataError, match=told):
        list(read_list(path))


def test_a_missing_file_and_other_encodings_are_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        list(read_list(tmp_path / "none.json"))
    path = tmp_path / "rows.json"
    path.write_bytes('[{"a": "é"}]'.encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        list(read_list(path))


def record_lists(path: Path, text: str, count: int) -> Path:
    """A list that begins with `text` and goes on for `count` good records."""
    with path.open("w") as file:
        file.write(f"[{text}")
        file.writelines(f',\n{{"number": {number}, "words": "a few words of text"}}' for number in range(count))
        file.write("]")
    return path


@pytest.mark.parametrize(
    "spoiled", ['{"a": tru}', '{"a": 1 "b": 2}', "{a: 1}", '{"a": "x\ny"}', '{"a": "\\q"}', '{"a": 00}']
)
def test_a_broken_record_is_told_without_reading_on(tmp_path: Path, spoiled: str) -> None:
    """The rest of the file, 2 MB of it, is not looked at."""
    path = record_lists(tmp_path / "rows.json", spoiled, 40_000)
    tracemalloc.start()
    with pytest.raises(DataError, match="record 1 can't be read"):
        list(read_list(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6


@pytest.mark.parametrize("spoiled", ['{"a": [1', '{"a": "xxxx'])
def test_a_record_without_end_stops_at_the_longest_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoiled: str
) -> None:
    monkeypatch.setattr(streams, "LONGEST_RECORD", 1 << 18)
    path = tmp_path / "rows.json"
    path.write_text("[{}, " + spoiled + (", 1" if spoiled.endswith("1") else "x" * 10) * 300_000)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"record 2 can't be read .*longer than 262,144 characters"):
        list(read_list(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12e6


def test_a_long_record_is_read_in_time_that_grows_with_its_length(tmp_path: Path) -> None:
    """One of 8 MB, then small ones, which are read from what was drawn for it."""
    path = tmp_path / "rows.json"
    write_list(path, [{"long": "x" * 8_000_000}, *({"number": number} for number in range(100_000))])
    begun = time.process_time()
    rows = list(read_list(path))
    assert time.process_time() - begun < 5
    assert len(rows) == 100_001
    assert len(rows[0]["long"]) == 8_000_000


@given(data=st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "rows.json"
    path.write_bytes(data)
    with contextlib.suppress(DataError):
        assert all(isinstance(row, dict) for row in read_list(path))
