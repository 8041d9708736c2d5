"""Long stages: appended, resumed, extended, retried, locked, shared among processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from workspaces import SUPPORT

from mllmrec.errors import ArtifactError, BackendError
from mllmrec.launch import WorkShare
from mllmrec.settings.texts import LongStageSettings
from mllmrec.storage.json_streams import read_list, write_list
from mllmrec.storage.log_lines import header_of
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.record_log import RecordLog, Work, open_work
from mllmrec.storage.workspace import partial

KEYS = [str(number) for number in range(10)]


def settings(**knobs: Any) -> LongStageSettings:
    return LongStageSettings(dataset="toy", **knobs)


def recall_from(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((row["key"], row) for row in read_list(path))


def work_through(path: Path, keys: list[str] = KEYS, inputs: dict[str, str] | None = None, **knobs: Any) -> list[str]:
    """Run a stage whose record of key k is {key, square}; odd keys above 6 fail. Returns the keys it worked on."""
    chosen = settings(max_failure_share=0.5, **knobs)
    with open_work(path, chosen, inputs or {"train": "a"}, lambda: recall_from(path)) as work:
        worked = [] if work.nothing_to_do(keys) else work.todo(keys)
        for key in worked:
            step(work, key)
        if worked:
            work.complete(keys, lambda rows: write_list(path, (row for _, row in rows)), started=time.monotonic())
    return worked


def step(work: Work, key: str) -> None:
    if int(key) > 6 and int(key) % 2:
        work.failed(key, "too odd", {"calls": 2})
    else:
        work.done(key, {"key": key, "square": int(key) ** 2}, {"calls": 1, "seconds": 0.5})


def test_the_artifact_is_in_the_order_of_the_keys_and_the_log_goes(tmp_path: Path) -> None:
    path = tmp_path / "squares.json"
    assert work_through(path) == KEYS
    assert [row["square"] for row in read_list(path)] == [0, 1, 4, 9, 16, 25, 36, 64]
    manifest = Manifest.read(path)
    assert manifest is not None
    assert manifest.counts == {"in": 10, "done": 8, "failed": 2, "failed_by_reason": {"too odd": 2}}
    assert manifest.details["failures"] == {"7": "too odd", "9": "too odd"}
    assert manifest.details["usage"] == {"calls": 12, "seconds": 4.0}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["squares.json", "squares.json.manifest.json"]


def test_a_finished_stage_has_nothing_to_do_and_a_larger_limit_extends_it(tmp_path: Path) -> None:
    path = tmp_path / "squares.json"
    work_through(path, KEYS[:4])
    first = path.read_bytes()
    assert work_through(path, KEYS[:4]) == []
    assert path.read_bytes() == first
    assert work_through(path, KEYS) == KEYS[4:]
    extended = path.read_bytes()
    whole = tmp_path / "whole.json"
    work_through(whole)
    assert extended == whole.read_bytes()
    manifest = Manifest.read(path)
    assert manifest is not None
    assert manifest.details["usage"]["calls"] == 12, "what was spent before counts too"
    assert work_through(path, KEYS[:3]) == [], "a smaller limit takes nothing away"
    assert path.read_bytes() == extended


def test_what_a_finished_artifact_took_is_known_before_it_is_extended(tmp_path: Path) -> None:
    path = tmp_path / "squares.json"
    work_through(path)
    with open_work(path, settings(), {"train": "a"}, lambda: recall_from(path)) as work:
        assert work.usage == {"calls": 12, "seconds": 4.0}


def test_failed_records_are_tried_again_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "squares.json"
    work_through(path)
    assert work_through(path) == []
    assert work_through(path, retry_failed=True) == ["7", "9"]
    manifest = Manifest.read(path)
    assert manifest is not None
    assert manifest.details["usage"]["calls"] == 16


def test_an_interrupted_start_goes_on_behind_its_last_whole_record(tmp_path: Path) -> None:
    path = tmp_path / "squares.json"
    with open_work(path, settings(), {"train": "a"}, lambda: recall_from(path)) as work:
        for key in ("3", "0", "5"):
            step(work, key)
        work.again("1", "too long", {"calls": 1})
    with partial(path).open("a") as file:
        file.write('{"key":"2","usage":{},"row":{"key":"2","squ')
    with open_work(path, settings(), {"train": "a"}, lambda: recall_from(path)) as work:
        assert work.todo(KEYS) == ["1", "2", "4", "6", "7", "8", "9"]
        assert (work.reason_again("1"), work.reason_again("2")) == ("too long", None)
        assert [row["square"] for _, row in work.rows(KEYS)] == [0, 9, 25]
        assert work.usage["calls"] == 4
    work_through(path)
    whole = tmp_path / "whole.json"
    work_through(whole)
    assert path.read_bytes() == whole.read_bytes()


def test_drafts_that_a_killed_process_left_go_with_the_log(tmp_path: Path) -> None:
    path = tmp_path / "squares.json"
    for name in (".squares.json.7.tmp", ".squares.json.manifest.json.7.tmp", ".other.json.7.tmp"):
        (tmp_path / name).write_text("half a fi")
    work_through(path)
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.suffix == ".tmp") == [".other.json.7.tmp"]


def test_other_settings_or_inputs_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "squares.json"
    with open_work(path, settings(), {"train": "a"}, lambda: recall_from(path)) as work:
        step(work, "1")
    with pytest.raises(ArtifactError, match="differs in train"):
        work_through(path, inputs={"train": "b"})
    assert work_through(path, inputs={"train": "b"}, overwrite=True) == KEYS
    with pytest.raises(ArtifactError, match="input train has changed"):
        work_through(path, inputs={"train": "c"})


def test_an_interrupted_overwrite_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "squares.json"
    work_through(path)
    with open_work(path, settings(overwrite=True), {"train": "b"}, lambda: recall_from(path)) as work:
        step(work, "0")
    assert work_through(path, inputs={"train": "b"}, overwrite=True) == KEYS[1:]


def test_an_overwrite_that_does_nothing_takes_nothing_away(tmp_path: Path) -> None:
    path = tmp_path / "squares.json"
    work_through(path)
    with (
        pytest.raises(ZeroDivisionError),
        open_work(path, settings(overwrite=True), {"train": "b"}, lambda: recall_from(path)),
    ):
        raise ZeroDivisionError
    assert work_through(path) == [], "the finished artifact is as it was"
    begun = tmp_path / "begun.json"
    with open_work(begun, settings(), {"train": "a"}, lambda: recall_from(begun)) as work:
        step(work, "3")
    with open_work(begun, settings(overwrite=True), {"train": "b"}, lambda: recall_from(begun)) as work:
        assert work.todo(KEYS) == KEYS
    assert work_through(begun) == [key for key in KEYS if key != "3"], "and so is the log of an interrupted start"


def test_an_extension_that_another_process_began_pays_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "squares.json"
    work_through(path, KEYS[:4])
    log = RecordLog(path, header_of(settings().result_settings(), {"train": "a"}), WorkShare(1, 2))
    log.append("5", "row", {"key": "5", "square": 25}, {"calls": 1})
    log.close()
    assert work_through(path, KEYS[:7]) == ["4", "6"]
    assert [row["square"] for row in read_list(path)] == [0, 1, 4, 9, 16, 25, 36]
    manifest = Manifest.read(path)
    assert manifest is not None
    assert manifest.details["usage"]["calls"] == 7


def test_a_smaller_limit_writes_what_a_larger_one_began_in_the_order_of_all_keys(tmp_path: Path) -> None:
    path = tmp_path / "squares.json"
    with open_work(path, settings(), {}, lambda: recall_from(path)) as work:
        for key in ("6", "4", "5", "0", "1"):
            step(work, key)
        work.complete(KEYS[:2], lambda rows: write_list(path, (row for _, row in rows)), started=0.0, known=KEYS)
    assert [row["key"] for row in read_list(path)] == ["0", "1", "4", "5", "6"]


def test_a_file_that_somebody_else_made_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "squares.json"
    path.write_text("[]\n")
    with pytest.raises(ArtifactError, match="has no manifest"):
        work_through(path)
    assert path.read_text() == "[]\n"
    assert work_through(path, overwrite=True) == KEYS


def test_too_many_failures_fail_the_stage_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "squares.json"
    keys = ["5", "7", "9"]
    with open_work(path, settings(), {}, lambda: recall_from(path)) as work:
        for key in work.todo(keys):
            step(work, key)
        with pytest.raises(BackendError, match=r"2 of 3 records failed: too odd \(2\)"):
            work.complete(keys, lambda rows: write_list(path, (row for _, row in rows)), started=0.0)
    assert not path.exists()
    with open_work(path, settings(max_failure_share=1.0), {}, lambda: recall_from(path)) as work:
        assert work.todo(keys) == []
        work.complete(keys, lambda rows: write_list(path, (row for _, row in rows)), started=0.0)
    assert [row["key"] for row in read_list(path)] == ["5"]


HEADS = {
    "empty": b"",
    "torn": b'{"crc":"00',
    "zeros": b"\0" * 512,
    "zeros and an end": b"\0" * 512 + b"\n",
    "text": b"?\n",
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_a_log_without_a_header_starts_anew(tmp_path: Path, head: bytes) -> None:
    path, whole = tmp_path / "squares.json", tmp_path / "whole.json"
    partial(path).write_bytes(head)
    assert work_through(path) == KEYS
    work_through(whole)
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("head", [b"\0" * 30 + b"\n", b"?\n", b""], ids=["zeros", "text", "gone"])
def test_records_outlive_the_header_that_they_belong_to(
    tmp_path: Path, head: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was paid for is kept, and still only for the settings and inputs that it was made with."""
    path = tmp_path / "squares.json"
    with open_work(path, settings(), {"train": "a"}, lambda: recall_from(path)) as work:
        for key in ("3", "0", "5"):
            step(work, key)
    _, records = partial(path).read_bytes().split(b"\n", 1)
    partial(path).write_bytes(head + records)
    other = tmp_path / "other.json"
    partial(other).write_bytes(head + records)
    assert work_through(other, inputs={"train": "b"}) == KEYS
    capsys.readouterr()
    assert work_through(path) == ["1", "2", "4", "6", "7", "8", "9"]
    assert ("1 line can't be read back" in capsys.readouterr().err) == bool(head)


