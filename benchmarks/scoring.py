"""Users ranked a second: exact scores of all candidates beside generating answers, on the same model and users.

    python benchmarks/scoring.py --root WORKSPACE --dataset NAME --tag CHECKPOINT --users 64

Three ways in turn, on one process: all candidates in one forward pass (`--method score`), one forward pass for each
candidate (what a plain implementation does), and beam search for three answers, one user at a time (`--method
generate`). The promise is that scoring is at least 8 times as fast as generating.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from mllmrec.data.candidates.drawing import freeze
from mllmrec.data.prompts import PromptFormat
from mllmrec.data.sequences import Interactions
from mllmrec.models.base import ScoringTask
from mllmrec.models.chat import Encoder
from mllmrec.models.huggingface import load
from mllmrec.models.ranker import BATCH_TOKENS
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import Workspace

ROUNDS = 3


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
    parser.add_argument("--tag", required=True)
    parser.add_argument("--users", type=int, default=64)
    options = parser.parse_args()

    workspace = Workspace(options.root)
    folder = workspace.checkpoint(options.dataset, options.tag)
    trained = PromptFormat.of(Manifest.read(folder))
    assert trained is not None, f"{folder} has no finished manifest"
    loaded = load(workspace, folder, device="cpu")
    interactions = Interactions.load(workspace, options.dataset)
    encoder = Encoder.make(loaded.chat, interactions.catalogue, {}, trained.max_prompt_tokens)
    examples, _ = freeze(interactions, "test", window=trained.window, num_neg=9, seed=42)
    tasks = [encoder.scoring_task(example) for example in examples[: options.users]]
    scorer, generator = loaded.scorer(BATCH_TOKENS), loaded.generator()

    ways: dict[str, tuple[int, Callable[[list[ScoringTask]], object]]] = {
        "score": (len(tasks), lambda some: list(scorer.score(some))),
        "naive": (max(1, len(tasks) // 8), lambda some: [naive(loaded.model, task) for task in some]),
        "generate": (
            max(1, len(tasks) // 8),
            lambda some: [generator.generate([task.prompt_T], num_answers=3, max_new_tokens=64) for task in some],
        ),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (count, work) in ways.items():
            started = time.perf_counter()
            work(tasks[:count])
            speeds[name].append(count / (time.perf_counter() - started))
    tokens = statistics.mean(len(task.prompt_T) for task in tasks)
    print(f"{loaded.model.num_parameters() / 1e6:.2f}M parameters, prompts of {tokens:.0f} tokens, 10 candidates")
    for name, values in speeds.items():
        ratios = [fast / slow for fast, slow in zip(speeds["score"], values, strict=True)]
        print(
            f"{name:9s} {statistics.median(values):7.2f} users/s; score {statistics.median(ratios):.1f} times as fast"
        )


if __name__ == "__main__":
    main()
