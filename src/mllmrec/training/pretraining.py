"""Two short pre-training games that make a small backbone ready to be fine-tuned, and the state to resume them from.

Copying: random segments of tokens that come again after a random gap, with the loss on the repetition. A model that
has seen no text learns to look back and copy, which answering from a candidate list needs.

Sequences: the train split's sequences as text, one item a line, with the loss on every token. One window of
fine-tuning has one answer to learn from; here every item of the sequence is one. Most lines hold the id alone, some
the title too, which is enough to learn both what comes next and what it is called; a model that can't copy learns
sooner with more titles, whose words make the ids of like items alike. After copying, half of the rows have a menu: a
history, a shuffled list of what came next among random items, and then what came next, in order. It is a first lesson
in choosing from a list; a model that can't copy yet is only held back by it. Validation targets are left out.

The state is saved every half minute, and a stopped run resumes to the same weights. Weights and the optimizer's moments
lie in one safetensors file; the position in the loop, and what must be the same for it to resume, in a JSON file beside
it that is written last. Files that don't belong together count as none.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mllmrec.data.draws import generator, in_fold
from mllmrec.data.prompts import Renderer
from mllmrec.data.sequences import Catalogue, Interactions, Line
from mllmrec.models.chat import Chat
from mllmrec.progress import note, progress
from mllmrec.settings.training import BackboneSettings
from mllmrec.storage.workspace import read_json, sha256, write_json

IGNORED = -100
SEQUENCE_TOKENS = 256
SHORTEST_STRETCH = 20
MENU_SHARE = 0.5
HISTORY_ITEMS, COMING_ITEMS, MENU_ITEMS = 9, 4, 10
WARMUP_SHARE, DECAY_SHARE = 0.05, 0.2
SAVE_SECONDS = 30.0
Batch = tuple[torch.Tensor, torch.Tensor]

TENSORS, POSITION = "state.safetensors", "state.json"


def pretrain(
    model: Any,
    tokenizer: Any,
    interactions: Interactions,
    settings: BackboneSettings,
    state: Path,
    inputs: Mapping[str, str],
) -> dict[str, float]:
    """Play both games for the steps the settings name and return the last mean loss of each, in nats a token.

    The folder `state` holds what an interrupted run with the same settings and `inputs` goes on from, and is gone when
    all is done.
    """
    menu_share = MENU_SHARE if settings.copy_steps else 0.0
    vocabulary = range(len(tokenizer.added_tokens_decoder), len(tokenizer))
    lines = [line for line in interactions.training_lines() if in_fold(line.user_id, settings.fold)]
    games: list[tuple[str, int, Callable[[random.Random], Batch]]] = [
        ("copying", settings.copy_steps, lambda rng: copy_batch(rng, vocabulary, settings.batch)),
        (
            "sequences",
            settings.sequence_steps,
            SequenceGame(tokenizer, interactions.catalogue, lines, settings.batch, menu_share, settings.title_share),
        ),
    ]
    plan = {**settings.result_settings(), "inputs": dict(inputs)}
    reached = None if settings.overwrite else kept_position(state, plan)
    losses: dict[str, float] = dict(reached["finished"]) if reached else {}
    for name, steps, draw in games:
        if steps and name not in losses:
            begun = reached["losses"] if reached and reached["game"] == name else []
            losses[name] = _Game(name, steps, draw, settings, state, plan).play(model, begun, losses)
    shutil.rmtree(state, ignore_errors=True)
    return losses


def copy_batch(rng: random.Random, vocabulary: Sequence[int], size: int) -> Batch:
    """input_ids and labels (B, T): segment, gap, segment again, with labels on the second copy but its first token."""
    length, gap = rng.randint(8, 32), rng.randint(1, 32)
    rows, labels = [], []
    for _ in range(size):
        segment = rng.choices(vocabulary, k=length)
        rows.append([*segment, *rng.choices(vocabulary, k=gap), *segment])
        labels.append([IGNORED] * (length + gap + 1) + segment[1:])
    return torch.tensor(rows), torch.tensor(labels)


class SequenceGame:
    """Draws rows of item lines from the train split, a share of them with a menu."""

    def __init__(
        self,
        tokenizer: Any,
        catalogue: Catalogue,
        lines: Sequence[Line],
        size: int,
        menu_share: float,
        title_share: float,
    ) -> None:
        renderer = Renderer(catalogue=catalogue, encode=str.split, max_prompt_tokens=1)
        chat = Chat(tokenizer)
        encode = chat.encode
        self.size, self.lines = size, lines
        self.menu_share, self.title_share = menu_share, title_share
        self.items = sorted({item for line in self.lines for item in line.items})
        self.short = {item: encode(f"[ITEM_{item}]\n") for item in self.items}
        self.long = {item: encode(renderer.answer(item) + "\n") for item in self.items}
        self.answers = {item: chat.answer_ids(renderer.answer(item)) for item in self.items}
        self.heading = encode("Candidates:\n")

    def __call__(self, rng: random.Random) -> Batch:
        rows = [self.menu_row(rng) if rng.random() < self.menu_share else self.plain_row(rng) for _ in range(self.size)]
        return _padded([row[:SEQUENCE_TOKENS] for row in rows])

    def plain_row(self, rng: random.Random) -> list[tuple[int, int]]:
        """(token, label) of a stretch of a sequence."""
        sequence = rng.choice(self.lines).items
        start = rng.randrange(max(1, len(sequence) - SHORTEST_STRETCH))
        return self._written(sequence[start : start + SEQUENCE_TOKENS], rng)

    def menu_row(self, rng: random.Random) -> list[tuple[int, int]]:
        """(token, label) of a history, a menu without labels, and what came next of it, as whole answers in order."""
        sequence = rng.choice(self.lines).items
        cut = rng.randint(1, max(1, len(sequence) - 1))
        history, coming = (
            sequence[max(0, cut - HISTORY_ITEMS) : cut],
            sequence[cut : cut + rng.randint(1, COMING_ITEMS)],
        )
        menu = list(dict.fromkeys([*coming, *rng.sample(self.items, min(MENU_ITEMS, len(self.items)))]))[:MENU_ITEMS]
        rng.shuffle(menu)
        offered = [*self.heading, *(token for token, _ in self._written(menu, rng))]
        answered = [(token, token) for item in coming for token in self.answers[item]]
        return [*self._written(history, rng), *((token, IGNORED) for token in offered), *answered]

    def _written(self, items: Sequence[str], rng: random.Random) -> list[tuple[int, int]]:
        pieces = ((self.long if rng.random() < self.title_share else self.short)[item] for item in items)
        return [(token, token) for piece in pieces for token in piece]


def keep_state(
    folder: Path,
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    plan: Mapping[str, Any],
    reached: Mapping[str, Any],
) -> None:
    """Save everything; a crash in between leaves the state kept before, or none."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"weight/{name}": weight.detach() for name, weight in module.named_parameters()}
    for name, weight in module.named_parameters():
        tensors |= {f"{kind}/{name}": value for kind, value in optimizer.state.get(weight, {}).items()}
    fresh = folder / f"{TENSORS}.new"
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, fresh)
    fresh.replace(folder / TENSORS)
    write_json(folder / POSITION, {"plan": dict(plan), "place": dict(reached), "sha256": sha256(folder / TENSORS)})


