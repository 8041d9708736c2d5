"""The files of one dataset: whose a path is, and hashes that follow every change."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mllmrec import Workspace
from mllmrec.storage import workspace as workspaces
from mllmrec.storage.workspace import DatasetFiles, cached_sha256, sha256


def old_file(path: Path, text: str) -> Path:
    path.write_text(text)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return path


def test_a_candidate_file_and_a_run_are_of_their_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path)
    run = workspace.dataset("shop").run("grpo", "test_uni9_w10_s42")
    for path in (workspace.dataset("shop").candidates("test", "uni9", 10, 42), run):
        files = DatasetFiles.of(path)
        assert files is not None
        assert (files.name, files.titles) == ("shop", workspace.dataset("shop").titles)
    run.mkdir(parents=True)
    monkeypatch.chdir(run.parent)
    files = DatasetFiles.of(Path(run.name))
    assert files is not None
    assert files.ceiling == workspace.dataset("shop").ceiling
    assert DatasetFiles.of(tmp_path / "lists.jsonl") is None
    assert DatasetFiles.of(Path("/lists.jsonl")) is None


def test_a_link_from_elsewhere_leads_to_the_dataset_of_its_file(tmp_path: Path) -> None:
    path = Workspace(tmp_path / "workspace").dataset("shop").candidates("test", "uni9", 10, 42)
    path.parent.mkdir(parents=True)
    path.touch()
    (tmp_path / "link.jsonl").symlink_to(path)
    files = DatasetFiles.of(tmp_path / "link.jsonl")
    assert files is not None
    assert files.name == "shop"


def test_a_hash_is_computed_once_and_again_after_any_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def counted(path: Path) -> str:
        read.append(path)
        return sha256(path)

    monkeypatch.setattr(workspaces, "sha256", counted)
    monkeypatch.setattr(workspaces.time, "time", lambda: time.time_ns() / 1e9 + 60)
    path = old_file(tmp_path / "train.tsv", "u1\ta b c\n")
    first = cached_sha256(path)
    assert (cached_sha256(path), len(read)) == (first, 1)
    old_file(path, "u1\ta b d\n")  # as long as before, and with the time stamp of before
    assert cached_sha256(path) == sha256(path) != first
    (tmp_path / "draft").write_text("u1\ta b e\n")
    os.replace(tmp_path / "draft", path)
    assert cached_sha256(path) == sha256(path)


def test_a_file_that_was_just_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    for text in ("u1\ta b c\n", "u1\ta b d\n", "u1\ta b e\n"):
        path.write_text(text)
        assert cached_sha256(path) == sha256(path)


def test_hashes_are_of_the_files_that_are_there(tmp_path: Path) -> None:
    files = DatasetFiles(Workspace(tmp_path), "shop")
    files.titles.parent.mkdir(parents=True)
    files.titles.write_text("item,title\n1,Tea\n")
    files.split("train").write_text("u1\t1 1\n")
    assert files.source_hashes() == {"titles": sha256(files.titles), "train": sha256(files.split("train"))}
