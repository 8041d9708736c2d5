"""Stages one by one and side by side: the order, the time that is told, errors, checks and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllmrec.artifacts import Workspace
from mllmrec.errors import BackendError, DataError
from mllmrec.lanes import LaneError
from mllmrec.progress import note, progress
from mllmrec.records import Summary
from mllmrec.schedule import Schedule, one_by_one, side_by_side, time_needed
from mllmrec.settings.base import StageSettings
from mllmrec.settings.candidates import CandidatesSettings
from mllmrec.settings.captions import CaptionSettings
from mllmrec.settings.prepare import PrepareSettings
from mllmrec.settings.report import ReportSettings
from mllmrec.stages import Run


class TwoArgumentsError(Exception):
    """One that pickle can't put together again."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} in {where}")


def acting(verb: str) -> Run:
    """Stages that do what the file <verb> in the workspace says, and write when they began and ended."""

    def act(_settings: StageSettings, workspace: Workspace) -> Summary:
        began = time.monotonic()
        todo = (workspace.root / verb).read_text() if (workspace.root / verb).exists() else ""
        if todo == "meet":
            meet(workspace.root, verb)
        elif todo == "wait":
            wait(workspace.root, verb)
        elif todo:
            do(todo)
        (workspace.root / f"{verb}.times").write_text(f"{began} {time.monotonic()}")
        return Summary(headline=f"{verb} on {os.environ.get('OMP_NUM_THREADS')} thread", passed=todo != "fail")

    return act


def do(todo: str) -> None:
    match todo:
        case "raise":
            raise DataError("train.tsv:3: no tab.")
        case "odd":
            raise TwoArgumentsError("a hole", "the floor")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "tell":
            note("half of it is done")
            with progress("Counting", 2) as advance:
                advance(2)


def meet(root: Path, verb: str) -> None:
    """Return once another stage is here as well."""
    (root / f"{verb}.here").touch()
    until = time.monotonic() + 60
    while len(list(root.glob("*.here"))) < 2:
        assert time.monotonic() < until, f"{verb} was left alone"
        time.sleep(0.01)


def wait(root: Path, verb: str) -> None:
    """Wait for Ctrl-C, and keep something before giving way to it."""
    (root / f"{verb}.waits").touch()
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        (root / f"{verb}.kept").touch()
        raise KeyboardInterrupt(f"{verb} stopped at step 3") from None


def schedule_for(root: Path, lanes: int = 2, **todo: str) -> Schedule:
    """prepare, then caption and candidates beside it, then report."""
    for verb, words in todo.items():
        (root / verb).write_text(words)
    stages = [
        PrepareSettings(dataset="shop", root=str(root), source="pairs", raw="raw"),
        CaptionSettings(dataset="shop", root=str(root)),
        CandidatesSettings(dataset="shop", root=str(root)),
        ReportSettings(dataset="shop", root=str(root)),
    ]
    return Schedule(stages=stages, command="mllmrec run shop", lanes=lanes, apart=True)


def test_stages_that_wait_for_none_run_at_the_same_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each of the two in the middle ends only once the other has begun."""
    schedule = schedule_for(tmp_path, caption="meet", candidates="meet", prepare="tell")
    side_by_side(schedule, acting, threads=1)
    assert [schedule.summaries[index].headline for index in range(4)] == [
        f"{verb} on 1 thread" for verb in ("prepare", "caption", "candidates", "report")
    ]
    told = capsys.readouterr().err.splitlines()
    assert told[:4] == ["[1/4] prepare", "[1] half of it is done", "[1] prepare on 1 thread", "[2/4] caption"]
    assert told[-2:] == ["[4/4] report", "[4] report on 1 thread"]
    times = {path.stem: [float(word) for word in path.read_text().split()] for path in tmp_path.glob("*.times")}
    assert times["prepare"][1] <= min(times["caption"][0], times["candidates"][0])
    assert times["report"][0] >= max(times["caption"][1], times["candidates"][1])


def test_one_lane_keeps_the_order_of_the_recipe(tmp_path: Path) -> None:
    schedule = schedule_for(tmp_path, lanes=1)
    side_by_side(schedule, acting, threads=1)
    times = [(tmp_path / f"{verb}.times").read_text().split() for verb in ("prepare", "caption", "candidates")]
    assert [float(word) for pair in times for word in pair] == sorted(float(word) for pair in times for word in pair)


@pytest.mark.parametrize(("todo", "kind"), [("raise", DataError), ("odd", RuntimeError), ("die", BackendError)])
def test_an_error_names_its_stage_and_stops_the_others(tmp_path: Path, todo: str, kind: type[Exception]) -> None:
    schedule = schedule_for(tmp_path, caption=todo, candidates="wait")
    with pytest.raises(kind) as caught:
        side_by_side(schedule, acting, threads=1)
    assert caught.value.__notes__ == ["This was stage 2 of 4, caption; `mllmrec run shop` goes on with it."]
    if todo == "die":
        assert "exit code -9" in str(caught.value)
    else:
        assert isinstance(caught.value.__cause__, LaneError)
        assert "in do" in str(caught.value.__cause__), "the traceback of the lane"
    assert not (tmp_path / "report.times").exists()


def test_a_check_that_fails_is_the_last_stage_and_stops_the_others(tmp_path: Path) -> None:
    schedule = schedule_for(tmp_path, caption="fail", candidates="wait")
    side_by_side(schedule, acting, threads=1)
    assert schedule.failed == 1
    assert not (tmp_path / "report.times").exists()


INTERRUPTED = """
import sys
from pathlib import Path
import test_schedule as ours
from mllmrec.schedule import side_by_side
if __name__ == "__main__":
    schedule = ours.schedule_for(Path(sys.argv[1]), caption="wait", candidates="wait")
    try:
        side_by_side(schedule, ours.acting, threads=1)
    except KeyboardInterrupt as error:
        print(error, *error.__notes__)
