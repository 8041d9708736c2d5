"""`grpo --rollouts exact`: its gradient on a real model, what a step holds, what is logged, and that it resumes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from small_models import (
    DATASET,
    grpo_lora,
    grpo_settings,
    random_model,
    shorten_validation,
    trainer_parts,
    weights_of,
)
from torch import Tensor

from mllmrec.data.draws import uniform
from mllmrec.errors import SettingsError
from mllmrec.models.base import ScoringTask
from mllmrec.models.ranker import scorer_of
from mllmrec.models.tries import make_rows
from mllmrec.records import Summary
from mllmrec.settings.training import GrpoSettings
from mllmrec.storage.manifests import Manifest, hash_model
from mllmrec.storage.workspace import Workspace, read_jsonl
from mllmrec.training.callbacks import LogCallback
from mllmrec.training.grpo import exact
from mllmrec.training.grpo import stage as grpo
from mllmrec.training.grpo.candidate_policy import draw, objective
from mllmrec.training.grpo.exact import split_step
from mllmrec.training.grpo.rewards import REWARDS
from mllmrec.training.listwise import score_through_forward
from mllmrec.training.lora_targets import find_targets

PROMPT = [5, 9, 11, 4]
ANSWERS = [[7, 8, 1], [7, 12, 3, 1], [20, 1], [7, 12, 30, 1]]
REWARDS_C = [0.3, 1.0, -1.5, 0.3]
LOGGED = ("loss", "grad_norm", "reward", "reward_std", "kl", "candidate_entropy", "outside_mass", "valid_reward")


def align(workspace: Workspace, **knobs: Any) -> Summary:
    return grpo.run(grpo_settings(workspace, **({"rollouts": "exact"} | knobs)), workspace)


def log_of(folder: Path, column: str) -> list[float]:
    return [row[column] for row in read_jsonl(folder / "training.jsonl") if column in row]


def trainer_of(workspace: Workspace, settings: GrpoSettings, steps: int = 4) -> Any:
    base = workspace.checkpoint(DATASET, "full")
    return grpo.make_trainer(trainer_parts(workspace, settings, base, partial(grpo_lora, settings), steps=steps))


def adapted_model() -> Any:
    """A random model with adapters that have moved away from where they begin."""
    model = get_peft_model(random_model(), find_targets(random_model()).config(r=4, lora_alpha=8))
    torch.manual_seed(3)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model


def plain_scores(model: Any) -> list[Tensor]:
    """log p of each answer, differentiable, by one forward pass for each."""
    scores = []
    for answer in ANSWERS:
        logp_TV = model(input_ids=torch.tensor([[*PROMPT, *answer]]), use_cache=False).logits[0].log_softmax(-1)
        start = len(PROMPT) - 1
        scores.append(sum((logp_TV[start + place, token] for place, token in enumerate(answer)), torch.zeros(())))
    return scores


def adapter_gradient(model: Any, loss: Tensor) -> Tensor:
    weights = [weight for name, weight in model.named_parameters() if "lora_" in name]
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights)])


def exact_loss(model: Any, beta: float) -> Tensor:
    rows = make_rows([ScoringTask(prompt_T=PROMPT, answers_C=ANSWERS)])
    with torch.no_grad(), model.disable_adapter():
        [reference_C] = model(rows=rows)
    [scores_C] = model(rows=rows)
    return objective(scores_C, torch.tensor(REWARDS_C), reference_C, beta).loss


@pytest.mark.parametrize("layout", ["tree", "cache", "apart"])
@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_the_gradient_is_that_of_one_plain_forward_pass_an_answer(beta: float, layout: Any) -> None:
    """The formula written out on scores that were got the plain way."""
    model = adapted_model()
    score_through_forward(model, scorer_of(model, layout=layout))
    found = adapter_gradient(model, exact_loss(model, beta))
    with torch.no_grad(), model.disable_adapter():
        reference = torch.stack(plain_scores(model)).softmax(0)
    q, r = torch.stack(plain_scores(model)).softmax(0), torch.tensor(REWARDS_C)
    mean = (q * r).sum().detach()
    deviation = (q * (r - mean) ** 2).sum().sqrt().detach()
    loss = -(q * (r - mean) / (deviation + 1e-4)).sum() + beta * (q * (q / reference).log()).sum()
    expected = adapter_gradient(model, loss)
    assert found.norm() > 0.1
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.norm()))


def test_the_gradient_is_that_of_finite_differences_along_itself() -> None:
    """Scores are float32, so the step is a long one; advantages are held at what they are at the point."""
    model = adapted_model()
    score_through_forward(model, scorer_of(model))
    rows = make_rows([ScoringTask(prompt_T=PROMPT, answers_C=ANSWERS)])
    [scores_C] = model(rows=rows)
    held = exact.objective(scores_C, torch.tensor(REWARDS_C), None, 0.0)
    gradient = adapter_gradient(model, held.loss)
    mean, deviation = held.reward, held.reward_std
    weights = [weight for name, weight in model.named_parameters() if "lora_" in name]
    step, readings = 2e-3, []
    for sign in (1, -1):
        moved = adapted_model()
        score_through_forward(moved, scorer_of(moved))
        offset = 0
        with torch.no_grad():
            ours = [weight for name, weight in moved.named_parameters() if "lora_" in name]
            for weight in ours:
                part = gradient[offset : offset + weight.numel()].view_as(weight)
                weight += sign * step * part / gradient.norm()
                offset += weight.numel()
            [there] = moved(rows=rows)
        q = there.softmax(0)
        readings.append(-(q * (torch.tensor(REWARDS_C) - mean) / (deviation + 1e-4)).sum().item())
    assert len(weights) == 28
    assert (readings[0] - readings[1]) / (2 * step) == pytest.approx(float(gradient.norm()), rel=0.01)


def test_a_sampled_group_of_twenty_thousand_points_the_same_way() -> None:
    """Answers drawn from the candidate policy, advantages of the group, the log-probabilities of free answers, and
    the KL by its estimate, in the space of the adapters' weights."""
    model, beta, size = adapted_model(), 0.5, 20_000
    score_through_forward(model, scorer_of(model))
    found = adapter_gradient(model, exact_loss(model, beta))
    with torch.no_grad(), model.disable_adapter():
        reference = torch.stack(plain_scores(model)).log_softmax(0)
    logpi = torch.stack(plain_scores(model))
    chances = logpi.softmax(0).tolist()
    counts = Counter(draw(chances, uniform(5, "group", str(number))) for number in range(size))
    n = torch.tensor([counts[place] / size for place in range(len(ANSWERS))])
    r = torch.tensor(REWARDS_C)
    mean = (n * r).sum()
    held = (r - mean) / ((n * (r - mean) ** 2).sum().sqrt() + 1e-4)
    logq = logpi.log_softmax(0)
    rho = torch.exp(reference - logq)
    ratio = torch.exp(logq - logq.detach())
    expected = adapter_gradient(model, -(n * held * logpi).sum() + beta * (n * ratio * (rho - rho.log() - 1)).sum())
    assert torch.cosine_similarity(found, expected, dim=0).item() > 0.99


