"""How long freezing candidate lists takes: 6,040 users, 3,416 items, 99 negatives each.

    python benchmarks/candidates.py

Reads the dataset, draws, and writes the file, through the same stage as `mllmrec candidates`. The promise is under
10 s. Nine negatives are timed beside it, in turn.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from mllmrec.data import prepare
from mllmrec.data.candidates import stage as candidates_stage
from mllmrec.demo.habits import write_world
from mllmrec.demo.world import World
from mllmrec.settings.data import CandidatesSettings, PrepareSettings
from mllmrec.storage.workspace import Workspace

ROUNDS = 5


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_world(World(num_items=3416, num_users=6040, length=(20, 60)), root / "raw")
        source = {"source": "pairs", "raw": str(root / "raw"), "titles": str(root / "raw" / "titles.csv")}
        prepare.run(PrepareSettings(dataset="world", root=folder, **source), Workspace(root))
        times: dict[int, list[float]] = {9: [], 99: []}
        for _ in range(ROUNDS):
            for num_neg, values in times.items():
                settings = CandidatesSettings(dataset="world", root=folder, num_neg=num_neg, overwrite=True)
                started = time.perf_counter()
                summary = candidates_stage.run(settings, Workspace(root))
                values.append(time.perf_counter() - started)
                assert summary.facts["examples"] == 6040
        for num_neg, values in times.items():
            median = statistics.median(values)
            print(f"6,040 users x {num_neg} negatives: median {median:.2f} s ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
