"""Stages that are killed before one of their file operations, started again, and compared with an undisturbed run.

Operations are seen by an audit hook: every opening for writing, renaming, removing, making of a folder, cutting, below
the workspace. What libraries do outside Python (weights) isn't seen; what comes before and after it is.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mllmrec.settings.base import StageSettings
from mllmrec.stages import entry_point
from mllmrec.storage.workspace import Workspace

CHANGES = {
    **dict.fromkeys(("os.remove", "os.mkdir", "os.rmdir", "os.truncate"), 1),
    **dict.fromkeys(("os.rename", "os.link", "os.symlink"), 2),
}
"""Audit events that change the disk, with the number of paths they name; `open` is one when it is for writing."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
TIMES = ("seconds", "second", "finished_at", "mtime_ns", "seal")
"""Parts of keys whose values tell when something was made or how long it took, or are hashes of that."""
SINCE_RESUMED = ("budget", "budget_since_step")
"""What the manifest of a training counts from the step on from which it was resumed, and that step."""

SERVER = multiprocessing.get_context("forkserver")

TRAINING_LOG = "training.jsonl"
"""Compared in what validation found; what the trainer itself logs at the end counts from where it was resumed."""


class Disturbed:
    """One stage on a workspace whose content before it is kept, so that it can be run from there again and again."""

    def __init__(self, stage: StageSettings, root: Path, kept: Path) -> None:
        self.stage, self.root, self.kept = stage, root, kept
        shutil.copytree(root, kept, symlinks=True)
        self.operations = self._run()
        self.undisturbed = content(root)

    def kill(self, number: int) -> str:
        """What differs, in words, after the stage was killed before operation `number` (from 0) and started again."""
        self._restore()
        where = f"{self.stage.verb} killed before operation {number}, {self.operations[number]}"
        assert in_child(start, self.stage, self.root, None, number) == -signal.SIGKILL, f"{where}: it ended before"
        self._run(where)
        found = content(self.root)
        absent = object()
        names = sorted(found.keys() | self.undisturbed.keys())
        others = [name for name in names if found.get(name, absent) != self.undisturbed.get(name, absent)]
        return f"{where}: {others} differ" if others else ""

    def _restore(self) -> None:
        for path in self.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(self.kept, self.root, symlinks=True, dirs_exist_ok=True)

    def _run(self, where: str = "undisturbed") -> list[str]:
        log = self.kept.with_name(f"{self.kept.name}.operations")
        status = in_child(start, self.stage, self.root, log, None)
        told = log.read_text(encoding="utf-8")
        assert status == 0, f"{where}: started again it ended with {status}: {told[-4000:]}"
        return told.splitlines()


def start(stage: StageSettings, root: Path, log: Path | None, kill_at: int | None) -> None:
    """In a process of its own: run the stage with its operations noted, or killed before one of them."""
    with open(log or os.devnull, "w", encoding="utf-8") as noted, open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        count = 0

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if (told := change(event, arguments, root)) is not None:
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
                noted.write(told + "\n")

        sys.addaudithook(watch)
        try:
            entry_point(stage.verb)(stage, Workspace(root))
        except BaseException:
            noted.write(traceback.format_exc())
            noted.flush()
            raise


def in_child(work: Callable[..., None], *arguments: Any) -> int:
    """The exit status of a process that does the work; minus the signal that killed it.

    It is forked from a server that has imported the libraries and never used them: a fork of this process would wait
    for ever for threads that the libraries have started here.
    """
    process = SERVER.Process(target=work, args=arguments)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def change(event: str, arguments: tuple[Any, ...], root: Path) -> str | None:
    """What an audit event changes below `root`, in words; None when it changes nothing there."""
    if event == "open":
        path, _, flags = arguments
        paths = [path] if isinstance(flags, int) and flags & WRITING else []
        folders = [-1]
    else:
        paths, folders = list(arguments[: CHANGES.get(event, 0)]), list(arguments[CHANGES.get(event, 0) :])
    named = [_below(path, folders, root) for path in paths if isinstance(path, (str, bytes, os.PathLike))]
    return f"{event} {' '.join(filter(None, named))}" if any(named) else None


def _below(path: Any, folders: list[Any], root: Path) -> str | None:
    """The path relative to `root`; of a name in an open folder, as shutil.rmtree uses, that of both together."""
    whole = os.fsdecode(path)
    folder = next((each for each in folders if isinstance(each, int) and each > 0), None)
    if not os.path.isabs(whole) and folder is not None and os.path.exists(link := f"/proc/self/fd/{folder}"):
        whole = os.path.join(os.readlink(link), whole)
    whole = os.path.abspath(whole)
    return os.path.relpath(whole, root) if whole.startswith(f"{root}{os.sep}") else None


def content(root: Path) -> dict[str, Any]:
    """Every file and folder below a workspace by its path, without what tells how long something took."""
    return {path.relative_to(root).as_posix(): _timeless(path) for path in root.rglob("*")}


def _timeless(path: Path) -> Any:
    if path.is_dir():
        return None
    if path.suffix not in (".json", ".jsonl"):
        return path.read_bytes()
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        rows = [_without_times(json.loads(line)) for line in text.splitlines()]
        return [row for row in rows if any("valid" in name for name in row)] if path.name == TRAINING_LOG else rows
    told = _without_times(json.loads(text))
    if "checkpoints" in path.parts and path.name == "manifest.json":
        told["details"] = {name: value for name, value in told["details"].items() if name not in SINCE_RESUMED}
    return told


def _without_times(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_times(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    return {
        name: sorted(entry) if name == "outputs" else _without_times(entry)
        for name, entry in value.items()
        if not any(part in name for part in TIMES)
    }


def disturbances(stages: list[StageSettings], root: Path, kept: Path) -> Iterator[Disturbed]:
    """The stages one after the other, each on the workspace that those before it left."""
    for number, stage in enumerate(stages):
        disturbed = Disturbed(stage, root, kept / str(number))
        yield disturbed
        shutil.rmtree(disturbed.kept)