@pytest.mark.parametrize(
    ("batch", "accum", "size", "split"),
    [
        (4, 8, 8, (4, 1)),
        (32, 8, 8, (32, 1)),
        (4, 12, 8, (3, 2)),
        (1, 8, 8, (1, 1)),
        (2, 24, 8, (2, 3)),
        (2, 20, 8, (1, 5)),
    ],
)
def test_a_step_is_split_into_like_passes(batch: int, accum: int, size: int, split: tuple[int, int]) -> None:
    """batch x accum / G prompts, at most `batch` of them at a time."""
    settings = GrpoSettings(dataset="toy", sft_tag="full", batch=batch, accum=accum, num_generations=size)
    assert split_step(settings) == split
    assert split[0] * split[1] == batch * accum // size


def test_a_prompt_is_not_divided_among_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes of four answers each hold one group of eight: enough to sample, not for the whole set."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    settings = GrpoSettings(dataset="toy", sft_tag="full", batch=4, accum=1, num_generations=8)
    grpo.check_divisibility(settings)
    with pytest.raises(SettingsError, match=r"each of 2 process\(es\) takes --batch 4 x --accum 1 / --num-gener"):
        grpo.check_divisibility(settings.model_copy(update={"rollouts": "exact"}))


def test_a_step_holds_the_prompts_that_sampling_would_take(trained_copy: Workspace) -> None:
    knobs = {"batch": 8, "accum": 2, "num_generations": 4, "limit": 16}
    sampled = trainer_of(trained_copy, grpo_settings(trained_copy, **knobs))
    [rows, *_] = list(sampled.get_train_dataloader())
    whole = trainer_of(trained_copy, grpo_settings(trained_copy, rollouts="exact", **knobs))
    [first, *_] = list(whole.get_train_dataloader())
    asked = [question.example for question in first["groups"]]
    assert len(asked) == 4
    assert list(dict.fromkeys(row["prompt"].example for row in rows)) == asked


