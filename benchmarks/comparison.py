"""How long statistics take: intervals, tests and a whole comparison of six RUNs of 6,040 users, and verifying one.

    python benchmarks/comparison.py

Rankings are made up: ten candidates, a target that comes out the better the better the RUN. The promises are under a
second for the 10,000 resamples of one RUN's metrics, and under 10 s and 1 GB for comparing six RUNs, files read
included. Processor seconds are told, and the wall clock beside them.
"""

from __future__ import annotations

import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mllmrec.data.candidates.drawing import candidate_rows
from mllmrec.evaluation.comparison import stage as compare
from mllmrec.evaluation.comparison.statistics import bootstrap, compare_over_seeds, randomisation_p_values
from mllmrec.evaluation.ranking.rankings import ranking_of
from mllmrec.evaluation.ranking.runs import candidate_file, run_folder, write_run
from mllmrec.evaluation.verifying import stage as verification
from mllmrec.records import RankingExample
from mllmrec.settings.evaluation import BaselinesSettings, CompareSettings, VerifySettings
from mllmrec.storage.workspace import Workspace, sha256, write_jsonl

USERS, RUNS, METRICS, ROUNDS = 6040, 6, 7, 5


def main() -> None:
    rng = np.random.default_rng(1)
    values = rng.random((USERS, METRICS))
    differences = rng.normal(0.01, 1, (USERS, METRICS * (RUNS - 1)))
    seeds = [rng.random((USERS, METRICS)) for _ in range(6)]
    tell("intervals of one RUN's seven metrics", lambda: bootstrap(values))
    tell("intervals of 35 paired differences", lambda: bootstrap(differences))
    tell("randomisation tests of 35 paired differences", lambda: randomisation_p_values(differences))
    tell("three seeds against three, seven metrics", lambda: compare_over_seeds(seeds[:3], seeds[3:]))
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(folder)
        folders = tuple(str(path) for path in write_runs(workspace))
        several = CompareSettings(runs=folders)
        tell("compare of six RUNs, files read included", lambda: compare.run(several, workspace))
        tell("verify of one RUN", lambda: verification.run(VerifySettings(runs=folders[:1]), workspace))
    print(f"peak of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def tell(what: str, work: Callable[[], object]) -> None:
    """Time some work several times and print the median of processor and wall seconds."""
    processor, wall = [], []
    for _ in range(ROUNDS):
        begun = time.process_time(), time.perf_counter()
        work()
        processor.append(time.process_time() - begun[0])
        wall.append(time.perf_counter() - begun[1])
    print(f"{what}: {statistics.median(processor):.2f} s of processor, {statistics.median(wall):.2f} s of wall clock")


def write_runs(workspace: Workspace) -> list[Path]:
    """Six RUNs of one candidate file, each a little better than the one before."""
    rng, items = random.Random(1), [str(item) for item in range(10)]
    examples = [
        RankingExample(
            example_id=f"{user:016x}",
            user_id=str(user),
            history=("x", "y"),
            candidates=tuple(items),
            target_id=items[user % 10],
            split="test",
        )
        for user in range(USERS)
    ]
    settings = BaselinesSettings(dataset="made", root=str(workspace.root), min_inter=3, names=("random",))
    write_jsonl(workspace.dataset("made").candidates("test", "uni9", 3, 42), candidate_rows(examples))
    candidates = candidate_file(settings, workspace)
    folders = []
    for run in range(RUNS):
        rankings = [
            ranking_of(each, [rng.random() + 0.05 * run * (item == each.target_id) for item in items])
            for each in examples
        ]
        folders.append(run_folder(settings, workspace, f"run{run}", candidates))
        inputs = {"candidates": sha256(candidates)}
        write_run(
            folders[-1],
            rankings,
            settings,
            name=f"run{run}",
            candidates=candidates,
            inputs=inputs,
            started=time.monotonic(),
            seconds=1.0,
        )
    return folders


if __name__ == "__main__":
    main()