def test_a_damaged_record_is_told_and_asked_for_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "squares.json"
    with open_work(path, settings(), {"train": "a"}, lambda: recall_from(path)) as work:
        for key in ("3", "0", "5", "6"):
            step(work, key)
    content = partial(path).read_bytes()
    partial(path).write_bytes(
        content.replace(b'"square":0', b'"square":1').replace(b'{"key":"5"', b"\0\0\0\0\0\0\0\0\0\0")
    )
    assert work_through(path) == ["0", "1", "2", "4", "5", "7", "8", "9"]
    assert f"{partial(path)}: 2 lines can't be read back" in capsys.readouterr().err
    assert [row["square"] for row in read_list(path)] == [0, 1, 4, 9, 16, 25, 36, 64]


def test_a_log_of_the_version_before_is_gone_on_with(tmp_path: Path) -> None:
    """Its lines have no checksum."""
    path, header = tmp_path / "squares.json", {"settings": settings().result_settings(), "inputs": {"train": "a"}}
    rows = [
        {"header": header},
        {"key": "3", "usage": {"calls": 1}, "row": {"key": "3", "square": 9}},
        {"key": "7", "usage": {"calls": 2}, "failure": "too odd"},
        {"key": "1", "usage": {"calls": 1}, "again": "too long"},
    ]
    partial(path).write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows) + '{"key":"4","us')
    with open_work(path, settings(), {"train": "a"}, lambda: recall_from(path)) as work:
        assert work.todo(KEYS) == ["0", "1", "2", "4", "5", "6", "8", "9"]
        assert (work.usage["calls"], work.reason_again("1")) == (4, "too long")
    assert work_through(path) == ["0", "1", "2", "4", "5", "6", "8", "9"]
    assert [row["square"] for row in read_list(path)] == [0, 1, 4, 9, 16, 25, 36, 64]


def test_a_second_process_is_refused_with_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "squares.json"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from mllmrec.storage.locks import locked\n"
            "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)",
            str(path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ArtifactError, match=rf"made by process {holder.pid}, started \d{{4}}-\d\d-\d\d"):
            work_through(path)
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()
    assert work_through(path) == KEYS, "the lock of a killed process holds nobody up"


@pytest.mark.slow
@pytest.mark.sockets
def test_processes_of_one_launch_share_the_keys(tmp_path: Path) -> None:
    script = tmp_path / "stage.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom test_record_log import work_through\n"
        "print(work_through(Path(sys.argv[1])))\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}:{SUPPORT}", "OMP_NUM_THREADS": "1"}
    for size in (2, 3):
        path = tmp_path / f"squares-{size}.json"
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
        subprocess.run([*launch, str(script), str(path)], env=environment, check=True, timeout=120, capture_output=True)
        assert [json.loads(json.dumps(row))["square"] for row in read_list(path)] == [0, 1, 4, 9, 16, 25, 36, 64]
        assert not list(tmp_path.glob("*.partial*")), "no log is left"
        assert not list(tmp_path.glob("*.lock")), "no lock is left"