def test_adapters_move_and_the_base_does_not(trained_copy: Workspace) -> None:
    folder = trained_copy.checkpoint(DATASET, "full")
    before_hash = hash_model(folder)
    trainer = trainer_of(trained_copy, grpo_settings(trained_copy, rollouts="exact"))
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, weight in trainer.model.named_parameters() if not torch.equal(before[name], weight)}
    assert moved == {name for name in before if "lora_" in name}
    assert hash_model(folder) == before_hash


def test_two_passes_of_two_prompts_are_one_pass_of_four(trained_copy: Workspace) -> None:
    shorten_validation(trained_copy)
    align(trained_copy, tag="at-once", batch=4, accum=4)
    align(trained_copy, tag="in-two", batch=2, accum=8)
    at_once, in_two = trained_copy.checkpoint(DATASET, "at-once"), trained_copy.checkpoint(DATASET, "in-two")
    for column in ("reward", "kl", "outside_mass", "grad_norm"):
        assert log_of(in_two, column) == pytest.approx(log_of(at_once, column), rel=2e-3, abs=1e-6)
    ours, theirs = weights_of(in_two), weights_of(at_once)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)


def test_what_is_logged_adds_up(trained_copy: Workspace) -> None:
    """With the strict rule the expected reward is the chance of a hit; the policy starts as the reference; no answer is
    invalid; no group is without advantage. The timeline holds the expected reward of the validation users too."""
    summary = align(trained_copy, tag="exact", eval_steps=2)
    folder = trained_copy.checkpoint(DATASET, "exact")
    columns = {name: log_of(folder, name) for name in (*LOGGED, "hit_share", "invalid_share", "frac_reward_zero_std")}
    assert len(columns["reward"]) == 4
    assert columns["reward"] == pytest.approx(columns["hit_share"])
    assert columns["invalid_share"] == columns["frac_reward_zero_std"] == [0, 0, 0, 0]
    assert columns["kl"][0] == 0
    assert min(columns["kl"][1:]) > 1e-5
    assert all(0 < value < 1 for value in columns["outside_mass"])
    timeline = list(read_jsonl(folder / "metrics.jsonl"))
    assert [row["step"] for row in timeline] == [0, 2, 4]
    assert [row["valid_reward"] for row in timeline] == columns["valid_reward"]
    assert timeline[2]["reward"] == pytest.approx(sum(columns["reward"][2:]) / 2)
    assert timeline[2]["outside_mass"] == pytest.approx(sum(columns["outside_mass"][2:]) / 2)
    assert sum(timeline[2]["chosen_positions"]) == pytest.approx(1)
    assert summary.facts["validation"]["4"]["reward"] == columns["valid_reward"][-1]
    assert summary.facts["inflation"] == {"alarms": [], "stopped_at": None}


def test_the_reward_rises_on_users_that_training_never_saw(trained_copy: Workspace) -> None:
    """Without a KL term, over 64 users five times, each time with other candidates, for 64 others."""
    align(trained_copy, tag="greedy", epochs=5, beta=0.0, limit=64, eval_users=64, eval_steps=80)
    before, after = log_of(trained_copy.checkpoint(DATASET, "greedy"), "valid_reward")
    assert after > before + 0.01


