"""`mllmrec grpo`: what is refused before anything loads, what moves, what is logged, and that it resumes."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import DATASET, WINDOW, grpo_lora, grpo_settings, shorten_validation, trainer_parts, weights_of

from mllmrec.errors import ArtifactError, SettingsError
from mllmrec.records import Summary
from mllmrec.settings.training import GrpoSettings
from mllmrec.storage.manifests import Manifest, hash_model
from mllmrec.storage.workspace import Workspace, read_jsonl, write_text
from mllmrec.training.callbacks import LogCallback, Validation
from mllmrec.training.grpo import stage as grpo

LOGGED = ("reward", "reward_std", "kl", "hit_share", "invalid_share", "frac_reward_zero_std", "entropy")


def align(workspace: Workspace, **knobs: Any) -> Summary:
    return grpo.run(grpo_settings(workspace, **knobs), workspace)


def log_of(folder: Path, column: str) -> list[float]:
    return [row[column] for row in read_jsonl(folder / "training.jsonl") if column in row]


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"batch": 4, "accum": 3}, "1 process(es) x --batch 4 x --accum 3 = 12 answers, which is no multiple of "),
        ({"batch": 4, "accum": 8, "num_generations": 5}, "= 32 answers, which is no multiple of --num-generations 5"),
    ],
)
def test_a_step_of_broken_groups_is_refused_before_anything_loads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, knobs: dict[str, int], told: str
) -> None:
    """There is no dataset and no model here, and nobody asks for one."""
    monkeypatch.setattr(grpo, "load", None)
    settings = GrpoSettings(dataset="nowhere", sft_tag="none", root=str(tmp_path), **knobs)
    with pytest.raises(SettingsError) as error:
        grpo.run(settings, Workspace(tmp_path))
    assert told in str(error.value)
    assert "Choose --accum so that it is" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_all_processes_count_for_whole_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = GrpoSettings(dataset="toy", sft_tag="full", batch=4, accum=1, num_generations=8)
    with pytest.raises(SettingsError, match="= 4 answers"):
        grpo.check_divisibility(settings)
    monkeypatch.setenv("WORLD_SIZE", "2")
    grpo.check_divisibility(settings)


def test_adapters_are_refused_with_the_command_that_merges_them(trained: Workspace) -> None:
    with pytest.raises(ArtifactError) as error:
        align(trained, sft_tag="sft", tag="never")
    assert "mllmrec merge --dataset toy --tag sft, then use --sft-tag sft-merged" in str(error.value)
    with pytest.raises(ArtifactError, match=r"nowhere is no finished checkpoint. Train it with `mllmrec sft`"):
        align(trained, sft_tag="nowhere", tag="never")
    assert not trained.checkpoint(DATASET, "never").exists()


def test_steps_hold_whole_groups() -> None:
    """32 answers in groups of 8 are 4 prompts a step: 100 examples are 25 steps, 3 epochs of 10 are 7."""
    settings = GrpoSettings(dataset="toy", sft_tag="full", batch=4, accum=8, num_generations=8)
    assert grpo.total_steps(100, settings) == 25
    assert grpo.total_steps(10, settings.model_copy(update={"epochs": 3})) == 7
    with pytest.raises(SettingsError, match=r"A step takes 4 prompts, and 1 epoch\(s\) of 3 examples hold fewer"):
        grpo.total_steps(3, settings)


def test_adapters_move_and_the_base_does_not(trained_copy: Workspace) -> None:
    """In memory: the LoRA alone has changed. On disk: the model it started from is what it was."""
    settings = grpo_settings(trained_copy)
    folder = trained_copy.checkpoint(DATASET, "full")
    before_hash = hash_model(folder)
    trainer = grpo.make_trainer(trainer_parts(trained_copy, settings, folder, partial(grpo_lora, settings), steps=4))
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, weight in trainer.model.named_parameters() if not torch.equal(before[name], weight)}
    assert moved == {name for name in before if "lora_" in name}
    assert len(moved) == 2 * 2 * 7
    assert hash_model(folder) == before_hash


def test_the_last_adapters_are_saved_where_there_is_no_validation(trained_copy: Workspace) -> None:
    shorten_validation(trained_copy)
    summary = align(trained_copy, tag="last")
    weights = weights_of(trained_copy.checkpoint(DATASET, "last"))
    assert len(weights) == 28
    assert all("lora_" in name and value.abs().max() > 0 for name, value in weights.items())
    assert (summary.facts["best_step"], summary.facts["steps"]) == (None, 4)
    assert summary.facts["model"] == f"checkpoints/{DATASET}/full"


def test_alignment_that_made_nothing_better_is_told_in_words(trained_copy: Workspace) -> None:
    """At a learning rate that moves nothing every validation is the first one again, and the earliest best is kept."""
    summary = align(trained_copy, tag="still", limit=4, lr=1e-30)
    assert summary.facts["best_step"] == 0
    assert any("the weights kept are those that training began with" in warning for warning in summary.warnings)


def test_the_expected_reward_chooses_where_it_is_asked_to(
    trained_copy: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(HR@1, HR@3, NDCG@3, reward) of steps 0, 2, 4: NDCG@3 is best at the first, the reward at the second."""
    script = iter([(0.1, 0.5, 0.7, 0.2), (0.1, 0.5, 0.3, 0.9), (0.1, 0.5, 0.2, 0.4)])
    monkeypatch.setattr(Validation, "by_user", lambda *_: np.tile(next(script), (2, 1)))
    summary = align(trained_copy, tag="paid", eval_steps=2, select_by="reward")
    assert (summary.facts["best_step"], summary.facts["steps"]) == (2, 4)


