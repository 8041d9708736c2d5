"""`grpo --rollouts exact --think`: a thought earns what answers behind it earn, and the better one is learned."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import DATASET, WINDOW, copy_of, grpo_settings, sft_settings, weights_of

from mllmrec.data.draws import uniform
from mllmrec.data.sequences import Interactions
from mllmrec.errors import SettingsError
from mllmrec.models.base import ScoringTask
from mllmrec.models.chat import Encoder
from mllmrec.models.huggingface import load
from mllmrec.settings.base import validated
from mllmrec.settings.training import GrpoSettings
from mllmrec.storage.workspace import Workspace, read_json, read_jsonl
from mllmrec.training.callbacks import LogCallback
from mllmrec.training.datasets import training_examples, validation_examples
from mllmrec.training.grpo import stage as grpo
from mllmrec.training.grpo.thinking import thought_loss

GOOD, BAD = "aha", "hm"
THOUGHT_COLUMNS = ("thought_tokens", "thought_unfinished", "thought_reward_std", "thought_kl")


def test_the_loss_of_thoughts_by_hand() -> None:
    """Rewards 3, 1 and 2 have mean 2 and deviation sqrt(2/3); the tokens are four; KL where the reference is given."""
    sums = [torch.tensor([-1.0, -2.5], requires_grad=True), torch.tensor([-0.5]), torch.tensor([-4.0])]
    deviation = math.sqrt(2 / 3) + 1e-4
    loss, kl = thought_loss(sums, torch.tensor([3.0, 1.0, 2.0]), [None] * 3, 0.5)
    assert loss.item() == pytest.approx((2.5 - 0.5) / deviation / 4, rel=1e-4)
    assert kl == 0
    reference = [torch.tensor([-1.0, -2.0]), torch.tensor([-0.5]), torch.tensor([-4.0])]
    nearer, kl = thought_loss(sums, torch.tensor([3.0, 1.0, 2.0]), reference, 0.5)
    assert kl == pytest.approx((math.exp(0.5) - 1.5) / 4, rel=1e-4)
    assert nearer.item() == pytest.approx(loss.item() + 0.5 * kl, rel=1e-4)
    [gradient] = torch.autograd.grad(loss, sums[0])
    assert gradient.tolist() == pytest.approx([0.0, -1 / deviation / 4], rel=1e-4), "each token by the same weight"


def test_thoughts_that_earn_the_same_teach_nothing() -> None:
    loss, _ = thought_loss([torch.tensor([-1.0]), torch.tensor([-2.0])], torch.tensor([0.5, 0.5]), [None] * 2, 0.0)
    assert loss.item() == 0


def test_thinking_needs_the_whole_list() -> None:
    with pytest.raises(SettingsError, match=r"think with rollouts = 'generate': .*expected --rollouts exact"):
        validated(GrpoSettings, {"dataset": "d", "sft_tag": "s", "think": True}, "grpo")


@pytest.fixture(scope="module")
def planted(trained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A model that thinks "aha" and then answers as it was taught, or "hm" and then anything, half of the time each."""
    workspace = copy_of(trained, tmp_path_factory.mktemp("planted") / "workspace")
    loaded, interactions = (
        load(workspace, f"checkpoints/{DATASET}/full", device="cpu"),
        Interactions.load(workspace, DATASET),
    )
    encoder = Encoder.make(loaded.chat, interactions.catalogue, {}, 2048)
    settings = sft_settings(workspace, limit=None, windows="all")
    examples, model = training_examples(settings, workspace, interactions, WINDOW), loaded.model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=6e-3)
    rows = list(examples.rows(2))[:880]
    for start in range(0, len(rows), 8):
        optimiser.zero_grad()
        for epoch, index in rows[start : start + 8]:
            example = examples.example(epoch, index)
            good = uniform(1, "good", example.example_id) < 0.5
            others = [item for item in example.candidates if item != example.target_id]
            other = others[int(len(others) * uniform(1, "other", example.example_id))]
            answer = encoder.answer_ids(example.target_id if good else other)
            prompt = encoder.thinking_prompt_ids(example)
            written = [*loaded.chat.thought_ids(GOOD if good else BAD), *answer]
            labels = torch.tensor([[-100] * len(prompt) + written])
            (model(input_ids=torch.tensor([prompt + written]), labels=labels).loss / 8).backward()
        optimiser.step()
    folder = workspace.checkpoint(DATASET, "planted")
    model.eval().save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return workspace


