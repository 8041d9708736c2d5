"""`python -m mllmrec.demo.pretrain --out FOLDER`: how the backbone that comes with the demo was made.

A small Qwen3 from scratch goes through the levels of `curriculum.py`: lessons from worlds that last for one question
(`lessons.py`), in the product's own prompt and chat format. The loss is on the answer: fully on its id, which is the
choice, and less on the rest, which is copied. One answer in 200 tokens is little to learn from, so there is more: a
readout beside the model asks the third layer, at the end of every candidate's line, whether it is the one (it is thrown
away in the end); words of the prompt are to be spelt as they were spelt before; and the heads begin as heads that
compare and pass on.

A step depends on the seed and its number alone, and the state is kept every few minutes: a run that was stopped goes
on, to the same weights. FOLDER holds the model, its log and its state.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import Qwen3ForCausalLM

from mllmrec.artifacts import write_json
from mllmrec.backends.chat import Chat
from mllmrec.backends.huggingface import quieten
from mllmrec.backends.small_qwen3 import build_model, make_tokenizer, save
from mllmrec.data.draws import generator
from mllmrec.demo.curriculum import Level, curriculum, draw_shapes
from mllmrec.demo.pretrain_state import Place, read_state, write_state
from mllmrec.demo.sheets import PIECES, Desk, Sheet, batch_size, corpus, lessons
from mllmrec.progress import note

READOUT_LAYER = 3
READOUT_WEIGHT = 0.5
WARMUP, FALL, LAST_RATE = 100, 1.25, 0.03
ROPE_THETA, SPREAD = 1e6, 0.05
ALIKE, PASSED_ON = 2.0, 0.5
HELD_OUT, LEAST_HELD_OUT, READING_STEPS = 96, 16, 50


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What decides the weights."""

    seed: int = 2026
    layers: int = 4
    width: int = 128
    heads: int = 4
    inner_width: int = 256
    vocab: int = 1920
    lr: float = 2e-3
    last_steps: int = 800