def test_equal_rewards_move_nothing(trained_copy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REWARDS, "strict", lambda *_: 0.3)
    shorten_validation(trained_copy)
    align(trained_copy, tag="flat", beta=0.0)
    folder = trained_copy.checkpoint(DATASET, "flat")
    assert log_of(folder, "grad_norm") == [0, 0, 0, 0]
    assert log_of(folder, "frac_reward_zero_std") == [1, 1, 1, 1]
    assert log_of(folder, "reward") == pytest.approx([0.3] * 4)


def test_an_interrupted_run_ends_as_if_nothing_had_happened(
    trained_copy: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power goes at step 3, after the checkpoint of step 2; then Ctrl-C during step 4 keeps one of step 5."""
    plain = LogCallback.on_log
    knobs = {"limit": 32, "eval_steps": 3, "save_steps": 2}

    def interrupted(step: int, how: Any) -> Any:
        def on_log(self: LogCallback, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            plain(self, args, state, control, logs=logs, **kwargs)
            if state.global_step == step:
                how()

        return on_log

    def power_cut() -> None:
        raise RuntimeError("the power went")

    align(trained_copy, tag="whole", **knobs)
    for step, how, error in ((3, power_cut, RuntimeError), (4, lambda: os.kill(os.getpid(), 2), KeyboardInterrupt)):
        with monkeypatch.context() as patched:
            patched.setattr(LogCallback, "on_log", interrupted(step, how))
            with pytest.raises(error):
                align(trained_copy, tag="broken", **knobs)
    align(trained_copy, tag="broken", **knobs)
    assert_same_run(trained_copy.checkpoint(DATASET, "broken"), trained_copy.checkpoint(DATASET, "whole"))


def assert_same_run(one: Path, other: Path) -> None:
    ours, theirs = weights_of(one), weights_of(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for column in LOGGED:
        assert log_of(one, column) == log_of(other, column)
    assert list(read_jsonl(one / "metrics.jsonl")) == list(read_jsonl(other / "metrics.jsonl"))


def command_of(workspace: Workspace, **knobs: Any) -> list[str]:
    settings = grpo_settings(workspace, **({"rollouts": "exact"} | knobs))
    values = settings.model_dump(exclude_unset=True).items()
    return ["-m", "mllmrec", "grpo", *(f"--{name.replace('_', '-')}={value}" for name, value in values)]


@pytest.mark.slow
def test_a_killed_process_loses_nothing_but_time(trained_copy: Workspace) -> None:
    """kill -9 in the middle, through the command line."""
    knobs = {"limit": 40, "save_steps": 3, "eval_steps": 4}
    align(trained_copy, tag="whole", **knobs)
    command = [sys.executable, *command_of(trained_copy, tag="killed", **knobs)]
    folder = trained_copy.checkpoint(DATASET, "killed")
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and steps_logged(folder) < 5:
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert Manifest.read(folder) is None
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert_same_run(folder, trained_copy.checkpoint(DATASET, "whole"))


def steps_logged(folder: Path) -> int:
    log = folder / "training.jsonl"
    return max(map(int, re.findall(r'"step": (\d+)', log.read_text())), default=0) if log.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("rollouts", ["exact", "candidates"])
def test_two_processes_train_as_one(trained_copy: Workspace, rollouts: str) -> None:
    """Each takes half of every step's prompts, and gradients are averaged; a step of one process holds them all."""
    align(trained_copy, tag="one", rollouts=rollouts, batch=16)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, *command_of(trained_copy, tag="two", rollouts=rollouts, batch=8)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    one, two = trained_copy.checkpoint(DATASET, "one"), trained_copy.checkpoint(DATASET, "two")
    for column in ("reward", "outside_mass", "grad_norm", "valid_NDCG@3"):
        assert log_of(two, column) == pytest.approx(log_of(one, column), rel=5e-3, abs=1e-4)
    ours, theirs = weights_of(two), weights_of(one)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-3) for name in theirs)
