"""What the small things of training cost, as ratios in one run, on the backbone that comes with the demo.

    OMP_NUM_THREADS=1 PYTHONPATH=tools python benchmarks/training.py

Writing prompts: with an encoder for all of them against a new one for each, which keeps no line and no place to begin
the search for what fits. Fine-tuning: a LoRA step forward and back as it trains, and with each of its three short cuts
left out: a last layer that makes nothing but keys and values of prompts, no padding mask (with one the last layer is
whole too), and a projection of labelled positions alone; then without all of them, and with dropout. GRPO on whole
lists: prompt and tree in one pass against the prompt first, and in passes of four. Processor seconds, medians, the ways
taken in turn.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from trl.trainer.utils import add_fused_lm_head

from demo_backbone.lessons import Shape
from demo_backbone.sheets import lessons
from mllmrec.data.sequences import Catalogue
from mllmrec.models.chat import Encoder
from mllmrec.models.huggingface import LoadedModel, load
from mllmrec.models.scoring import Read, score_rows
from mllmrec.models.tree_layout import read_after_prompts, read_whole
from mllmrec.models.tries import Row, make_rows
from mllmrec.pipeline.own import install_small_backbone
from mllmrec.records import Item, RankingExample
from mllmrec.storage.workspace import Workspace
from mllmrec.training.compact import IGNORED, answers_last, answers_only, without_padding_mask
from mllmrec.training.lora_targets import find_targets

QUESTION = Shape(history=6, candidates=10, cue="pair", caption_words=50)
BUDGET, LISTS, PROMPTS, TURNS = 295, 16, 300, 5
LENGTHS = (300, 1200, 2400)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        install_small_backbone(Path(folder) / "backbone")
        loaded = load(Workspace(folder), "backbone", device="cpu", dtype="float32")
        catalogue, captions, examples = questions(PROMPTS)

        def encoder() -> Encoder:
            return Encoder.make(loaded.chat, catalogue, captions, BUDGET)

        kept = encoder()
        ways: dict[str, Callable[[], Any]] = {
            "lines kept": lambda: [kept.scoring_task(example) for example in examples],
            "lines written anew": lambda: [encoder().scoring_task(example) for example in examples],
        }
        tell("prompts with their answers", ways, PROMPTS)
        rows = make_rows([kept.scoring_task(example) for example in examples[:LISTS]])
    for longest in LENGTHS:
        fine_tuning(loaded, longest)
    whole_lists(loaded, rows)


def questions(count: int) -> tuple[Catalogue, dict[str, str], list[RankingExample]]:
    """Lessons as one catalogue: their ids are made different."""
    titles: dict[str, str] = {}
    captions: dict[str, str] = {}
    examples = []
    for number, lesson in enumerate(lessons(1, "benchmark", "training", QUESTION, count)):
        name = {item: f"{number}-{item}" for item in lesson.titles}
        titles |= {name[item]: title for item, title in lesson.titles.items()}
        captions |= {name[item]: caption for item, caption in lesson.captions.items()}
        example = lesson.example
        examples.append(
            RankingExample(
                example_id=str(number),
                user_id=str(number),
                history=tuple(name[item] for item in example.history),
                candidates=tuple(name[item] for item in example.candidates),
                target_id=name[example.target_id],
                split="train",
            )
        )
    return Catalogue(Item(item_id=item, title=title) for item, title in titles.items()), captions, examples


def fine_tuning(loaded: LoadedModel, longest: int) -> None:
    """A step of SFT on four rows of random tokens, whose lengths differ by a fiftieth each, about as the demo's prompts
    do; the loss is on the last ten of each."""
    lengths = [longest - number * longest // 50 for number in range(4)]
    mask = torch.tensor([[1] * length + [0] * (longest - length) for length in lengths])
    ids = mask * torch.randint(5, 1900, mask.shape, generator=torch.Generator().manual_seed(0))
    labels = torch.full_like(ids, IGNORED)
    for row, length in enumerate(lengths):
        labels[row, length - 10 : length] = ids[row, length - 10 : length]

    def step(*blocks: Callable[[Any], AbstractContextManager[None]], dropout: float = 0.0) -> Callable[[], None]:
        model = copy.deepcopy(loaded.model)
        add_fused_lm_head(model)
        adapted = get_peft_model(model, find_targets(model).config(r=16, lora_alpha=16, lora_dropout=dropout)).train()

        def run() -> None:
            with ExitStack() as entered:
                for block in blocks:
                    entered.enter_context(block(adapted))
                adapted(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True).loss.backward()

        return run

    def only_answers(_model: Any) -> AbstractContextManager[None]:
        return answers_only()

    ways = {
        "as it trains": step(only_answers, without_padding_mask, answers_last),
        "last layer whole": step(only_answers, without_padding_mask),
        "padding mask": step(only_answers, answers_last),
        "every position projected": step(without_padding_mask, answers_last),
        "none of the three": step(),
        "none of the three, and dropout": step(dropout=0.05),
    }
    tell(f"fine-tuning, rows of up to {longest} tokens", ways, len(lengths))


def whole_lists(loaded: LoadedModel, rows: list[Row]) -> None:
    """The log-probability of the first candidate of each list, forward and back."""
    adapted = get_peft_model(loaded.model, find_targets(loaded.model).config(r=16, lora_alpha=32)).train()

    def step(size: int, read: Read) -> Callable[[], None]:
        def run() -> None:
            for start in range(0, len(rows), size):
                scores = score_rows(adapted, rows[start : start + size], read)
                total: Any = torch.stack([scores_C.log_softmax(0)[0] for scores_C in scores]).sum()
                total.backward()

        return run

    ways = {
        "prompt first, four at a time": step(4, read_after_prompts),
        "prompt first": step(len(rows), read_after_prompts),
        "in one": step(len(rows), read_whole),
    }
    tell("GRPO on whole lists, prompts", ways, len(rows))


def tell(what: str, ways: Mapping[str, Callable[[], Any]], count: int) -> None:
    """Median processor milliseconds of one, and how many times the first way's each of the others takes."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(TURNS + 1):
        for way, run in ways.items():
            started = time.process_time()
            run()
            if turn:
                seconds[way].append(time.process_time() - started)
    medians = {way: statistics.median(taken) for way, taken in seconds.items()}
    first = next(iter(medians.values()))
    told = ", ".join(f"{way} {1000 * taken / count:.1f} ms ({taken / first:.2f} x)" for way, taken in medians.items())
    print(f"{what}: {told}", flush=True)


if __name__ == "__main__":
    main()