def kept_position(folder: Path, plan: Mapping[str, Any]) -> dict[str, Any] | None:
    """Where a loop with this plan was; None when nothing was kept, or of another plan, or only half of it."""
    if not (folder / POSITION).exists() or not (folder / TENSORS).exists():
        return None
    kept = read_json(folder / POSITION)
    if kept["plan"] != dict(plan) or kept["sha256"] != sha256(folder / TENSORS):
        return None
    reached: dict[str, Any] = kept["place"]
    return reached


def restore_state(folder: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the kept weights and moments into the module and its optimizer."""
    tensors = load_file(folder / TENSORS)
    kinds = {key.split("/", 1)[0] for key in tensors} - {"weight"}
    with torch.no_grad():
        for name, weight in module.named_parameters():
            weight.copy_(tensors[f"weight/{name}"])
            kept = {kind: tensors[f"{kind}/{name}"] for kind in kinds if f"{kind}/{name}" in tensors}
            optimizer.state[weight] = kept


def _padded(rows: Sequence[list[tuple[int, int]]]) -> Batch:
    """input_ids and labels (B, T) of rows of (token, label), padded on the right."""
    width = max(map(len, rows))
    input_ids = torch.tensor([[token for token, _ in row] + [0] * (width - len(row)) for row in rows])
    labels = torch.tensor([[label for _, label in row] + [IGNORED] * (width - len(row)) for row in rows])
    return input_ids, labels


class _Game:
    """AdamW for a number of steps over the batches that `draw` makes.

    The learning rate rises, stays, and falls only at the end: copying forms late and all at once, and a rate that
    falls from the start is too low by then.
    """

    def __init__(
        self,
        name: str,
        steps: int,
        draw: Callable[[random.Random], Batch],
        settings: BackboneSettings,
        state: Path,
        plan: Mapping[str, Any],
    ) -> None:
        self.name, self.steps, self.draw = name, steps, draw
        self.lr, self.seed = settings.lr, settings.seed
        self.state, self.plan = state, plan

    def play(self, model: Any, begun: Sequence[float], finished: Mapping[str, float]) -> float:
        """The mean loss of the last tenth of the steps; `begun` holds those of the steps taken before a stop."""
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.lr, weight_decay=0.01, betas=(0.9, 0.98))
        losses = list(begun)
        if losses:
            restore_state(self.state, model, optimizer)
            note(f"{self.name}: going on after step {len(losses)} of {self.steps}")
        kept = time.monotonic()
        model.train()
        with progress(f"pre-training: {self.name}", self.steps) as advance:
            advance(len(losses))
            for step in range(len(losses), self.steps):
                losses.append(self._step(model, optimizer, step))
                advance(1)
                if (step + 1) % max(1, self.steps // 10) == 0:
                    note(f"{self.name}: step {step + 1} of {self.steps}, loss {self._tail_mean(losses):.3f}")
                if time.monotonic() - kept > SAVE_SECONDS:
                    reached = {"game": self.name, "losses": losses, "finished": dict(finished)}
                    keep_state(self.state, model, optimizer, self.plan, reached)
                    kept = time.monotonic()
        model.eval()
        return self._tail_mean(losses)

    def _step(self, model: Any, optimizer: torch.optim.Optimizer, step: int) -> float:
        for group in optimizer.param_groups:
            group["lr"] = self.lr * self._rate(step)
        input_ids, labels = self.draw(generator(self.seed, f"pretrain/{self.name}", str(step)))
        loss = model(input_ids=input_ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.item())

    def _rate(self, step: int) -> float:
        warmup, decay = max(1, round(WARMUP_SHARE * self.steps)), max(1, round(DECAY_SHARE * self.steps))
        return min(1.0, (step + 1) / warmup, max(0.02, (self.steps - step) / decay))

    def _tail_mean(self, losses: Sequence[float]) -> float:
        tail = losses[-max(1, self.steps // 10) :]
        return sum(tail) / len(tail)
