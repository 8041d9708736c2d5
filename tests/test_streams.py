"""Long JSON files: the same values as the standard reader, at any formatting and block size."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllmrec import streams
from mllmrec.errors import ArtifactError, DataError
from mllmrec.streams import read_list, write_list, write_object

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


@given(data=st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "rows.json"
    path.write_bytes(data)
    with contextlib.suppress(DataError):
        assert all(isinstance(row, dict) for row in read_list(path))
