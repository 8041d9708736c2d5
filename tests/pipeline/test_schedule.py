"""Stages one by one and side by side: the order, the time that is told, errors, checks and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workspaces import SUPPORT

from mllmrec.errors import BackendError, DataError
from mllmrec.pipeline.lanes import LaneError
from mllmrec.pipeline.schedule import Schedule, one_by_one, side_by_side, time_needed
from mllmrec.progress import Board, Said, note, progress
from mllmrec.records import Summary
from mllmrec.settings.base import StageSettings
from mllmrec.settings.data import CandidatesSettings, PrepareSettings
from mllmrec.settings.evaluation import ReportSettings
from mllmrec.settings.texts import CaptionSettings
from mllmrec.settings.training import SftSettings
from mllmrec.stages import Run
from mllmrec.storage.workspace import Workspace


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
        elif todo in WAITING:
            WAITING[todo](workspace.root, verb)
        elif todo:
            do(todo)
        (workspace.root / f"{verb}.times").write_text(f"{began} {time.monotonic()}")
        facts = {"unpicklable": lambda: None} if todo == "odd summary" else {}
        headline = f"{verb} on {os.environ.get('OMP_NUM_THREADS')} thread"
        return Summary(headline=headline, passed=todo != "fail", facts=facts)

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
    until = time.monotonic() + 120
    while len(list(root.glob("*.here"))) < 2:
        assert time.monotonic() < until, f"{verb} was left alone"
        time.sleep(0.01)


def wait(root: Path, verb: str) -> None:
    """Wait for Ctrl-C, and keep something before giving way to it."""
    (root / f"{verb}.waits").touch()
    try:
        time.sleep(250)
    except KeyboardInterrupt:
        (root / f"{verb}.kept").touch()
        raise KeyboardInterrupt(f"{verb} stopped at step 3") from None


def wait_training(root: Path, verb: str) -> None:
    """Tell something all the time, and stop at Ctrl-C as a trainer does: its handler says so, and the loop ends."""
    stopping: list[bool] = []

    def stop(*_: object) -> None:
        stopping.append(True)
        note("Stopping after this step")
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, stop)
    (root / f"{verb}.waits").touch()
    until = time.monotonic() + 120
    while not stopping:
        assert time.monotonic() < until
        note("x" * 1000)
    (root / f"{verb}.kept").touch()
    raise KeyboardInterrupt(f"{verb} stopped at step 3")


def wait_deaf(root: Path, verb: str) -> None:
    """Go on, whatever Ctrl-C says."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    (root / f"{verb}.waits").touch()
    time.sleep(250)


def wait_failing(root: Path, verb: str) -> None:
    """Fail to keep anything."""
    with suppress(KeyboardInterrupt):
        wait(root, verb)
    raise DataError(f"{verb}: the disk is full")


def raise_beside(root: Path, verb: str) -> None:
    """Fail once another stage is at work."""
    until(lambda: bool(list(root.glob("*.waits"))))
    raise DataError(f"{verb}.json:3: no tab.")


WAITING = {
    "raise beside": raise_beside,
    "wait": wait,
    "wait training": wait_training,
    "wait deaf": wait_deaf,
    "wait failing": wait_failing,
}


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


