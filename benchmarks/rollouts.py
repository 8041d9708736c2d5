"""Prompts trained on a second by each way of getting answers, on the same small model and the same prompts.

    OMP_NUM_THREADS=1 python benchmarks/rollouts.py --root WORKSPACE --dataset NAME --sft-tag CHECKPOINT

Each way trains for a few steps of eight prompts with eight answers each, in a checkpoint that is removed afterwards; a
step is everything from the rendering of prompts to the update. The first step of each is left out. Processor seconds of
the process are told beside those of the clock, because the machine may be busy.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from mllmrec.data.sequences import Interactions
from mllmrec.models.chat import Encoder
from mllmrec.models.huggingface import load
from mllmrec.settings.training import GrpoSettings
from mllmrec.storage.workspace import Workspace
from mllmrec.training.compact import answers_only
from mllmrec.training.datasets import training_examples
from mllmrec.training.grpo import stage as grpo
from mllmrec.training.lora_targets import lora_for
from mllmrec.training.setup import TrainerParts, as_trained, full_model

WAYS = ("generate", "candidates", "exact")
PROMPTS, SIZE = 8, 8


class Stopwatch(TrainerCallback):
    """The time at the end of every step."""

    def __init__(self) -> None:
        self.clock: list[float] = []
        self.processor: list[float] = []

    def on_step_end(self, *_arguments: Any, **_columns: Any) -> None:
        self.clock.append(time.perf_counter())
        self.processor.append(time.process_time())


def measure(way: str, options: argparse.Namespace, folder: Path) -> tuple[float, float]:
    """(prompts a second, processor seconds of a prompt), medians over the steps."""
    workspace = Workspace(options.root)
    asked = GrpoSettings(
        dataset=options.dataset,
        sft_tag=options.sft_tag,
        root=options.root,
        rollouts=way,
        limit=PROMPTS * (options.steps + 1),
        batch=PROMPTS * SIZE,
        accum=1,
        num_generations=SIZE,
        max_completion_length=options.longest,
        device="cpu",
    )
    base = full_model(asked, workspace)
    settings = as_trained(asked, base)
    interactions = Interactions.load(workspace, options.dataset)
    loaded = load(workspace, base, device="cpu")
    encoder = Encoder.make(loaded.chat, interactions.catalogue, {}, settings.max_prompt_tokens)
    examples = training_examples(settings, workspace, interactions, settings.min_inter)
    lora = lora_for(str(base), rank=settings.rank, alpha=grpo.LORA_ALPHA, dropout=0.0)
    trainer = grpo.make_trainer(
        TrainerParts(
            settings=settings,
            folder=folder,
            loaded=loaded,
            encoder=encoder,
            examples=examples,
            steps=options.steps + 1,
            lora=lora,
        )
    )
    watch = Stopwatch()
    for printer in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(printer)
    trainer.add_callback(watch)
    with answers_only():
        trainer.train()
    clock, processor = (
        statistics.median(after - before for before, after in itertools.pairwise(times))
        for times in (watch.clock, watch.processor)
    )
    return PROMPTS / clock, processor / PROMPTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=".")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--sft-tag", required=True)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--longest", type=int, default=32, help="longest answer that is written, in tokens")
    options = parser.parse_args()
    seconds = {}
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            speed, seconds[way] = measure(way, options, Path(folder))
        gain = seconds["generate"] / seconds[way]
        print(f"{way:10s} {speed:6.2f} prompts/s, {seconds[way]:.3f} processor s a prompt, {gain:.1f} x generate")


if __name__ == "__main__":
    main()
