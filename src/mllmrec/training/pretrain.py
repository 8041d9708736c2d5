"""Two short pre-training games that make a small backbone ready to be fine-tuned.

Copying: random segments of tokens that come again after a random gap, with the loss on the repetition. A model that
has seen no text learns to look back and copy, which answering from a candidate list needs.

Sequences: the train split's sequences as text, one item a line, with the loss on every token. One window of
fine-tuning has one answer to learn from; here each item of the sequence is one. Most lines hold the id alone, some
the title too, which is enough to learn both what comes next and what it is called. Validation targets are left out,
as everywhere.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch

from mllmrec.backends.chat import Chat
from mllmrec.data.draws import generator
from mllmrec.data.prompts import Renderer
from mllmrec.data.sequences import Interactions
from mllmrec.progress import note, progress
from mllmrec.settings.backbone import BackboneSettings

IGNORED = -100
SEQUENCE_TOKENS = 256
SHORTEST_STRETCH = 20
TITLE_SHARE = 0.3
WARMUP_SHARE, DECAY_SHARE = 0.05, 0.2
Batch = tuple[torch.Tensor, torch.Tensor]


def pretrain(model: Any, tokenizer: Any, interactions: Interactions, settings: BackboneSettings) -> dict[str, float]:
    """Play both games for the steps the settings name and return the last mean loss of each, in nats a token."""
    vocabulary = range(len(tokenizer.added_tokens_decoder), len(tokenizer))
    games: list[tuple[str, int, Callable[[random.Random], Batch]]] = [
        ("copying", settings.copy_steps, lambda rng: copy_batch(rng, vocabulary, settings.batch)),
        ("sequences", settings.sequence_steps, _sequence_game(tokenizer, interactions, settings.batch)),
    ]
    return {name: _play(model, name, steps, draw, settings.lr, settings.seed) for name, steps, draw in games if steps}


def copy_batch(rng: random.Random, vocabulary: Sequence[int], size: int) -> Batch:
    """input_ids and labels (B, T): segment, gap, segment again, with labels on the second copy but its first token."""
    length, gap = rng.randint(8, 32), rng.randint(1, 32)
    rows, labels = [], []
    for _ in range(size):
        segment = rng.choices(vocabulary, k=length)
        rows.append([*segment, *rng.choices(vocabulary, k=gap), *segment])
        labels.append([IGNORED] * (length + gap + 1) + segment[1:])
    return torch.tensor(rows), torch.tensor(labels)


def _sequence_game(tokenizer: Any, interactions: Interactions, size: int) -> Callable[[random.Random], Batch]:
    renderer = Renderer(catalogue=interactions.catalogue, encode=str.split, max_prompt_tokens=1)
    encode, lines = Chat(tokenizer).encode, interactions.fit_lines()
    items = sorted({item for line in lines for item in line.items})
    short = {item: encode(f"[ITEM_{item}]\n") for item in items}
    long = {item: encode(renderer.answer(item) + "\n") for item in items}

    def row(rng: random.Random) -> list[int]:
        sequence = rng.choice(lines).items
        start = rng.randrange(max(1, len(sequence) - SHORTEST_STRETCH))
        pieces = ((long if rng.random() < TITLE_SHARE else short)[item] for item in sequence[start:])
        return list(itertools.islice(itertools.chain.from_iterable(pieces), SEQUENCE_TOKENS))

    return lambda rng: _padded([row(rng) for _ in range(size)])


def _padded(rows: Sequence[list[int]]) -> Batch:
    """Rows padded on the right; labels are the tokens themselves."""
    width = max(map(len, rows))
    input_ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    labels = torch.tensor([row + [IGNORED] * (width - len(row)) for row in rows])
    return input_ids, labels


def _play(model: Any, name: str, steps: int, draw: Callable[[random.Random], Batch], lr: float, seed: int) -> float:
    """AdamW; the mean loss of the last tenth of the steps.

    The learning rate rises, stays, and falls only at the end: copying forms late and all at once, and a rate that
    falls from the start is too low by then.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01, betas=(0.9, 0.98))
    warmup, decay = max(1, round(WARMUP_SHARE * steps)), max(1, round(DECAY_SHARE * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / warmup, max(0.02, (steps - step) / decay))
    )
    losses = []
    model.train()
    with progress(f"pre-training: {name}", steps) as advance:
        for step in range(steps):
            input_ids, labels = draw(generator(seed, f"pretrain/{name}", str(step)))
            loss = model(input_ids=input_ids, labels=labels, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            advance(1)
            if (step + 1) % max(1, steps // 10) == 0:
                note(f"{name}: step {step + 1} of {steps}, loss {_tail_mean(losses, steps):.3f}")
    model.eval()
    return _tail_mean(losses, steps)


def _tail_mean(losses: Sequence[float], steps: int) -> float:
    tail = losses[-max(1, steps // 10) :]
    return sum(tail) / len(tail)
