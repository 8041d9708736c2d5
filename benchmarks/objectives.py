"""Objectives of fine-tuning at equal processor time: `answer`, `list` and `both`, with their validation curves.

    OMP_NUM_THREADS=1 python benchmarks/objectives.py --root demo-workspace --dataset demo --backbone backbone \
        --windows 1200 --lrs 4e-3 1e-3 -- --captions off --windows all --rank 16 --lora-dropout 0 --batch 4 --accum 1 \
        --min-inter 7 --max-prompt-tokens 295 --eval-users 250

What stands behind `--` are flags of `mllmrec sft` that all arms share. The seconds that a window takes are the
difference between two short runs; each arm is then given as many windows as fit into the seconds that `--windows`
windows take with `answer`. Of the learning rates the one with the best validation NDCG@3 is kept, for each objective;
the models of the three are ranked on test once, and compared with `answer`.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from mllmrec.evaluation.comparison.stage import run as compare
from mllmrec.records import Table
from mllmrec.settings.evaluation import CompareSettings
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import Workspace

OBJECTIVES, READINGS = ("answer", "list", "both"), 5


@dataclass(kw_only=True)
class Arm:
    """One training run: its windows, the processor seconds that it took in all, and its validation readings."""

    objective: str
    lr: str
    windows: int
    seconds: float
    curve: dict[int, dict[str, float]] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        return f"objective-{self.objective}-{self.lr}"

    @property
    def best(self) -> float:
        return max(reading["NDCG@3"] for reading in self.curve.values())


def mllmrec(options: argparse.Namespace, *words: str) -> float:
    """Run a command; the processor seconds that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "mllmrec", *words, "--root", options.root]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return float(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def train(options: argparse.Namespace, objective: str, lr: str, windows: int, tag: str, readings: int) -> float:
    """Fine-tune under a tag, from the start; the processor seconds that it took, with `readings` of validation."""
    shutil.rmtree(Workspace(options.root).checkpoint(options.dataset, tag), ignore_errors=True)
    steps = max(1, windows // options.rows // readings)
    words = ["sft", "--dataset", options.dataset, "--backbone", options.backbone, "--objective", objective]
    words += ["--lr", lr, "--limit", str(windows), "--epochs", "1", "--tag", tag, "--eval-steps", str(steps)]
    return mllmrec(options, *words, *options.shared)


def seconds_of_a_window(options: argparse.Namespace, objective: str) -> float:
    """By a short run and one with three times as many windows; both read validation twice."""
    few: int = options.rows * max(1, options.windows // options.rows // 8)
    short, long = (train(options, objective, options.lrs[0], few * times, "objective-try", 1) for times in (1, 3))
    shutil.rmtree(Workspace(options.root).checkpoint(options.dataset, "objective-try"))
    return (long - short) / (2 * few)


def trained(options: argparse.Namespace, objective: str, windows: int) -> list[Arm]:
    """An arm for each learning rate."""
    arms = []
    for lr in options.lrs:
        arm = Arm(objective=objective, lr=lr, windows=windows, seconds=0.0)
        arm.seconds = train(options, objective, lr, windows, arm.tag, READINGS)
        manifest = Manifest.read(Workspace(options.root).checkpoint(options.dataset, arm.tag))
        assert manifest is not None
        arm.curve = {int(step): reading for step, reading in manifest.details["validation"].items()}
        curve = "  ".join(f"{step}: {reading['NDCG@3']:.3f}" for step, reading in arm.curve.items())
        print(f"{arm.tag}: {windows} windows, {arm.seconds:.0f} s in all, NDCG@3 by step {curve}", flush=True)
        arms.append(arm)
    return arms


def show(table: Table) -> None:
    for row in (table.columns, *table.rows):
        print("| " + " | ".join(cell.replace("\n", " ") for cell in row) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", default=".")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--windows", type=int, default=1200, help="windows of the objective answer")
    parser.add_argument("--lrs", nargs="+", default=["4e-3"], help="learning rates to choose from on validation")
    parser.add_argument("--rows", type=int, default=4, help="windows of a step: --batch x --accum")
    parser.add_argument("--evaluate", default="", help="flags of `mllmrec evaluate`, in one word")
    parser.add_argument("shared", nargs=argparse.REMAINDER, help="-- and flags of `mllmrec sft` for all arms")
    options = parser.parse_args()
    options.shared = [word for word in options.shared if word != "--"]
    cost = {objective: seconds_of_a_window(options, objective) for objective in OBJECTIVES}
    print("processor seconds of a window:", json.dumps({name: round(own, 4) for name, own in cost.items()}), flush=True)
    budget, runs = options.windows * cost["answer"], []
    for objective in OBJECTIVES:
        windows = options.rows * round(budget / cost[objective] / options.rows)
        best = max(trained(options, objective, windows), key=lambda arm: arm.best)
        print(f"{objective}: the best is {best.tag}, NDCG@3 {best.best:.3f} on validation", flush=True)
        words = ["evaluate", "--dataset", options.dataset, "--backbone", options.backbone, "--tag", best.tag]
        mllmrec(options, *words, *options.evaluate.split())
        runs.append(max(Path(options.root).glob(f"result/{options.dataset}/{best.tag}/*/manifest.json")).parent)
    settings = CompareSettings.model_validate({"runs": tuple(map(str, runs)), "metrics": "HR@1,HR@3,NDCG@3"})
    for table in compare(settings, Workspace(options.root)).tables:
        show(table)


if __name__ == "__main__":
    main()
