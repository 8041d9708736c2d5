"""Peak memory of `mllmrec evaluate` over the number of users, each count in a process of its own.

    python benchmarks/memory.py

A made-up dataset of 6,040 users and a small random backbone; the peak is what the operating system accounts for the
whole process. The promise is that it is flat: what grows is a few numbers a user.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mllmrec.data import prepare
from mllmrec.data.candidates import stage as candidates_stage
from mllmrec.demo.habits import write_world
from mllmrec.demo.world import World
from mllmrec.settings.data import CandidatesSettings, PrepareSettings
from mllmrec.settings.training import BackboneSettings
from mllmrec.storage.workspace import Workspace
from mllmrec.training import backbones

COUNTS = (755, 1510, 3020, 6040)


def peak_megabytes(command: list[str]) -> float:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"{command} failed"
    return usage.ru_maxrss / 1024


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        workspace, raw = Workspace(folder), Path(folder) / "raw"
        write_world(World(num_items=400, num_users=6040), raw)
        source = {"source": "pairs", "raw": str(raw), "titles": str(raw / "titles.csv")}
        prepare.run(PrepareSettings(dataset="world", root=folder, min_inter=6, **source), workspace)
        candidates_stage.run(CandidatesSettings(dataset="world", root=folder, min_inter=6), workspace)
        backbones.run(BackboneSettings(dataset="world", root=folder, width=32, layers=2, vocab=800), workspace)
        for count in COUNTS:
            flags = ["--dataset", "world", "--backbone", "tiny", "--min-inter", "6", "--limit", str(count)]
            command = [sys.executable, "-m", "mllmrec", "evaluate", "--root", folder, *flags]
            print(f"{count:5d} users: peak {peak_megabytes(command):.0f} MB", flush=True)


if __name__ == "__main__":
    main()
