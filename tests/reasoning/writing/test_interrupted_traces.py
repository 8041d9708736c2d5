"""kill -9 at random moments, a second start, several processes: the same bytes, and no finished call twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shelves import DATASET, WINDOW, ScriptedTeacher, draft_of, lines, make_shop
from workspaces import SUPPORT

from mllmrec.data.draws import generator
from mllmrec.storage.workspace import Workspace, partial

SCRIPT = SUPPORT / "interrupted.py"
KILLS = 10


def start(verb: str, root: Path, asked: Path, *launcher: str) -> subprocess.Popen[bytes]:
    folders = os.pathsep.join((str(SCRIPT.parent), str(SCRIPT.parent.parent)))
    command = [sys.executable, *launcher, str(SCRIPT), verb, str(root), str(asked)]
    environment = os.environ | {"PYTHONPATH": folders, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told.decode()


def recorded(log: Path) -> set[str]:
    """The keys that have a record in a working log, torn lines aside."""
    if not log.exists():
        return set()
    whole = [line for line in log.read_bytes().splitlines(keepends=True)[1:] if line.endswith(b"\n")]
    rows = [json.loads(line) for line in whole]
    return {row["key"] for row in rows if "row" in row or "failure" in row}


def kill_when_it_has_worked(process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    """SIGKILL some time after the log has grown beyond what it was."""
    before = log.stat().st_size if log.exists() else 0
    while process.poll() is None and (not log.exists() or log.stat().st_size <= before):
        time.sleep(0.002)
    time.sleep(seconds)
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.communicate()


def workspaces(verb: str, tmp_path: Path) -> tuple[Workspace, Workspace]:
    """Two shops of equal content, ready for the stage."""
    made = []
    for name in ("whole", "killed"):
        workspace = make_shop(tmp_path / name, lines(160, 8))
        if verb == "refine":
            from mllmrec.reasoning.writing.pseudo_cot import run
            from mllmrec.settings.texts import PseudoCotSettings

            drafting = PseudoCotSettings(
                dataset=DATASET,
                root=str(workspace.root),
                min_inter=WINDOW,
                windows="all",
                backend="endpoint",
                model="m",
            )
            run(drafting, workspace, teacher=ScriptedTeacher(draft_of))
        made.append(workspace)
    return made[0], made[1]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["pseudo-cot", "refine"])
def test_ten_kills_change_nothing(verb: str, tmp_path: Path) -> None:
    whole, killed = workspaces(verb, tmp_path)
    paths = [
        shop.dataset(DATASET).pseudo_cot if verb == "pseudo-cot" else shop.dataset(DATASET).refined_cot
        for shop in (whole, killed)
    ]
    finish(start(verb, whole.root, tmp_path / "asked-whole"))

    artifact, asked = paths[1], tmp_path / "asked"
    log, moments, kills = partial(artifact), generator(0, "kill", verb), 0
    while kills < KILLS:
        done = recorded(log)
        asked.unlink(missing_ok=True)
        process = start(verb, killed.root, asked)
        kill_when_it_has_worked(process, log, 0.15 * moments.random())
        assert process.returncode == -signal.SIGKILL, "the stage ended before it was killed ten times"
        assert not artifact.exists()
        assert done <= recorded(log)
        assert not done & set(asked.read_text(encoding="utf-8").split()), "a finished call was made again"
        kills += 1
    finish(start(verb, killed.root, tmp_path / "asked-last"))
    assert artifact.read_bytes() == paths[0].read_bytes()
    assert not log.exists()


@pytest.mark.slow
def test_a_second_process_is_refused_while_the_first_works(tmp_path: Path) -> None:
    _, shop = workspaces("pseudo-cot", tmp_path)
    first = start("pseudo-cot", shop.root, tmp_path / "asked")
    log = partial(shop.dataset(DATASET).pseudo_cot)
    while not log.exists():
        time.sleep(0.01)
    second = start("pseudo-cot", shop.root, tmp_path / "asked-too")
    _, told = second.communicate(timeout=60)
    assert second.returncode == 1
    assert str(first.pid).encode() in told
    finish(first)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["pseudo-cot", "refine"])
def test_two_processes_of_a_launch_share_the_work(verb: str, tmp_path: Path) -> None:
    alone, shared = workspaces(verb, tmp_path)
    finish(start(verb, alone.root, tmp_path / "asked-alone"))
    finish(
        start(
            verb, shared.root, tmp_path / "asked", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"
        )
    )
    asked = [(tmp_path / name).read_text(encoding="utf-8").split() for name in ("asked-alone", "asked")]
    assert sorted(asked[0]) == sorted(asked[1]), "each is asked for by one process"
    paths = [
        shop.dataset(DATASET).pseudo_cot if verb == "pseudo-cot" else shop.dataset(DATASET).refined_cot
        for shop in (alone, shared)
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()
