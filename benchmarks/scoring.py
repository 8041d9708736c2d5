"""Users ranked a second: exact scores of all candidates beside generating answers, on the same model and users.

    python benchmarks/scoring.py --root WORKSPACE --dataset NAME --tag CHECKPOINT --users 64 --num-neg 9

Five ways in turn, on one process: exact scores by the `tree` layout and by the `cache` layout, whole texts in batches
(`apart`), one forward pass for each candidate (what a plain implementation does), and beam search for three answers,
one user at a time (`--method generate`). `--backbone FOLDER` takes an untrained model in place of a checkpoint.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from mllmrec.data.candidates.drawing import freeze
from mllmrec.data.prompts import PromptFormat
from mllmrec.data.sequences import Interactions
from mllmrec.models.base import ScoringTask
from mllmrec.models.chat import Encoder
from mllmrec.models.huggingface import load
from mllmrec.models.ranker import BATCH_TOKENS
from mllmrec.models.scoring import LAYOUTS, HuggingFaceScorer
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import Workspace

ROUNDS = 3


def scored(scorer: HuggingFaceScorer, tasks: list[ScoringTask]) -> list[tuple[int, list[float]]]:
    return list(scorer.score(tasks))


@torch.no_grad()
def naive(model: torch.nn.Module, task: ScoringTask) -> list[float]:
    """One forward pass for each candidate."""
    scores = []
    for answer in task.answers_C:
        ids = torch.tensor([[*task.prompt_T, *answer]])
        logp = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
        start = len(task.prompt_T) - 1
        scores.append(sum(float(logp[start + place, token]) for place, token in enumerate(answer)))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=".")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--tag", default="sft")
    parser.add_argument("--backbone", default="")
    parser.add_argument("--users", type=int, default=64)
    parser.add_argument("--num-neg", type=int, default=9)
    parser.add_argument("--without", nargs="*", default=(), help="ways to leave out")
    options = parser.parse_args()

    workspace = Workspace(options.root)
    folder = Path(options.backbone) if options.backbone else workspace.checkpoint(options.dataset, options.tag)
    trained = PromptFormat.of(Manifest.read(folder))
    window, budget = (trained.window, trained.max_prompt_tokens) if trained else (10, 4096)
    loaded = load(workspace, folder, device="cpu")
    interactions = Interactions.load(workspace, options.dataset)
    encoder = Encoder.make(loaded.chat, interactions.catalogue, {}, budget)
    examples, _ = freeze(interactions, "test", window=window, num_neg=options.num_neg, seed=42)
    tasks = [encoder.scoring_task(example) for example in examples[: options.users]]
    generator = loaded.generator()

    ways: dict[str, tuple[int, Callable[[list[ScoringTask]], object]]] = {
        layout: (len(tasks), partial(scored, loaded.scorer(BATCH_TOKENS, layout=layout))) for layout in LAYOUTS
    }
    ways |= {
        "naive": (max(1, len(tasks) // 8), lambda some: [naive(loaded.model, task) for task in some]),
        "generate": (
            max(1, len(tasks) // 8),
            lambda some: [generator.generate([task.prompt_T], num_answers=3, max_new_tokens=64) for task in some],
        ),
    }
    ways = {name: way for name, way in ways.items() if name not in options.without}
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (count, work) in ways.items():
            started = time.perf_counter()
            work(tasks[:count])
            speeds[name].append(count / (time.perf_counter() - started))
    tokens = statistics.mean(len(task.prompt_T) for task in tasks)
    size, candidates = loaded.model.num_parameters() / 1e6, options.num_neg + 1
    print(f"{size:.2f}M parameters, prompts of {tokens:.0f} tokens, {candidates} candidates")
    for name, values in speeds.items():
        ratios = [fast / slow for fast, slow in zip(speeds["tree"], values, strict=True)]
        print(f"{name:9s} {statistics.median(values):7.2f} users/s; tree {statistics.median(ratios):.2f} times as fast")


if __name__ == "__main__":
    main()
