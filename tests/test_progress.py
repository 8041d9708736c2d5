"""Words on the way: from the first process alone; a bar in a terminal and a line a minute in a pipe."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from mllmrec.progress import note, progress


def test_a_note_is_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    note("3 items have no title")
    assert capsys.readouterr() == ("", "3 items have no title\n")


def test_only_the_first_process_takes_notes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    note("3 items have no title")
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("Ranking", 2) as advance:
        advance(1)
        advance(1)
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_a_line_a_minute(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 0.0, 59.0, 59.0, 60.5, 60.5, 100.0, 100.0, 120.6, 120.6, 121.0])
    monkeypatch.setattr("mllmrec.progress.time.monotonic", lambda: next(times))
    with progress("Ranking", 5000) as advance:
        for _ in range(4):
            advance(1000)
    assert capsys.readouterr().err.splitlines() == ["Ranking: 2,000 of 5,000", "Ranking: 4,000 of 5,000"]


@pytest.mark.parametrize(("rank", "drawn"), [("0", True), ("1", False)])
def test_a_terminal_gets_a_bar_from_the_first_process(rank: str, drawn: bool) -> None:
    code = "from mllmrec.progress import progress\nwith progress('Ranking', 2) as advance: advance(1); advance(1)"
    ours, theirs = pty.openpty()
    environment = os.environ | {"RANK": rank, "TERM": "xterm", "COLUMNS": "80"}
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, stderr=theirs, env=environment
    )
    os.write(theirs, b"end")
    told = os.read(ours, 100_000)
    os.close(ours)
    os.close(theirs)
    assert result.stdout == b""
    assert (b"Ranking" in told) == drawn
