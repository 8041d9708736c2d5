"""`PYTHONPATH=tools python -m demo_backbone.pretrain_exam FOLDER`: what a backbone answers in worlds it has never seen.

It is asked as the product asks: candidates are ranked by the exact log-probability of their whole answer. Beside HR@1
stands the probability of all candidates' answers together, and the share of freely sampled answers that name one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from demo_backbone.lessons import CAPTION_CUES, CUES, Shape
from demo_backbone.sheets import Desk, lessons
from mllmrec.data.prompts import parse
from mllmrec.models.huggingface import LoadedModel, load
from mllmrec.models.ranker import scorer_of
from mllmrec.storage.workspace import Workspace

QUESTIONS = 200
SAMPLED = 64
ANSWER_TOKENS = 24


@dataclass(frozen=True, kw_only=True)
class Mark:
    """`hit` is HR@1, `mass` the mean probability of all candidates together, `valid` the share of sampled answers
    that name a candidate (None where none were sampled)."""

    name: str
    chance: float
    hit: float
    mass: float
    valid: float | None


def examine(folder: Path, seed: int, questions: int = QUESTIONS, sampled: int = SAMPLED) -> Iterator[Mark]:
    """A mark for each kind of question."""
    loaded = load(Workspace(folder.parent), folder, device="cpu", dtype="float32")
    for name, shape in papers():
        yield mark(loaded, name, shape, seed, questions, sampled)


def papers() -> Iterator[tuple[str, Shape]]:
    """The kinds of questions: lists of different length, every cue without captions and with, and noise."""
    usual = Shape(history=6, candidates=10)
    for count in (2, 4, 6, 10):
        yield f"title, {count} candidates", replace(usual, candidates=count)
    yield "title, a fifth of the history noise", replace(usual, noise=0.2)
    for cue in CUES[1:]:
        if cue not in CAPTION_CUES:
            yield f"{cue}, no captions", replace(usual, cue=cue)
    for cue in CUES:
        yield f"{cue}, captions of 6 words", replace(usual, cue=cue, caption_words=6)
    yield "caption, captions of 12 words", replace(usual, cue="caption", caption_words=12)
    yield "both, captions of 12 words, noise", replace(usual, cue="both", caption_words=12, noise=0.2)


def mark(loaded: LoadedModel, name: str, shape: Shape, seed: int, questions: int, sampled: int) -> Mark:
    """Ask `questions` questions of a shape, and have `sampled` of them answered freely."""
    desk = Desk(loaded.chat)
    asked = lessons(seed, "pretrain/exam", name, shape, questions)
    tasks = [desk.encoder(lesson).scoring_task(lesson.example) for lesson in asked]
    hits, masses = [], []
    for index, scores in scorer_of(loaded.model).score(tasks):
        example = asked[index].example
        hits.append(example.candidates[int(np.argmax(scores))] == example.target_id)
        masses.append(float(np.exp(np.asarray(scores, dtype=np.float64)).sum()))
    texts = sample(loaded, [task.prompt_T for task in tasks[:sampled]], seed) if sampled else []
    valid = [parse(text).item_id in lesson.example.candidates for text, lesson in zip(texts, asked, strict=False)]
    return Mark(
        name=name,
        chance=1 / shape.candidates,
        hit=float(np.mean(hits)),
        mass=float(np.mean(masses)),
        valid=float(np.mean(valid)) if valid else None,
    )


@torch.no_grad()
def sample(loaded: LoadedModel, prompts: Sequence[Sequence[int]], seed: int) -> list[str]:
    """One answer to each prompt, drawn at temperature 1."""
    width, pad = max(map(len, prompts)), loaded.tokenizer.pad_token_id
    options: dict[str, Any] = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        output = loaded.model.generate(
            input_ids=torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]),
            attention_mask=torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]),
            max_new_tokens=ANSWER_TOKENS,
            eos_token_id=loaded.chat.end_id,
            pad_token_id=pad,
            **options,
        )
    texts: list[str] = loaded.tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
    return texts


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m demo_backbone.pretrain_exam", description="Examine a backbone.")
    parser.add_argument("folder", type=Path, help="folder of the model")
    parser.add_argument("--seed", type=int, default=7, help="seed of the worlds; pre-training has others")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="questions of each kind")
    parser.add_argument("--sampled", type=int, default=SAMPLED, help="of them answered freely")
    chosen = parser.parse_args(arguments)
    print("| questions | chance | HR@1 | mass on the list | sampled answers in the list |\n|---|---|---|---|---|")
    for one in examine(chosen.folder.resolve(), chosen.seed, chosen.questions, chosen.sampled):
        valid = "" if one.valid is None else f"{one.valid:.2f}"
        print(f"| {one.name} | {one.chance:.2f} | {one.hit:.3f} | {one.mass:.3f} | {valid} |", flush=True)


if __name__ == "__main__":
    main()
