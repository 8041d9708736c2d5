"""Words on the way: from the first process alone; a bar in a terminal and silence in a pipe."""

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