def test_what_is_logged_adds_up(trained: Workspace) -> None:
    """With the strict rule the mean reward is hits - 1.5 x invalid answers; the policy starts as the reference."""
    folder = trained.checkpoint(DATASET, "grpo")
    columns = {name: log_of(folder, name) for name in LOGGED}
    assert {len(values) for values in columns.values()} == {4}
    for reward, hits, invalid in zip(columns["reward"], columns["hit_share"], columns["invalid_share"], strict=True):
        assert reward == pytest.approx(hits - 1.5 * invalid)
        assert 0 <= hits <= 1 - invalid <= 1
    assert columns["kl"][0] == pytest.approx(0, abs=1e-6)
    assert max(columns["kl"]) > 1e-5
    assert all(share in (0, 0.25, 0.5, 0.75, 1) for share in columns["frac_reward_zero_std"])
    assert min(columns["invalid_share"]) < 1
    assert len(log_of(folder, "valid_NDCG@3")) == 2


def test_the_reference_rule_is_logged_with_the_same_shares(trained_copy: Workspace) -> None:
    align(trained_copy, tag="reference", reward="reference", limit=4)
    folder = trained_copy.checkpoint(DATASET, "reference")
    reward, hits = log_of(folder, "reward")[0], log_of(folder, "hit_share")[0]
    assert -1 <= reward <= 0.3 + 0.7 * hits + 1e-6


def test_the_format_of_the_sft_model_is_inherited(trained: Workspace) -> None:
    """Nobody said five items, and the default is ten."""
    manifest = Manifest.read(trained.checkpoint(DATASET, "grpo"))
    assert manifest is not None
    assert manifest.settings["min_inter"] == 5
    assert manifest.details["prompt_format"]["window"] == 5
    assert manifest.details["model"] == f"checkpoints/{DATASET}/sft-merged"


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"min_inter": 7}, "window is 7, and .*full was trained with 5"),
        ({"captions": "on"}, "captions is True, and .*full was trained with False"),
        ({"min_inter": 7, "captions": "on"}, "window is 7, .*; captions is True"),
    ],
)
def test_a_conflict_with_the_format_is_refused(trained: Workspace, knobs: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=f"{told}.* Leave the setting out to inherit it"):
        align(trained, tag="never", **knobs)
    assert not trained.checkpoint(DATASET, "never").exists()


def test_saying_what_is_inherited_is_the_same_as_leaving_it_out(trained_copy: Workspace) -> None:
    said = {"min_inter": WINDOW, "max_prompt_tokens": 4096, "captions": "off"}
    summary = align(trained_copy, tag="said", limit=4, **said)
    assert summary.facts["steps"] == 1
    before = Manifest.read(trained_copy.checkpoint(DATASET, "said"))
    assert "nothing to do" in align(trained_copy, tag="said", limit=4).headline
    write_text(trained_copy.dataset(DATASET).captions, "{}")
    assert "nothing to do" in align(trained_copy, tag="said", limit=4, min_inter=WINDOW).headline
    assert Manifest.read(trained_copy.checkpoint(DATASET, "said")) == before


def test_an_interrupted_run_ends_as_if_nothing_had_happened(
    trained_copy: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C during step 2 keeps a checkpoint of step 3; sampling goes on with the same random numbers."""
    plain = LogCallback.on_log

    def on_log(self: LogCallback, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        plain(self, args, state, control, logs=logs, **kwargs)
        if state.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    shorten_validation(trained_copy)
    align(trained_copy, tag="whole", limit=20)
    with monkeypatch.context() as patched:
        patched.setattr(LogCallback, "on_log", on_log)
        with pytest.raises(KeyboardInterrupt, match="stopped at step 3; the same command goes on from there"):
            align(trained_copy, tag="broken", limit=20)
    with pytest.raises(ArtifactError, match=r"interrupted run that reached step 3. Leave --no-resume out"):
        align(trained_copy, tag="broken", limit=20, resume=False)
    with pytest.raises(ArtifactError, match=r"setting beta was 0\.1 and is now 0\.2"):
        align(trained_copy, tag="broken", limit=20, beta=0.2)
    align(trained_copy, tag="broken", limit=20)
    whole, broken = (trained_copy.checkpoint(DATASET, tag) for tag in ("whole", "broken"))
    ours, theirs = weights_of(broken), weights_of(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for column in LOGGED:
        assert log_of(broken, column) == log_of(whole, column)
        assert len(log_of(whole, column)) == 5


def test_a_finished_checkpoint_is_left_alone_and_another_one_refused(trained: Workspace) -> None:
    knobs = {"sft_tag": "sft-merged"}
    assert "nothing to do" in align(trained, **knobs).headline
    with pytest.raises(ArtifactError, match=r"setting temperature was 1\.0 and is now 0\.9"):
        align(trained, **knobs, temperature=0.9)
    with pytest.raises(ArtifactError, match="setting sft_tag was 'sft-merged' and is now 'full'; the input model"):
        align(trained)