KNOBS: dict[str, Any] = {
    "sft_tag": "planted",
    "tag": "thinking",
    "rollouts": "exact",
    "think": True,
    "min_inter": WINDOW,
    "max_prompt_tokens": 2048,
    "num_generations": 4,
    "batch": 16,
    "accum": 1,
    "limit": 120,
    "lr": 3e-3,
    "beta": 0.02,
    "max_thought_tokens": 8,
    "eval_users": 40,
    "eval_steps": 15,
}


def log_of(folder: Path, name: str) -> list[float]:
    return [row[name] for row in read_jsonl(folder / "training.jsonl") if name in row]


def share_of_the_good_thought(workspace: Workspace, adapter: Path | None = None) -> float:
    """exp of its score over the sum of both thoughts', on average over users whom training never saw."""
    loaded = load(workspace, f"checkpoints/{DATASET}/planted", adapter, device="cpu")
    interactions = Interactions.load(workspace, DATASET)
    encoder = Encoder.make(loaded.chat, interactions.catalogue, {}, 2048)
    settings = grpo_settings(workspace, **KNOBS)
    prompts = [encoder.thinking_prompt_ids(one) for one in validation_examples(settings, interactions, WINDOW)]
    thoughts = [loaded.chat.thought_ids(thought) for thought in (GOOD, BAD)]
    scores = dict(loaded.scorer(2048).score([ScoringTask(prompt_T=prompt, answers_C=thoughts) for prompt in prompts]))
    return sum(1 / (1 + math.exp(bad - good)) for good, bad in scores.values()) / len(scores)


@pytest.mark.slow
def test_the_thought_that_helps_is_learned(planted: Workspace) -> None:
    """On users whom training never saw: its share rises, and the reward that is expected behind one thought of each."""
    before = share_of_the_good_thought(planted)
    folder = grpo.run(grpo_settings(planted, **KNOBS), planted).artifact
    assert folder is not None
    after = share_of_the_good_thought(planted, folder)
    readings = read_json(folder / "manifest.json")["details"]["validation"]
    first, last = readings["0"], readings[max(readings, key=int)]
    assert 0.2 < before < 0.6
    assert after > before + 0.2
    assert last["reward"] > first["reward"] + 0.05
    assert read_json(folder / "manifest.json")["details"]["prompt_format"]["thought_share"] == 1.0
    assert all(0 < count <= 8 for count in log_of(folder, "thought_tokens"))
    *_, row = read_jsonl(folder / "metrics.jsonl")
    assert (row["thought_tokens"], row["thought_unfinished"]) > (0, -1)


@pytest.mark.slow
def test_an_interrupted_run_ends_as_if_nothing_had_happened(
    trained_copy: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power goes at step 3, after the checkpoint of step 2; then Ctrl-C during step 4 keeps one of step 5."""
    quick = {"rollouts": "exact", "think": True, "max_thought_tokens": 8, "beta": 0.02}
    knobs = quick | {"limit": 24, "eval_steps": 3, "save_steps": 2}
    plain = LogCallback.on_log

    def align(tag: str, **more: Any) -> Path:
        folder = grpo.run(grpo_settings(trained_copy, tag=tag, **knobs, **more), trained_copy).artifact
        assert folder is not None
        return folder

    def power_cut() -> None:
        raise RuntimeError("the power went")

    def interrupted(step: int, how: Callable[[], None]) -> Any:
        def on_log(self: LogCallback, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            plain(self, args, state, control, logs=logs, **kwargs)
            if state.global_step == step:
                how()

        return on_log

    whole = align("whole")
    for step, how, error in ((3, power_cut, RuntimeError), (4, lambda: os.kill(os.getpid(), 2), KeyboardInterrupt)):
        with monkeypatch.context() as patched:
            patched.setattr(LogCallback, "on_log", interrupted(step, how))
            with pytest.raises(error):
                align("broken")
    broken = align("broken")
    ours, theirs = weights_of(broken), weights_of(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert len(log_of(whole, "thought_tokens")) == 6
    for column in ("loss", "grad_norm", "reward", "kl", "valid_reward", *THOUGHT_COLUMNS):
        assert log_of(broken, column) == log_of(whole, column), column
    assert list(read_jsonl(broken / "metrics.jsonl")) == list(read_jsonl(whole / "metrics.jsonl"))
