"""A lock keeps every other process out, lets nobody wait for the dead, and hands over to those who wait."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mllmrec.errors import ArtifactError
from mllmrec.locks import locked


def test_a_second_owner_is_refused_and_the_next_one_let_in(tmp_path: Path) -> None:
    artifact = tmp_path / "folder" / "rankings.jsonl"
    with (
        locked(artifact),
        pytest.raises(ArtifactError, match=r"rankings.jsonl is being made by process \d+, started \d{4}-\d\d-\d\d"),
    ):
        locked(artifact).__enter__()
    with locked(artifact):
        assert (tmp_path / "folder" / "rankings.jsonl.lock").exists()
    assert not list((tmp_path / "folder").iterdir())


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