@pytest.mark.parametrize(
    ("todo", "kind"),
    [
        ("raise", DataError),
        ("raise beside", DataError),
        ("odd", RuntimeError),
        ("odd summary", Exception),
        ("die", BackendError),
    ],
)
def test_an_error_names_its_stage_and_stops_the_others(
    tmp_path: Path, todo: str, kind: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = schedule_for(tmp_path, caption=todo, candidates="wait")
    with pytest.raises(kind) as caught:
        side_by_side(schedule, acting, threads=1)
    assert caught.value.__notes__ == ["This was stage 2 of 4, caption; `mllmrec run shop` goes on with it."]
    assert "This was stage 2 of 4, caption; what runs beside it is stopped." in capsys.readouterr().err
    if todo == "die":
        assert "(signal 9;" in str(caught.value)
    else:
        assert isinstance(caught.value.__cause__, LaneError)
        assert "_outcome" in str(caught.value.__cause__), "the traceback of the lane"
    assert not (tmp_path / "candidates.times").exists(), "it was stopped, and its four minutes weren't waited for"
    assert not (tmp_path / "report.times").exists()


def test_what_fails_while_it_is_stopped_is_told_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schedule = schedule_for(tmp_path, caption="raise beside", candidates="wait failing")
    with pytest.raises(DataError, match="no tab"):
        side_by_side(schedule, acting, threads=1)
    assert "[3] failed as well: candidates: the disk is full" in capsys.readouterr().err


def test_an_error_of_the_first_process_interrupts_the_stages_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when whatever reads standard error has gone away."""

    def show(_board: Board, said: Said) -> None:
        if said.text != "[2] half of it is done":
            return
        until(lambda: (tmp_path / "candidates.waits").exists())
        raise BrokenPipeError

    monkeypatch.setattr(Board, "show", show)
    with pytest.raises(BrokenPipeError):
        side_by_side(schedule_for(tmp_path, caption="tell", candidates="wait"), acting, threads=1)
    assert (tmp_path / "candidates.kept").exists()


def test_a_check_that_fails_is_the_last_stage_and_stops_the_others(tmp_path: Path) -> None:
    schedule = schedule_for(tmp_path, caption="fail", candidates="wait")
    side_by_side(schedule, acting, threads=1)
    assert schedule.failed == 1
    assert not (tmp_path / "candidates.times").exists()
    assert not (tmp_path / "report.times").exists()


INTERRUPTED = """
import sys
from pathlib import Path
import test_schedule as ours
from mllmrec.pipeline.schedule import side_by_side
if __name__ == "__main__":
    schedule = ours.schedule_for(Path(sys.argv[1]), caption=sys.argv[2], candidates=sys.argv[2])
    try:
        side_by_side(schedule, ours.acting, threads=1)
    except KeyboardInterrupt as error:
        print(error, *error.__notes__)
"""


@pytest.fixture
def at_work(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a process with two stages under way that wait in a certain way, as a shell does, in a group of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(todo: str) -> subprocess.Popen[str]:
        (tmp_path / "script.py").write_text(INTERRUPTED)
        path = os.pathsep.join([str(Path(__file__).parent), str(SUPPORT), *filter(None, sys.path)])
        with (tmp_path / "told").open("w") as told:
            process = subprocess.Popen(
                [sys.executable, str(tmp_path / "script.py"), str(tmp_path), todo],
                stdout=subprocess.PIPE,
                stderr=told,
                text=True,
                env=os.environ | {"PYTHONPATH": path},
                start_new_session=True,
            )
        started.append(process)
        until(lambda: len(list(tmp_path.glob("*.waits"))) == 2)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def until(happened: Callable[[], bool]) -> None:
    latest = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < latest, "nothing happened for two minutes"
        time.sleep(0.02)


Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.mark.parametrize("todo", ["wait", "wait training"])
def test_ctrl_c_reaches_every_stage_once_and_each_keeps_what_it_has(tmp_path: Path, at_work: Start, todo: str) -> None:
    process = at_work(todo)
    os.killpg(process.pid, signal.SIGINT)
    told, _ = process.communicate(timeout=120)
    assert sorted(path.name for path in tmp_path.glob("*.kept")) == ["candidates.kept", "caption.kept"]
    assert "[2] caption stopped at step 3" in told
    assert "[3] candidates stopped at step 3" in told
    assert "These were stage 2 of 4, caption, and stage 3 of 4, candidates; `mllmrec run shop` goes on with it." in told


def test_a_third_ctrl_c_ends_what_doesn_t_listen(at_work: Start) -> None:
    process = at_work("wait deaf")
    for _ in range(3):
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        time.sleep(1)
    told, _ = process.communicate(timeout=120)
    assert told.strip().startswith("These were stage 2 of 4, caption, and stage 3 of 4, candidates;")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_lanes_at_work_end_with_the_first_process(at_work: Start, number: signal.Signals) -> None:
    process = at_work("wait deaf")
    lanes = children(process.pid)
    assert len(lanes) == 2
    process.send_signal(number)
    until(lambda: not any(state(lane) for lane in lanes))


def test_ctrl_z_pauses_the_stages_and_fg_goes_on(tmp_path: Path, at_work: Start) -> None:
    process = at_work("wait")
    everyone = [process.pid, *children(process.pid)]
    process.send_signal(signal.SIGTSTP)
    until(lambda: {state(pid) for pid in everyone} == {"T"})
    process.send_signal(signal.SIGCONT)
    until(lambda: "T" not in {state(pid) for pid in everyone})
    process.send_signal(signal.SIGINT)
    assert "stopped at step 3" in process.communicate(timeout=120)[0]


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in listed.split() if b"spawn_main" in Path(f"/proc/{word}/cmdline").read_bytes()]


def state(pid: int) -> str:
    """What the system calls the state of a process; nothing where it has ended."""
    try:
        letter = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return letter.replace("Z", "")


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


def test_the_time_left_is_at_least_that_much_until_a_training_stage_was_timed(tmp_path: Path) -> None:
    schedule = schedule_for(tmp_path, lanes=1)
    trained = SftSettings(dataset="shop", root=str(tmp_path), backbone="tiny")
    schedule.stages = [*schedule.stages[:1], trained, trained.model_copy(update={"tag": "other"})]
    schedule.__post_init__()
    schedule.usual = {"prepare": 10, "sft": 100}
    assert schedule.time_left() == ", at least 4 min left"
    schedule.seconds = {0: 12.0}
    assert schedule.time_left() == ", at least 4 min left"
    schedule.seconds = {0: 12.0, 1: 0.1}
    assert schedule.time_left() == ", at least 2 min left", "one that was finished before wasn't timed"
    schedule.seconds = {0: 12.0, 1: 430.0}
    assert schedule.time_left() == ", about 7 min left"
    schedule.seconds |= {2: 0.1}
    assert schedule.time_left() == ", about 0 s left", "nothing that trains is left"


def test_the_time_left_begins_with_the_measured_pace_of_the_machine(tmp_path: Path) -> None:
    """At half the speed 220 usual seconds take 440; a stage that took 500 for 200 makes it (2 * 60 + 500) / 260."""
    schedule = schedule_for(tmp_path, lanes=1)
    schedule.usual = {"prepare": 10, "caption": 200, "candidates": 1, "report": 9}
    schedule.pace = 2.0
    assert schedule.time_left() == ", about 7 min left"
    schedule.seconds = {1: 500.0}
    assert schedule.time_left() == ", about 48 s left"


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
