"""How long the report takes: 6,040 users, six RUNs, and the audit of all files.

    python benchmarks/report.py

The page is written by a process of its own, whose whole time and peak memory are told, start-up included. The promise
is under 10 s and 1 GB. Processor time is told beside, because it says the same on a busy machine.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mllmrec.data import prepare
from mllmrec.data.candidates import stage as candidates_stage
from mllmrec.data.candidates.drawing import read_candidates
from mllmrec.data.draws import uniform
from mllmrec.demo.habits import write_world
from mllmrec.demo.world import World
from mllmrec.evaluation.baselines import stage as baselines_stage
from mllmrec.evaluation.ranking.rankings import ranking_of
from mllmrec.evaluation.ranking.runs import run_folder, write_run
from mllmrec.settings.data import CandidatesSettings, PrepareSettings
from mllmrec.settings.evaluation import BaselinesSettings, EvaluateSettings
from mllmrec.storage.workspace import Workspace, sha256

ROUNDS = 3
MODELS = ("backbone", "sft", "grpo")
PROGRAM = """
import json, resource, sys, time
from mllmrec.storage.workspace import Workspace
from mllmrec.settings.evaluation import ReportSettings
from mllmrec.stages import run_report
run_report(ReportSettings(dataset="world", root=sys.argv[1]), Workspace(sys.argv[1]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"processor": time.process_time(), "peak": peak}))
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_world(Path(folder))
        rounds = [measure(folder) for _ in range(ROUNDS)]
        for name, unit in (("wall", "s"), ("processor", "s"), ("peak", "MB")):
            values = [each[name] for each in rounds]
            print(f"{name}: median {statistics.median(values):.1f} {unit} ({min(values):.1f} to {max(values):.1f})")


def make_world(root: Path) -> None:
    """A made-up dataset, three baselines, and three RUNs whose scores are drawn by hash."""
    workspace = Workspace(root)
    write_world(World(num_items=3416, num_users=6040, length=(20, 60)), root / "raw")
    source = {"source": "pairs", "raw": str(root / "raw"), "titles": str(root / "raw" / "titles.csv")}
    prepare.run(PrepareSettings(dataset="world", root=str(root), **source), workspace)
    candidates_stage.run(CandidatesSettings(dataset="world", root=str(root)), workspace)
    baselines_stage.run(
        BaselinesSettings(dataset="world", root=str(root), names=("random", "popularity", "markov")), workspace
    )
    path = workspace.dataset("world").candidates("test", "uni9", 10, 42)
    examples = read_candidates(path)
    for strength, name in enumerate(MODELS):
        settings = EvaluateSettings(dataset="world", root=str(root))
        write_run(
            run_folder(settings, workspace, name, path),
            (
                ranking_of(
                    example,
                    [
                        uniform(1, name, f"{example.example_id} {item}") + 0.2 * strength * (item == example.target_id)
                        for item in example.candidates
                    ],
                )
                for example in examples
            ),
            settings,
            name=name,
            candidates=path,
            inputs={"candidates": sha256(path)},
            started=time.monotonic(),
            seconds=1.0,
        )


def measure(folder: str) -> dict[str, float]:
    """Seconds by the clock and of the processor, and the peak in megabytes, of one report."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", PROGRAM, folder], capture_output=True, text=True, check=True)
    return {"wall": time.perf_counter() - started, **json.loads(done.stdout.splitlines()[-1])}


if __name__ == "__main__":
    main()