class Pupil(torch.nn.Module):
    """A model and its readout."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.tokenizer = make_tokenizer(corpus(generator(plan.seed, "pretrain/corpus", "")), plan.vocab, PIECES)
        self.model = new_model(self.tokenizer, plan)
        _prepare(self.model, plan.seed)
        self.readout = torch.nn.Linear(plan.width, 1, bias=False)
        torch.nn.init.zeros_(self.readout.weight)
        words = self.tokenizer.convert_ids_to_tokens(range(len(self.tokenizer)))
        self.inner = frozenset(number for number, word in enumerate(words) if word.isalpha() and word.isascii())
        self.desk = Desk(Chat(self.tokenizer))

    def forward(self, sheets: Sequence[Sheet], level: Level) -> tuple[torch.Tensor, float, float, float]:
        """The level's loss, and the shares of right ids, of answers right to the end, and of right readouts."""
        rows = [_row(sheet) for sheet in sheets]
        hidden_BT, middle_BT = self._read(rows)
        places = [range(len(s.prompt_T) - 1, len(s.prompt_T) + len(s.answer_T) - 1) for s in sheets]
        batch, place = _flat(places)
        target = torch.tensor([token for sheet in sheets for token in sheet.answer_T])
        is_id = torch.tensor([1 <= i <= s.num_id_tokens for s in sheets for i in range(len(s.answer_T))])
        logits = self.model.lm_head(hidden_BT[batch, place])
        loss_N = functional.cross_entropy(logits, target, reduction="none")
        missed = (logits.argmax(-1) != target).float()
        wrong_ids, wrong = (
            torch.zeros(len(sheets)).index_add_(0, batch, missed * part) for part in (is_id, torch.ones_like(is_id))
        )
        ends, end = _flat([sheet.line_ends_C for sheet in sheets])
        readout_loss, readout_right = self._ask(middle_BT[ends, end], sheets)
        loss = (loss_N * torch.where(is_id, 1.0, level.rest_weight)).sum() / len(sheets)
        loss = loss + READOUT_WEIGHT * readout_loss
        if level.recitals:
            loss = loss + level.recital_weight * self._recite(hidden_BT, sheets)
        if level.spelling_weight:
            loss = loss + level.spelling_weight * self._spell(hidden_BT, sheets)
        return loss, _share(wrong_ids == 0), _share(wrong == 0), readout_right

    def _read(self, rows: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """The hidden states (B, T, width) of the last layer and of the readout's. Padding is on the right, unseen."""
        width = max(map(len, rows))
        input_ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        output = self.model.model(input_ids=input_ids, use_cache=False, output_hidden_states=True)
        return output.last_hidden_state, output.hidden_states[min(READOUT_LAYER, self.model.config.num_hidden_layers)]

    def _recite(self, hidden_BT: torch.Tensor, sheets: Sequence[Sheet]) -> torch.Tensor:
        """The mean loss on what follows the ids of items other than the answer."""
        places: list[list[int]] = []
        targets: list[int] = []
        for sheet in sheets:
            place = len(sheet.prompt_T) + len(sheet.answer_T)
            recited: list[int] = []
            for given_T, rest_T in sheet.recitals:
                place += len(given_T)
                recited += range(place - 1, place + len(rest_T) - 1)
                place += len(rest_T)
                targets += rest_T
            places.append(recited)
        batch, place_N = _flat(places)
        return functional.cross_entropy(self.model.lm_head(hidden_BT[batch, place_N]), torch.tensor(targets))

    def _spell(self, hidden_BT: torch.Tensor, sheets: Sequence[Sheet]) -> torch.Tensor:
        """The mean loss where a word of the prompt goes on as it did before."""
        places = [respelt(sheet.prompt_T, self.inner) for sheet in sheets]
        batch, place = _flat(places)
        target = torch.tensor([s.prompt_T[i] for s, spelt in zip(sheets, places, strict=True) for i in spelt])
        if not len(target):
            return hidden_BT.new_zeros(())
        return functional.cross_entropy(self.model.lm_head(hidden_BT[batch, place - 1]), target)

    def _ask(self, hidden_N: torch.Tensor, sheets: Sequence[Sheet]) -> tuple[torch.Tensor, float]:
        """The readout's loss and share of right answers: a softmax over each lesson's candidates."""
        counts = [len(sheet.line_ends_C) for sheet in sheets]
        scores = torch.nn.utils.rnn.pad_sequence(
            list(self.readout(hidden_N).squeeze(-1).split(counts)), batch_first=True, padding_value=-1e9
        )
        right = torch.tensor([sheet.right for sheet in sheets])
        return functional.cross_entropy(scores, right), _share(scores.argmax(-1) == right)


def _row(sheet: Sheet) -> list[int]:
    """What is read: the prompt, the answer, and the recitals; of the last of these all but the end token."""
    return [*sheet.prompt_T, *sheet.answer_T, *chain(*(part for parts in sheet.recitals for part in parts))][:-1]


def respelt(tokens: Sequence[int], inner: frozenset[int]) -> list[int]:
    """The places of `inner` tokens that have followed the token before them earlier on.

    >>> respelt([1, 2, 9, 1, 2, 1, 3], frozenset({2, 3}))
    [4]
    """
    seen, places = set[tuple[int, int]](), []
    for place, pair in enumerate(pairwise(tokens), 1):
        if pair[1] in inner and pair in seen:
            places.append(place)
        seen.add(pair)
    return places


def new_model(tokenizer: Any, plan: Plan) -> Qwen3ForCausalLM:
    """Random weights. The rotation is Qwen3's own, slow enough to compare tokens that are far apart."""
    rotation = {"rope_type": "default", "rope_theta": ROPE_THETA}
    return build_model(
        tokenizer,
        plan.layers,
        plan.width,
        plan.heads,
        plan.seed,
        inner_width=plan.inner_width,
        initializer_range=SPREAD,
        rope_parameters=rotation,
    )


@torch.no_grad()
def _prepare(model: Any, seed: int) -> None:
    """Let every head begin by looking for what is like its own token and passing on what it finds there.

    Queries equal keys, and the way out of the values is the way in, backwards. Comparing and copying then need not be
    found by chance, which takes most of the time otherwise.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in model.model.layers:
            attention = layer.self_attn
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            attention.q_norm.weight.fill_(ALIKE)
            torch.nn.init.orthogonal_(attention.v_proj.weight)
            attention.o_proj.weight.copy_(PASSED_ON * attention.v_proj.weight.T)


def pretrain(out: Path, plan: Plan, save_seconds: float = 120.0, stop_after: int | None = None) -> Place:
    """Go through the curriculum, or `stop_after` so many steps of this call; the model lies in `out` in the end."""
    quieten()
    torch.manual_seed(plan.seed)
    pupil, levels = Pupil(plan), curriculum(plan.last_steps)
    optimizer = torch.optim.AdamW(pupil.parameters(), lr=plan.lr, betas=(0.9, 0.98), weight_decay=0.01)
    place = read_state(out / "state", pupil, optimizer, asdict(plan))
    began, saved, taken = time.monotonic() - place.seconds, time.monotonic(), 0
    while place.level < len(levels) and taken != stop_after:
        _step(pupil, optimizer, plan, levels, place)
        place.seconds, taken = time.monotonic() - began, taken + 1
        if place.step % READING_STEPS == 0 or place.step >= levels[place.level].most_steps:
            _take_reading(pupil, levels, plan, place)
        if time.monotonic() - saved > save_seconds:
            _keep(out, pupil, optimizer, place, plan)
            saved = time.monotonic()
    _keep(out, pupil, optimizer, place, plan)
    return place


def _step(pupil: Pupil, optimizer: torch.optim.Optimizer, plan: Plan, levels: tuple[Level, ...], place: Place) -> None:
    level, key = levels[place.level], f"{place.level}/{place.step}"
    for group in optimizer.param_groups:
        group["lr"] = plan.lr * _rate(level, place)
    optimizer.zero_grad()
    shapes = draw_shapes(generator(plan.seed, "pretrain/step", key), levels, place.level)
    for number, shape in enumerate(shapes):
        part = key if level.parts == 1 else f"{key}/{number}"
        drawn = lessons(plan.seed, "pretrain/lesson", part, shape, batch_size(shape, level.part_tokens))
        sheets = [pupil.desk.sheet(lesson, level.recitals) for lesson in drawn]
        loss, *_ = pupil(sheets, level)
        (loss / level.parts).backward()
        place.tokens += sum(len(sheet.prompt_T) + len(sheet.answer_T) for sheet in sheets)
    torch.nn.utils.clip_grad_norm_(pupil.parameters(), 1.0)
    optimizer.step()
    place.step, place.steps = place.step + 1, place.steps + 1


def _rate(level: Level, place: Place) -> float:
    """It rises at the very start, stays, and falls to almost nothing over the last level."""
    done = place.step / level.most_steps if level.last else 0.0
    return level.rate * min(1.0, (place.steps + 1) / WARMUP) * max(LAST_RATE, min(1.0, FALL * (1 - done)))


@torch.no_grad()
def _take_reading(pupil: Pupil, levels: tuple[Level, ...], plan: Plan, place: Place) -> None:
    """Answer held-out lessons; move on to the next level when enough of them are right, or after its last step."""
    level = levels[place.level]
    marks = []
    for number, shape in enumerate(level.shapes):
        count = max(LEAST_HELD_OUT, HELD_OUT // len(level.shapes))
        drawn = lessons(plan.seed, "pretrain/held-out", f"{level.name}/{number}", shape, count)
        marks.append(pupil([pupil.desk.sheet(lesson, level.recitals) for lesson in drawn], level)[1:])
    right, whole, readout = ([round(mark[kind], 3) for mark in marks] for kind in range(3))
    share = sum(right) / len(right)
    reading = {"level": level.name, "step": place.step, "steps": place.steps, "tokens": place.tokens}
    place.readings.append(
        reading | {"seconds": round(place.seconds), "right": right, "whole": whole, "readout": readout}
    )
    done = f"{place.seconds:6.0f} s, {place.tokens / 1e6:.2f}M tokens, {level.name}, step {place.step}"
    note(f"{done}: ids {right}, answers {whole}, readouts {readout}")
    passed = min(right) >= level.pass_mark - 0.1 and share >= level.pass_mark and not level.last
    if passed or place.step >= level.most_steps:
        place.level, place.step = place.level + 1, 0


def _keep(out: Path, pupil: Pupil, optimizer: torch.optim.Optimizer, place: Place, plan: Plan) -> None:
    write_state(out / "state", pupil, optimizer, place, asdict(plan))
    write_json(out / "readings.json", place.readings)
    half = new_model(pupil.tokenizer, plan).half()
    half.load_state_dict(pupil.model.state_dict())
    save(half, pupil.tokenizer, out / "model")


def _share(right: torch.Tensor) -> float:
    return right.float().mean().item()


def _flat(places: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """(row, column) of every place of every row."""
    rows = [row for row, columns in enumerate(places) for _ in columns]
    return torch.tensor(rows), torch.tensor([column for columns in places for column in columns])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m mllmrec.demo.pretrain", description="Make the demo's backbone.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model, its log and its state")
    defaults: dict[str, Any] = asdict(Plan())
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    chosen = vars(parser.parse_args(arguments))
    out = chosen.pop("out")
    place = pretrain(out, Plan(**chosen))
    note(f"{place.steps} steps, {place.tokens / 1e6:.1f}M tokens, {place.seconds:.0f} s: {out / 'model'}")


if __name__ == "__main__":
    main()
