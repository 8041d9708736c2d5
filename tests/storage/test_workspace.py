"""Paths, whole-file writes, and JSON readers that name the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mllmrec import ArtifactError, DataError, Workspace
from mllmrec.storage.workspace import (
    partial,
    read_json,
    read_jsonl,
    replacing,
    require,
    sha256,
    write_json,
    write_jsonl,
    write_text,
)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("folder", "data/shop"),
        ("titles", "data/shop/shop_titles.csv"),
        ("pairs", "data/shop/shop_pairs.csv"),
        ("raw_ids", "data/shop/shop_ids.csv"),
        ("captions", "data/shop/shop_captions.json"),
        ("pseudo_cot", "data/shop/shop_pseudo-cot.json"),
        ("refined_cot", "data/shop/shop_deepseek_cot.json"),
        ("assessed_cot", "data/shop/shop_assessed_cot.json"),
        ("images", "data/shop/images"),
        ("card", "data/shop/card.json"),
        ("ceiling", "data/shop/ceiling.json"),
        ("processed", "data/shop/processed"),
        ("results", "result/shop"),
    ],
)
def test_the_layout_of_a_dataset(name: str, path: str) -> None:
    assert getattr(Workspace("/w").dataset("shop"), name) == Path("/w") / path


def test_the_layout_of_what_is_made_of_a_dataset() -> None:
    workspace, root = Workspace("/w"), Path("/w")
    files = workspace.dataset("shop")
    assert files.split("train") == root / "data/shop/train.tsv"
    assert files.candidates("test", "uni9", 10, 42) == root / "data/shop/processed/test_uni9_w10_s42.jsonl"
    assert files.run("sft", "test_uni9_w10_s42") == root / "result/shop/sft/test_uni9_w10_s42"
    assert workspace.checkpoint("shop", "sft") == root / "checkpoints/shop/sft"


def test_no_path_is_created_by_asking_for_it(tmp_path: Path) -> None:
    Workspace(tmp_path / "new").dataset("shop").candidates("test", "uni9", 10, 42)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["titles", "pairs", "captions", "pseudo_cot", "refined_cot", "assessed_cot"])
def test_the_spelling_beside_the_folder_is_read_only_when_it_is_alone(tmp_path: Path, call: str) -> None:
    files = Workspace(tmp_path).dataset("shop")
    inside = getattr(files, call)
    beside = tmp_path / "data" / inside.name
    write_text(beside, "beside")
    assert getattr(files, call) == beside
    write_text(inside, "inside")
    assert getattr(files, call) == inside


@pytest.mark.parametrize("name", ["../shop", "a/b", ".hidden", "", "two words", "tab\t", "new\nline", "café"])
def test_a_name_that_would_leave_its_folder_is_refused(name: str) -> None:
    for call in (
        lambda name: Workspace("/w").dataset(name).results,
        lambda name: Workspace("/w").dataset(name).folder,
        lambda tag: Workspace("/w").checkpoint("shop", tag),
    ):
        with pytest.raises(DataError, match="can't be used as a name"):
            call(name)


def test_a_model_is_a_folder_under_the_root_or_any_path_or_no_folder_at_all(tmp_path: Path) -> None:
    (tmp_path / "root" / "tiny").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    workspace = Workspace(tmp_path / "root")
    assert workspace.model("tiny") == tmp_path / "root" / "tiny"
    assert workspace.model(str(tmp_path / "elsewhere")) == tmp_path / "elsewhere"
    assert workspace.model("Qwen/Qwen3-4B") is None


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "first\n")

    def break_off() -> None:
        with replacing(path) as file:
            file.write("half of the sec")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        break_off()
    assert path.read_text() == "first\n"
    assert [each.name for each in path.parent.iterdir()] == ["file.txt"]


def test_whoever_reads_meanwhile_sees_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "first\n" * 10_000)
    with path.open() as reader:
        assert reader.readline() == "first\n"
        write_text(path, "second\n")
        assert reader.read() == "first\n" * 9_999
    assert path.read_text() == "second\n"


def test_a_broken_off_write_leaves_no_new_file(tmp_path: Path) -> None:
    def rows() -> Any:
        yield {"a": 1}
        raise ValueError("the source ran dry")

    with pytest.raises(ValueError, match="ran dry"):
        write_jsonl(tmp_path / "rows.jsonl", rows())
    assert list(tmp_path.iterdir()) == []


def test_json_keeps_every_character_and_ends_in_a_newline(tmp_path: Path) -> None:
    value = {"title": "Amélie \u2028 — 天空", "list": [1, 2.5, None, True]}
    write_json(tmp_path / "value.json", value)
    assert read_json(tmp_path / "value.json") == value
    assert "天空" in (tmp_path / "value.json").read_text(encoding="utf-8")
    assert (tmp_path / "value.json").read_bytes().endswith(b"}\n")


def test_json_lines_come_back_as_they_went_in(tmp_path: Path) -> None:
    rows = [{"title": "line\nbreak"}, {"title": "\u2028\x85 separators"}, {"title": "天空", "n": 3}]
    assert write_jsonl(tmp_path / "rows.jsonl", rows) == 3
    assert list(read_jsonl(tmp_path / "rows.jsonl")) == rows
    assert (tmp_path / "rows.jsonl").read_bytes().count(b"\n") == 3


def test_json_lines_of_another_editor_are_read(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"a":1}\r\n{"a":2}\r\n')
    assert list(read_jsonl(tmp_path / "rows.jsonl")) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1,\n "b": }\n', r"value\.json:2: not valid JSON"),
        (b'{"a": "caf\xe9"}', "is not UTF-8"),
        (b"", r"value\.json:1: not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", r"value\.json holds what can't be read \(Exceeds"),
        (b'{"a": ' * 3000, r"value\.json(:1: not valid JSON| holds what can't be read \(maximum recursion)"),
    ],
)
def test_broken_json_is_named_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "value.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_json(tmp_path / "value.json")


def test_missing_json_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.json does not exist"):
        read_json(tmp_path / "absent.json")
    with pytest.raises(ArtifactError, match=r"absent\.jsonl does not exist"):
        list(read_jsonl(tmp_path / "absent.jsonl"))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (b"{broken", r"rows\.jsonl:2: not valid JSON"),
        (b"[1, 2]", r"rows\.jsonl:2: expected a JSON object, found list"),
        (b"", r"rows\.jsonl:2: not valid JSON"),
        (b'{"a": "caf\xe9"}', r"rows\.jsonl:2: not UTF-8"),
        (b'{"a": ' + b"9" * 5000 + b"}", r"rows\.jsonl:2: can't be read \(Exceeds"),
        (b'{"a": ' * 3000, r"rows\.jsonl:2: (not valid JSON|can't be read \(maximum recursion)"),
    ],
)
def test_a_broken_record_is_named_with_its_line(tmp_path: Path, second: bytes, message: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'{"a":1}\n' + second + b'\n{"a":3}\n')
    with pytest.raises(DataError, match=message):
        list(read_jsonl(tmp_path / "rows.jsonl"))


def test_the_working_log_lies_beside_its_artifact() -> None:
    assert partial(Path("data/captions.json")) == Path("data/captions.json.partial.jsonl")


def test_a_file_is_hashed_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    (tmp_path / "million").write_bytes(b"a" * 1_000_000)
    # The two examples published with the standard (FIPS 180-2).
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(tmp_path / "million") == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"


def test_what_is_missing_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    assert require(tmp_path, "The folder", "Make it.") == tmp_path
    with pytest.raises(ArtifactError, match=r"^The card is missing: .*card\.json does not exist\. Run `mllmrec x`\.$"):
        require(tmp_path / "card.json", "The card", "Run `mllmrec x`.")
