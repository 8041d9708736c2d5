"""Freed memory stays with the process where there is a glibc, and nothing happens elsewhere."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mllmrec.backends import freed_memory

FAULTS = """
import resource, sys
from mllmrec.backends.freed_memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    blocks = [b"x" * 2**23 for _ in range(4)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or not freed_memory.keep_freed_memory(), reason="no glibc")
def test_blocks_made_again_and_again_are_fetched_once() -> None:
    """Four blocks of 8 MiB are 8,192 pages of 4 KiB; made 20 times they are fetched 20 times, or once."""

    def faults(kept: str) -> int:
        made = subprocess.run([sys.executable, "-c", FAULTS, kept], capture_output=True, text=True, check=True)
        return int(made.stdout)

    assert faults("kept") < faults("given back") / 10


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not freed_memory.keep_freed_memory()
