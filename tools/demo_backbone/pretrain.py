"""`PYTHONPATH=tools python -m demo_backbone.pretrain --out FOLDER`: makes the backbone that comes with the demo.

A small Qwen3 from scratch goes through the levels of `curriculum.py`: lessons from worlds that last for one question
(`lessons.py`), in the product's own prompt and chat format. The losses are described in `pretrain_pupil.py`.

A step depends on the seed and its number alone, and the state is kept every few minutes: a run that was stopped goes
on, to the same weights. FOLDER holds the model, its log and its state.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from demo_backbone.curriculum import Level, curriculum, draw_shapes
from demo_backbone.pretrain_pupil import Plan, Pupil, new_model
from demo_backbone.pretrain_state import RunPosition, read_state, write_state
from demo_backbone.sheets import batch_size, lessons
from mllmrec.data.draws import generator
from mllmrec.errors import ArtifactError, SettingsError
from mllmrec.models.huggingface import quieten
from mllmrec.models.small_qwen3 import save
from mllmrec.progress import note
from mllmrec.storage.workspace import read_json, write_json

WARMUP, FALL, LAST_RATE = 100, 1.25, 0.03
HELD_OUT, LEAST_HELD_OUT, READING_STEPS = 96, 16, 50


def pretrain(out: Path, plan: Plan, save_seconds: float = 120.0, stop_after: int | None = None) -> RunPosition:
    """Go through the curriculum, or `stop_after` so many steps of this call; the model lies in `out` in the end."""
    quieten()
    torch.manual_seed(plan.seed)
    pupil, levels = Pupil(plan), curriculum(plan.last_steps)
    optimizer = torch.optim.AdamW(pupil.parameters(), lr=plan.lr, betas=(0.9, 0.98), weight_decay=0.01)
    position = read_state(out / "state", pupil, optimizer, asdict(plan)) or _start(pupil, levels, plan)
    began, saved, taken = time.monotonic() - position.seconds, time.monotonic(), 0
    while position.level < len(levels) and taken != stop_after:
        _step(pupil, optimizer, plan, levels, position)
        position.seconds, taken = time.monotonic() - began, taken + 1
        if position.step % READING_STEPS == 0 or position.step >= levels[position.level].most_steps:
            _take_reading(pupil, levels, plan, position)
        if time.monotonic() - saved > save_seconds:
            _keep(out, pupil, optimizer, position, plan)
            saved = time.monotonic()
    _keep(out, pupil, optimizer, position, plan)
    return position


def _start(pupil: Pupil, levels: tuple[Level, ...], plan: Plan) -> RunPosition:
    """At the first level with random weights, or where the plan says, with the weights it names.

    Raises SettingsError for one of `weights` and `first_level` without the other, a level that doesn't exist, and a
    folder without weights of the plan's shapes.
    """
    names = ["", *(level.name for level in levels)]
    if plan.first_level not in names or bool(plan.weights) != bool(plan.first_level):
        raise SettingsError(
            f"--weights {plan.weights!r} and --first-level {plan.first_level!r} don't go together. Give both or none: "
            f"a model's folder, and the level to begin at: {', '.join(names[1:])}."
        )
    if not plan.weights:
        return RunPosition()
    try:
        weights = load_file(Path(plan.weights) / "model.safetensors")
        pupil.model.model.load_state_dict({name.removeprefix("model."): weight for name, weight in weights.items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise SettingsError(
            f"--weights {plan.weights} can't be begun with: {str(error).splitlines()[0]} Expected the folder of a "
            "model that this program made with the same --layers, --width, --heads, --inner-width and --vocab."
        ) from error
    return RunPosition(level=names.index(plan.first_level) - 1)


def _step(
    pupil: Pupil, optimizer: torch.optim.Optimizer, plan: Plan, levels: tuple[Level, ...], position: RunPosition
) -> None:
    level, key = levels[position.level], f"{position.level}/{position.step}"
    for group in optimizer.param_groups:
        group["lr"] = plan.lr * _rate(level, position)
    optimizer.zero_grad()
    shapes = draw_shapes(generator(plan.seed, "pretrain/step", key), levels, position.level)
    for number, shape in enumerate(shapes):
        part = key if level.parts == 1 else f"{key}/{number}"
        drawn = lessons(plan.seed, "pretrain/lesson", part, shape, batch_size(shape, level.part_tokens))
        sheets = [pupil.desk.sheet(lesson, level.recitals) for lesson in drawn]
        loss, *_ = pupil(sheets, level)
        (loss / level.parts).backward()
        position.tokens += sum(len(sheet.prompt_T) + len(sheet.answer_T) for sheet in sheets)
    torch.nn.utils.clip_grad_norm_(pupil.parameters(), 1.0)
    optimizer.step()
    position.step, position.steps = position.step + 1, position.steps + 1


def _rate(level: Level, position: RunPosition) -> float:
    """It rises at the very start, stays, and falls to almost nothing over the levels that end so."""
    done = position.step / level.most_steps if level.falls else 0.0
    return level.rate * min(1.0, (position.steps + 1) / WARMUP) * max(LAST_RATE, min(1.0, FALL * (1 - done)))


@torch.no_grad()
def _take_reading(pupil: Pupil, levels: tuple[Level, ...], plan: Plan, position: RunPosition) -> None:
    """Answer held-out lessons; move on to the next level when enough of them are right, or after its last step."""
    level = levels[position.level]
    marks = []
    for number, shape in enumerate(level.shapes):
        count = max(LEAST_HELD_OUT, HELD_OUT // len(level.shapes))
        drawn = lessons(plan.seed, "pretrain/held-out", f"{level.name}/{number}", shape, count)
        marks.append(pupil([pupil.desk.sheet(lesson, level.recitals) for lesson in drawn], level)[1:])
    right, whole, readout = ([round(mark[kind], 3) for mark in marks] for kind in range(3))
    share = sum(right) / len(right)
    reading = {"level": level.name, "step": position.step, "steps": position.steps, "tokens": position.tokens}
    position.readings.append(
        reading | {"seconds": round(position.seconds), "right": right, "whole": whole, "readout": readout}
    )
    done = f"{position.seconds:6.0f} s, {position.tokens / 1e6:.2f}M tokens, {level.name}, step {position.step}"
    note(f"{done}: ids {right}, answers {whole}, readouts {readout}")
    passed = min(right) >= level.pass_mark - 0.1 and share >= level.pass_mark and not level.falls
    if passed or position.step >= level.most_steps:
        position.level, position.step = position.level + 1, 0


def _keep(out: Path, pupil: Pupil, optimizer: torch.optim.Optimizer, position: RunPosition, plan: Plan) -> None:
    write_state(out / "state", pupil, optimizer, position, asdict(plan))
    write_json(out / "readings.json", position.readings)
    half = new_model(pupil.tokenizer, plan).half()
    half.load_state_dict(pupil.model.state_dict())
    save(half, pupil.tokenizer, out / "model")
    # Stored in half precision to be small; computed with and merged in full, which rounds adapters no further.
    config = out / "model" / "config.json"
    write_json(config, read_json(config) | {"dtype": "float32"})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m demo_backbone.pretrain", description="Make the demo's backbone.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model, its log and its state")
    defaults: dict[str, Any] = asdict(Plan())
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    chosen = vars(parser.parse_args(arguments))
    out = chosen.pop("out")
    try:
        position = pretrain(out, Plan(**chosen))
    except (SettingsError, ArtifactError) as error:
        parser.error(str(error))
    note(f"{position.steps} steps, {position.tokens / 1e6:.1f}M tokens, {position.seconds:.0f} s: {out / 'model'}")


if __name__ == "__main__":
    main()