"""


def start_interrupted(root: Path) -> subprocess.Popen[str]:
    """A process with two stages under way that wait for Ctrl-C."""
    script = root / "script.py"
    script.write_text(INTERRUPTED)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    command = [sys.executable, str(script), str(root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    until = time.monotonic() + 60
    while len(list(root.glob("*.waits"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    return process


def test_ctrl_c_reaches_every_stage_once_and_each_keeps_what_it_has(tmp_path: Path) -> None:
    process = start_interrupted(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    told, _ = process.communicate(timeout=60)
    assert sorted(path.name for path in tmp_path.glob("*.kept")) == ["candidates.kept", "caption.kept"]
    assert "[2] caption stopped at step 3" in told
    assert "[3] candidates stopped at step 3" in told
    assert "These were stage 2 of 4, caption, and stage 3 of 4, candidates; `mllmrec run shop` goes on with it." in told


def test_lanes_end_with_the_first_process(tmp_path: Path) -> None:
    """A lane that is free sees the pipe close; one at work ends when it next tells something."""
    process = start_interrupted(tmp_path)
    lanes = children(process.pid)
    assert lanes
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    for lane in lanes:
        os.kill(lane, signal.SIGINT)
    until = time.monotonic() + 30
    while any(alive(lane) for lane in lanes):
        assert time.monotonic() < until
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in listed.split() if b"spawn_main" in Path(f"/proc/{word}/cmdline").read_bytes()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_in_this_process_an_error_names_its_stage_as_well(tmp_path: Path) -> None:
    schedule = schedule_for(tmp_path, lanes=1, candidates="raise")
    with pytest.raises(DataError) as caught:
        one_by_one(schedule, acting)
    assert caught.value.__notes__ == ["This was stage 3 of 4, candidates; `mllmrec run shop` goes on with it."]
    assert sorted(schedule.summaries) == [0, 1]


def test_the_time_left_goes_by_the_pace_and_by_what_runs_beside(tmp_path: Path) -> None:
    schedule = schedule_for(tmp_path)
    schedule.usual = {"prepare": 10, "caption": 200, "candidates": 200, "report": 10}
    assert schedule.time_left() == ", about 4 min left"
    schedule.lanes = 1
    assert schedule.time_left() == ", about 7 min left"
    schedule.seconds = {0: 20.0, 1: 400.0, 2: 0.1}
    assert schedule.time_left() == ", about 20 s left", "what was finished before tells nothing of the pace"
    schedule.usual = {}
    assert schedule.time_left() == ""


@st.composite
def plans(draw: st.DrawFn) -> tuple[dict[int, float], list[Collection[int]]]:
    count = draw(st.integers(1, 7))
    seconds = draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))
    waits: list[Collection[int]] = [
        draw(st.sets(st.integers(0, index - 1))) if index else set() for index in range(count)
    ]
    return {index: float(value) for index, value in enumerate(seconds)}, waits


@given(plans(), st.integers(1, 4))
def test_the_time_needed_lies_between_the_longest_chain_and_the_sum(
    plan: tuple[dict[int, float], list[Collection[int]]], lanes: int
) -> None:
    seconds, waits = plan
    chain: dict[int, float] = {}
    for index, own in enumerate(waits):
        chain[index] = seconds[index] + max((chain[other] for other in own), default=0.0)
    needed = partial(time_needed, seconds, waits)
    total = sum(seconds.values())
    assert needed(1) == total
    assert max(*chain.values(), total / lanes, 0) <= needed(lanes) <= total
    assert needed(len(waits)) == max(chain.values())
