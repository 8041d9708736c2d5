"""Errors of libraries and of the system, each in one paragraph with its exit status."""

from __future__ import annotations

import errno
import lzma
import os
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from jinja2.exceptions import SecurityError
from safetensors import SafetensorError
from safetensors.torch import load_file
from workspaces import tsv, write_dataset

from mllmrec.cli.screen import describe, status_of
from mllmrec.cli.verbs import app
from mllmrec.storage.workspace import write_text

LINES = tsv({str(user): [f"i{(user * 3 + step * 7) % 40}" for step in range(12)] for user in range(6)})


def raised(work: Callable[[], object]) -> Exception:
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def broken_weights(tmp_path: Path) -> Exception:
    (tmp_path / "model.safetensors").write_bytes(b"no weights at all")
    return raised(lambda: load_file(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (raised(lambda: lzma.decompress(b"no xz")), 2, "A compressed file is broken or cut off"),
        (raised(lambda: zlib.decompress(b"no zlib")), 2, "A compressed file is broken or cut off"),
        (tarfile.ReadError("unexpected end of data"), 2, "compare its checksum"),
        (SecurityError("access to attribute '__class__' is unsafe"), 2, "The chat template of the model can't be"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), 3, "The disk is full (SafetensorError"),
        (RuntimeError("PytorchStreamWriter failed writing file data/7: file write failed"), 3, "The disk is full"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 3, "The disk is full (OSError"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "a.json"), 3, "The disk is full while a.json was written"),
        (PermissionError(errno.EACCES, "Permission denied", "train.tsv"), 3, "train.tsv: Permission denied."),
        (RuntimeError("several\n lines"), 3, "The stage failed unexpectedly: RuntimeError: several lines."),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_each_error_has_its_paragraph_and_status(error: Exception, status: int, words: str) -> None:
    told = describe(error, app)
    assert words in told
    assert "\n" not in told
    assert told.endswith(".")
    assert status_of(error) == status


def test_weights_that_are_none_are_named_for_what_they_are(tmp_path: Path) -> None:
    error = broken_weights(tmp_path)
    assert describe(error, app).startswith("A file of weights can't be read as safetensors (SafetensorError")
    assert status_of(error) == 2


def test_a_full_disk_is_told_with_the_file_that_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    error = raised(lambda: write_text(tmp_path / "card.json", "{}"))
    assert describe(error, app).startswith(f"The disk is full while {tmp_path / 'card.json'} was written")
    assert list(tmp_path.iterdir()) == []


def unread(*words: str, closed: bool = False) -> tuple[int, str]:
    """Exit status and standard error of a command whose output nobody reads, or that has none."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "mllmrec", *words]
    if closed:
        command = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    process = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    return process.returncode, process.stderr


def test_output_that_nobody_reads_changes_neither_work_nor_status(tmp_path: Path) -> None:
    """`| head` closes its end early: a stage is done all the same, and a failed check still ends with 1."""
    write_dataset(tmp_path, train=LINES, test=LINES)
    words = ("--dataset", "shop", "--root", str(tmp_path))
    assert unread("--help") == (0, "")
    assert unread("candidates", *words, "--min-inter", "5") == (0, "")
    assert list((tmp_path / "data/shop/processed").glob("*.jsonl"))
    status, told = unread("audit", *words)
    assert status == 1
    assert "Traceback" not in told
    assert "Exception ignored" not in told
    assert unread("candidates", *words, "--min-inter", "5", closed=True) == (0, "")


def test_remarks_that_nobody_reads_end_no_stage(tmp_path: Path) -> None:
    write_dataset(tmp_path, train=LINES, test=LINES)
    reading, writing = os.pipe()
    os.close(reading)
    words = ["audit", "--dataset", "shop", "--root", str(tmp_path)]
    process = subprocess.run([sys.executable, "-m", "mllmrec", *words], stdout=writing, stderr=writing, check=False)
    os.close(writing)
    assert process.returncode == 1
