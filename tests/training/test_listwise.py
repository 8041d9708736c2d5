"""`mllmrec sft --objective list`: the loss by hand, its gradient, and that it is learned and resumed like any other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import DATASET, copy_of, naive_scores, random_model, sft_settings, weights_of

from mllmrec.models.base import ScoringTask
from mllmrec.models.ranker import scorer_of
from mllmrec.models.tries import make_rows
from mllmrec.storage.workspace import Workspace, read_json, read_jsonl
from mllmrec.training import sft
from mllmrec.training.callbacks import LogCallback
from mllmrec.training.listwise import list_loss

END = 1
TASK = ScoringTask(prompt_T=[3, 4, 5, 6], answers_C=[[7, 8, END], [7, 9, END], [10, END], [11, 12, 13, END]])


def train(workspace: Workspace, **knobs: Any) -> Path:
    summary = sft.run(sft_settings(workspace, objective="list", tag="listed", **knobs), workspace)
    assert summary.artifact is not None
    return summary.artifact


def test_the_loss_by_hand() -> None:
    """Shares 1/7, 2/7 and 4/7."""
    scores_C = torch.tensor([1.0, 2.0, 4.0]).log() - 5
    assert [list_loss(scores_C, target).item() for target in range(3)] == pytest.approx(
        [math.log(7), math.log(7 / 2), math.log(7 / 4)], rel=1e-5
    )


def test_its_gradient_is_that_of_finite_differences() -> None:
    model = random_model(seed=3)
    weight = model.model.layers[0].self_attn.q_proj.weight
    rows, scorer = make_rows([TASK]), scorer_of(model)
    [gradient] = torch.autograd.grad(list_loss(scorer.differentiable(rows, model)[0], 2), [weight])
    step, readings = 1e-2, []
    direction = gradient / gradient.norm()
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step * direction
            scores_C = torch.tensor(naive_scores(model, TASK.prompt_T, TASK.answers_C))
            readings.append(-scores_C.log_softmax(0)[2].item())
            weight -= sign * step * direction
    assert (readings[0] - readings[1]) / (2 * step) == pytest.approx(float(gradient.norm()), rel=0.02)


@pytest.fixture(scope="module")
def listed(trained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = copy_of(trained, tmp_path_factory.mktemp("listed") / "work")
    train(workspace)
    return workspace


def test_validation_rises_and_the_loss_is_that_of_the_lists(listed: Workspace) -> None:
    """It begins near ln 5, that of five candidates without a preference."""
    folder = listed.checkpoint(DATASET, "listed")
    readings = read_json(folder / "manifest.json")["details"]["validation"]
    best = max(reading["NDCG@3"] for reading in readings.values())
    assert best > readings["0"]["NDCG@3"] + 0.05
    losses = [row["list_loss"] for row in read_jsonl(folder / "training.jsonl") if "list_loss" in row]
    assert abs(losses[0] - math.log(5)) < 0.3
    assert losses[-1] < losses[0]
    assert all(0 <= row["train_hr_1"] <= 1 for row in read_jsonl(folder / "training.jsonl") if "train_hr_1" in row)


def test_an_interrupted_run_goes_on_to_the_same_weights(listed: Workspace, tmp_path: Path) -> None:
    workspace = copy_of(listed, tmp_path / "work")
    whole = weights_of(listed.checkpoint(DATASET, "listed"))
    plain = LogCallback.on_log

    def cut(self: LogCallback, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        plain(self, args, state, control, logs=logs, **kwargs)
        if state.global_step == 3:
            raise RuntimeError("the power went")

    again = {"overwrite": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LogCallback, "on_log", cut)
        with pytest.raises(RuntimeError, match="the power went"):
            train(workspace, save_steps=2, logging_steps=1, lr=2e-3, **again)
    train(workspace, save_steps=2, logging_steps=1, lr=2e-3, **again)
    found = weights_of(workspace.checkpoint(DATASET, "listed"))
    undisturbed = copy_of(listed, tmp_path / "undisturbed")
    train(undisturbed, save_steps=2, logging_steps=1, lr=2e-3, **again)
    expected = weights_of(undisturbed.checkpoint(DATASET, "listed"))
    assert found.keys() == expected.keys() == whole.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_both_losses_move_weights_otherwise_than_the_list_alone(listed: Workspace, tmp_path: Path) -> None:
    workspace = copy_of(listed, tmp_path / "work")
    sft.run(sft_settings(workspace, objective="both", answer_weight=0.5, tag="both"), workspace)
    alone, both = (weights_of(workspace.checkpoint(DATASET, tag)) for tag in ("listed", "both"))
    assert any(not torch.equal(alone[name], both[name]) for name in alone)
    rows = [row for row in read_jsonl(workspace.checkpoint(DATASET, "both") / "training.jsonl") if "loss" in row]
    for row in rows:
        assert row["loss"] == pytest.approx(row["list_loss"] + 0.5 * row["answer_loss"], rel=1e-3)
    assert rows


def test_all_weights_can_be_trained(listed: Workspace, tmp_path: Path) -> None:
    workspace = copy_of(listed, tmp_path / "work")
    sft.run(sft_settings(workspace, objective="list", peft="none", tag="whole", limit=32, epochs=1), workspace)
    manifest = read_json(workspace.checkpoint(DATASET, "whole") / "manifest.json")
    assert manifest["settings"]["objective"] == "list"
    assert (workspace.checkpoint(DATASET, "whole") / "model.safetensors").exists()
