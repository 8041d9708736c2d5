"""A lock keeps every other process out, lets nobody wait for the dead, and hands over to those who wait."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from workspaces import tsv, write_dataset

from mllmrec import stages
from mllmrec.errors import ArtifactError
from mllmrec.settings.base import DatasetSettings
from mllmrec.settings.data import CandidatesSettings, PrepareSettings, RetrieveSettings
from mllmrec.settings.evaluation import ReportSettings
from mllmrec.settings.training import BackboneSettings, GrpoSettings, MergeSettings, SftSettings
from mllmrec.storage.locks import lock_path, locked, owner_of
from mllmrec.storage.manifests import Manifest, write_manifest
from mllmrec.storage.workspace import Workspace

LINES = {str(user): [str(1 + (user + step) % 20) for step in range(6)] for user in range(8)}


def test_a_second_owner_is_refused_and_the_next_one_let_in(tmp_path: Path) -> None:
    artifact = tmp_path / "folder" / "rankings.jsonl"
    with (
        locked(artifact),
        pytest.raises(ArtifactError, match=r"rankings.jsonl is being made by process \d+, started \d{4}-\d\d-\d\d"),
    ):
        locked(artifact).__enter__()
    with locked(artifact):
        assert (tmp_path / "folder" / "rankings.jsonl.lock").exists()
    assert not (tmp_path / "folder").exists(), "it was made for the lock alone"


def test_those_who_wait_come_in_one_at_a_time(tmp_path: Path) -> None:
    """Owners remove the file that others wait for; still no two of eight are ever inside together."""
    inside, most, done = 0, 0, []

    def work() -> None:
        nonlocal inside, most
        for _ in range(40):
            with locked(tmp_path / "artifact", wait=True):
                inside += 1
                most = max(most, inside)
                inside -= 1
        done.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert (most, len(done)) == (1, 8)


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    return write_dataset(tmp_path, train=tsv(LINES), valid=tsv(LINES), test=tsv(LINES))


@pytest.mark.parametrize(
    ("settings", "artifact"),
    [
        (PrepareSettings(dataset="shop", source="pairs", raw="raw"), "data/shop/card.json"),
        (CandidatesSettings(dataset="shop", num_neg=5, min_inter=3), "data/shop/processed/test_uni5_w3_s42.jsonl"),
        (RetrieveSettings(dataset="shop", num=5, min_inter=3), "data/shop/processed/test_hard5_w3_s42.jsonl"),
        (BackboneSettings(dataset="shop", out="tiny"), "tiny"),
        (SftSettings(dataset="shop", tag="sft"), "checkpoints/shop/sft"),
        (MergeSettings(dataset="shop", tag="sft"), "checkpoints/shop/sft-merged"),
        (GrpoSettings(dataset="shop", sft_tag="sft", tag="grpo"), "checkpoints/shop/grpo"),
        (ReportSettings(dataset="shop"), "result/shop/report.html"),
    ],
    ids=lambda value: value.verb if isinstance(value, DatasetSettings) else "",
)
def test_a_stage_is_refused_while_another_process_makes_its_artifact(
    shop: Workspace, settings: Any, artifact: str
) -> None:
    """Whatever its settings are: the second of two processes never gets as far as reading its inputs."""
    before = sorted(shop.root.rglob("*"))
    with locked(shop.root / artifact), pytest.raises(ArtifactError) as error:
        stages.entry_point(settings.verb)(settings, shop)
    assert str(error.value).startswith(f"{shop.root / artifact} is being made by process {os.getpid()}, started ")
    assert sorted(shop.root.rglob("*")) == before, "neither the lock nor a folder for it is left"


def test_a_manifest_is_written_by_whoever_holds_the_lock_alone(tmp_path: Path) -> None:
    artifact, settings = tmp_path / "lists.jsonl", DatasetSettings(dataset="shop")
    artifact.write_text("{}\n")

    def write() -> object:
        return write_manifest(artifact, settings, {}, started=time.monotonic())

    with another_process(artifact), pytest.raises(ArtifactError, match="is being made by process"):
        write()
    with locked(artifact):
        lock_path(artifact).unlink()
        with pytest.raises(ArtifactError, match=r"lists\.jsonl\.lock was removed while this process made"):
            write()
    assert Manifest.read(artifact) is None
    with locked(artifact):
        write()
    assert Manifest.read(artifact) is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lists.jsonl", "lists.jsonl.manifest.json"]


def test_whoever_holds_a_lock_is_named_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    artifact = tmp_path / "folder" / "sft"
    assert owner_of(artifact) is None
    with another_process(artifact) as process:
        told = owner_of(artifact)
        assert told is not None
        assert told.startswith(f"process {process.pid}, started ")
        process.kill()
        process.wait()
        assert lock_path(artifact).exists(), "it had no time to tidy up"
        assert owner_of(artifact) is None
        with locked(artifact):
            assert (owner_of(artifact) or "").startswith(f"process {os.getpid()}, ")
    assert not lock_path(artifact).exists()


def test_what_a_dead_writer_left_is_swept_by_the_next_owner(tmp_path: Path) -> None:
    folder = tmp_path / "sft"
    folder.mkdir()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stale = [f".sft.{dead.pid}.tmp", f".sft.manifest.json.{dead.pid}.tmp", f"sft/.model.safetensors.{dead.pid}.tmp"]
    others = [f".grpo.{dead.pid}.tmp", f"sft/.config.json.{os.getpid()}.tmp", "sft/.notes.tmp"]
    for name in (*stale, *others):
        (tmp_path / name).write_text("half")
    (folder / "dead.lock").touch()
    with locked(folder / "alive"), locked(folder):
        left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob(".*.tmp")}
        assert lock_path(folder / "alive").exists()
    assert left == set(others)
    assert not (folder / "dead.lock").exists()


@pytest.mark.parametrize("reason", [errno.EACCES, errno.EROFS])
def test_where_nothing_can_be_written_no_lock_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    def refuse(path: Path, *args: object, **kwargs: object) -> None:
        raise OSError(reason, os.strerror(reason), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with locked(tmp_path / "sft"):
        pass
    reason = errno.ENOSPC
    with pytest.raises(OSError, match="No space left"), locked(tmp_path / "sft"):
        pass


@contextmanager
def another_process(artifact: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of `artifact` for the block, unless it dies before."""
    program = (
        "import sys, pathlib, mllmrec.storage.locks as l\nwith l.locked(pathlib.Path(sys.argv[1])): print(); input()"
    )
    command = [sys.executable, "-c", program, str(artifact)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        if process.poll() is None:
            process.communicate("\n")
