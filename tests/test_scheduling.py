"""Stages side by side: what waits for what, who takes what, and what the user sees of it."""

from __future__ import annotations

import io
import shlex
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from mllmrec import Workspace
from mllmrec.artifacts import read_json
from mllmrec.cli import main
from mllmrec.scheduling import Indented, Schedule, needs
from mllmrec.settings.recipe import STAGES
from small_models import DATASET, WINDOW
from workspaces import tsv, write_dataset

QUICK = {"limit": 16, "batch": 8, "accum": 1, "eval_users": 8, "eval_steps": 1000, "num_neg": 4}


def stages_of(*blocks: tuple[str, dict[str, Any]]) -> list[Any]:
    return [STAGES[verb].model_validate({"dataset": "shop", **block}) for verb, block in blocks]


LADDER = stages_of(
    ("candidates", {}),
    ("sft", {"backbone": "base", "tag": "a-adapters"}),
    ("sft", {"backbone": "base", "tag": "b-adapters"}),
    ("merge", {"tag": "a-adapters", "merged_tag": "a"}),
    ("merge", {"tag": "b-adapters"}),
    ("grpo", {"sft_tag": "b-adapters-merged", "tag": "grpo"}),
    ("evaluate", {"backbone": "base"}),
    ("evaluate", {"sft_tag": "a"}),
    ("evaluate", {"sft_tag": "b-adapters-merged", "tag": "grpo"}),
    ("report", {}),
)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (0, set()),
        (1, {0}),
        (2, {0}),
        (3, {0, 1}),
        (4, {0, 2}),
        (5, {0, 4}),
        (6, {0}),
        (7, {0, 3}),
        (8, {0, 4, 5}),
        (9, set(range(9))),
    ],
)
def test_a_stage_waits_for_the_models_it_reads_and_for_all_data(index: int, expected: set[int]) -> None:
    assert needs(LADDER, index) == expected


def test_alone_the_stages_come_in_the_order_of_the_recipe() -> None:
    schedule, order = Schedule(stages=LADDER), []
    while not schedule.wait():
        index = schedule.take()
        assert index is not None
        order.append(index)
        schedule.finish(index)
    assert order == list(range(len(LADDER)))
    assert schedule.take() is None


def test_two_take_what_is_ready_and_never_the_same() -> None:
    schedule = Schedule(stages=LADDER)
    assert schedule.take() == 0
    assert not schedule.shared()
    schedule.finish(0)
    assert (schedule.take(), schedule.take(beside=True)) == (1, 2)
    assert schedule.shared()
    assert schedule.take() == 6
    schedule.finish(2)
    assert schedule.take(beside=True) == 4
    schedule.finish(1)
    assert schedule.take() == 3


def test_what_failed_beside_is_left_to_the_other() -> None:
    schedule = Schedule(stages=LADDER[:2])
    schedule.finish(schedule.take() or 0)
    assert schedule.take(beside=True) == 1
    schedule.give_back(1)
    assert not schedule.wait()
    assert not schedule.shared()
    assert schedule.take() == 1
    schedule.finish(1)
    assert schedule.wait()


def test_whoever_has_nothing_to_do_waits_until_a_stage_is_ready() -> None:
    schedule, got = Schedule(stages=LADDER[:4]), list[int | None]()
    schedule.take()
    waiting = threading.Thread(target=lambda: got.append(schedule.take(beside=True)))
    waiting.start()
    time.sleep(0.05)
    assert got == []
    schedule.finish(0)
    waiting.join(5)
    assert got == [1]


def test_the_lines_of_a_companion_are_set_off() -> None:
    stream = io.StringIO()
    marked = Indented(stream)
    print("step 1", file=marked)
    marked.write("half a line,")
    marked.write(" the rest\nnext\n")
    assert stream.getvalue() == "    | step 1\n    | half a line, the rest\n    | next\n"
    assert not marked.isatty()


def ladder_recipe(workspace: Workspace, **more: Any) -> Path:
    sft = {"backbone": "tiny", "min_inter": WINDOW, "epochs": 1, "peft": "none", **QUICK}
    content = {
        "dataset": DATASET,
        "root": str(workspace.root),
        "candidates": {"num_neg": 9, "min_inter": WINDOW},
        "sft": [{"tag": "one", **sft}, {"tag": "two", "lr": 1e-4, **sft, **more}],
        "evaluate": [{"sft_tag": "one", "limit": 30}, {"sft_tag": "two", "limit": 30}],
    }
    path = workspace.root / "ladder.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run(*words: str) -> int:
    """The exit status of `mllmrec run`."""
    with pytest.raises(SystemExit) as exit_:
        main(["run", *words])
    return int(exit_.value.code or 0)


@pytest.mark.timeout(240)
def test_side_by_side_the_same_is_made_and_told_in_the_recipe_s_order(
    toy_copy: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    path = ladder_recipe(toy_copy)
    assert run(str(path), "--jobs", "2") == 0
    shown, notes = capfd.readouterr()
    assert "All 5 stages are done." in shown
    assert shown.index("one limit30") < shown.index("two limit30")
    assert any(line.startswith(Indented.MARK) for line in notes.splitlines())
    for number, name in enumerate(("candidates", "sft one", "sft two", "evaluate one", "evaluate two"), 1):
        assert notes.count(f"[{number}/5] {name}") == 1
    for name in ("one", "two"):
        (metrics,) = toy_copy.results(DATASET).glob(f"{name}/*/metrics.json")
        assert read_json(metrics)["num_users"] == 30
    assert run(str(path)) == 0
    assert capfd.readouterr().err.count("nothing to do") == 5


@pytest.mark.timeout(240)
def test_a_stage_that_fails_beside_others_is_told_like_any(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = {str(user): [f"i{(user * 3 + step * 7) % 40}" for step in range(12)] for user in range(6)}
    write_dataset(tmp_path, train=tsv({user: items[:10] for user, items in lines.items()}), test=tsv(lines))
    path = tmp_path / "recipe.yaml"
    blocks = {"candidates": {"min_inter": 5}, "sft": {"backbone": "nowhere", "min_inter": 5}, "evaluate": {}}
    path.write_text(yaml.safe_dump({"dataset": "shop", "root": str(tmp_path), **blocks}))
    assert run(str(path), "--jobs", "2") == 2
    told = capfd.readouterr().err.splitlines()[-1]
    assert told.startswith("There is no model 'nowhere'")
    command = shlex.join(["mllmrec", "run", str(path), "--jobs", "2"])
    assert told.endswith(f" This was stage 2 of 3, sft sft; `{command}` goes on with it.")
