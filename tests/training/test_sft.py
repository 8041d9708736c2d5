"""`mllmrec sft`: what moves, what is kept, and that an interruption changes nothing."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_models import (
    DATASET,
    ON_FULL,
    WINDOW,
    grpo_settings,
    sft_settings,
    shorten_validation,
    trainer_parts,
    weights_of,
)

from mllmrec.data.sequences import Interactions
from mllmrec.errors import ArtifactError, BackendError, SettingsError
from mllmrec.evaluation.metrics import FloatArray
from mllmrec.evaluation.ranking import stage as evaluate
from mllmrec.models import scoring
from mllmrec.models.chat import Encoder
from mllmrec.models.huggingface import load
from mllmrec.models.ranker import ranker_of
from mllmrec.records import Summary
from mllmrec.settings.evaluation import EvaluateSettings
from mllmrec.settings.training import SftSettings
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import Workspace, read_json, read_jsonl, sha256, write_json, write_text
from mllmrec.training import compact, sft
from mllmrec.training.callbacks import LogCallback, LossValidation, Validation, ValidationCallback, append_log
from mllmrec.training.datasets import validation_examples
from mllmrec.training.setup import as_trained

ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def train(workspace: Workspace, **knobs: Any) -> Summary:
    return sft.run(sft_settings(workspace, **knobs), workspace)


def log_of(folder: Path, column: str) -> dict[int, float]:
    """What training.jsonl says of one figure, by step."""
    return {row["step"]: row[column] for row in read_jsonl(folder / "training.jsonl") if column in row}


def changed(folder: Path, base: Path) -> dict[str, bool]:
    before, after = weights_of(base), weights_of(folder)
    assert before.keys() == after.keys()
    return {name: not torch.equal(before[name], after[name]) for name in before}


def interrupting(step: int, how: Callable[[], None]) -> Callable[..., None]:
    """A LogCallback.on_log that does its work and then, at one step, what `how` does."""
    plain = LogCallback.on_log

    def on_log(self: LogCallback, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        plain(self, args, state, control, logs=logs, **kwargs)
        if state.global_step == step:
            how()

    return on_log


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def power_cut() -> None:
    raise RuntimeError("the power went")


def test_adapters_move_and_the_base_does_not(trained: Workspace) -> None:
    folder = trained.checkpoint(DATASET, "sft")
    weights = weights_of(folder)
    assert len(weights) == 2 * 2 * len(ADAPTED)
    assert all(any(f".{name}.lora_" in key for name in ADAPTED) for key in weights)
    assert all(weights[key].abs().max() > 0 for key in weights)
    config = read_json(folder / "adapter_config.json")
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (16, 16, 0.05)
    assert config["modules_to_save"] is None


def test_the_base_in_memory_does_not_move_either(toy_copy: Workspace) -> None:
    settings = sft_settings(toy_copy)
    parts = trainer_parts(toy_copy, settings, "tiny", lambda name: sft.lora_of(settings, name), steps=3)
    trainer = sft.make_trainer(parts)
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, weight in trainer.model.named_parameters() if not torch.equal(before[name], weight)}
    assert moved == {name for name in before if "lora_" in name}


def test_without_peft_everything_moves_and_the_result_is_a_model_folder(trained: Workspace) -> None:
    folder = trained.checkpoint(DATASET, "full")
    assert all(changed(folder, trained.root / "tiny").values())
    assert load(trained, folder, device="cpu").names == (str(folder),)
    assert not (folder / "adapter_config.json").exists()


def test_the_loss_falls_and_validation_rises(trained: Workspace) -> None:
    """From guessing among 482 tokens to 1.1 nats; popular items are easily learned, so NDCG@3 doubles almost."""
    folder = trained.checkpoint(DATASET, "full")
    losses = list(log_of(folder, "loss").values())
    assert losses[0] == pytest.approx(math.log(482), abs=0.3)
    assert sum(losses[-10:]) / 10 < 1.6
    readings = log_of(folder, "valid_NDCG@3")
    assert readings[max(readings)] > readings[0] + 0.2


def test_rows_that_would_change_the_positions_of_those_beside_them_are_refused(toy_copy: Workspace) -> None:
    shorten_validation(toy_copy)
    path = toy_copy.root / "tiny" / "config.json"
    scaled = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    write_json(path, read_json(path) | {"rope_parameters": scaled, "max_position_embeddings": 90})
    with pytest.raises(BackendError, match=r"Qwen3ForCausalLM scales positions \(dynamic\) .*passes 90 tokens"):
        sft.run(sft_settings(toy_copy, limit=8, max_prompt_tokens=90), toy_copy)


@pytest.mark.parametrize(
    "scaling", [{}, {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}}]
)
def test_a_budget_beyond_the_context_is_refused_before_loading(
    toy_copy: Workspace, scaling: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = toy_copy.root / "tiny" / "config.json"
    write_json(path, read_json(path) | scaling | {"max_position_embeddings": 512})
    with pytest.raises(SettingsError, match=r"reads 512 tokens .* 4,096: give --max-prompt-tokens 448 or less"):
        train(toy_copy, max_prompt_tokens=4096)
    settings = {"dataset": DATASET, "root": str(toy_copy.root), "backbone": "tiny", "min_inter": WINDOW}
    ranking = EvaluateSettings(**settings, max_prompt_tokens=513)
    with pytest.raises(SettingsError, match=r"reads 512 tokens .*--max-prompt-tokens 448"):
        evaluate.run(ranking, toy_copy)
    assert "model:" not in capsys.readouterr().err


def test_a_budget_that_is_not_given_is_within_the_context(
    toy_copy: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    """512 tokens less 64 for an answer; what is trained so hands its budget on, and thoughts take room of their own."""
    path = toy_copy.root / "tiny" / "config.json"
    write_json(path, read_json(path) | {"max_position_embeddings": 512})
    folder = train(toy_copy, limit=16, peft="none", tag="short").artifact
    assert folder is not None
    manifest = read_json(folder / "manifest.json")
    assert manifest["settings"]["max_prompt_tokens"] == 448
    assert manifest["details"]["prompt_format"]["max_prompt_tokens"] == 448
    said = "reads 512 tokens: prompts are kept to 448, which leaves room for an answer. --max-prompt-tokens gives"
    assert capsys.readouterr().err.count(said) == 1
    aligned = grpo_settings(toy_copy, sft_tag="short", tag="aligned", rollouts="exact")
    assert as_trained(aligned, folder).max_prompt_tokens == 448
    (folder / "manifest.json").unlink()
    capsys.readouterr()
    assert as_trained(aligned, folder).max_prompt_tokens == 448
    assert "prompts are kept to 448" in capsys.readouterr().err
    settings = {"dataset": DATASET, "root": str(toy_copy.root), "backbone": "tiny", "min_inter": WINDOW, "limit": 2}
    for knobs, budget in (
        ({}, 448),
        ({"thoughts": 1, "max_thought_tokens": 100}, 348),
        ({"max_prompt_tokens": 500}, 500),
    ):
        ranked = evaluate.run(EvaluateSettings(**settings, **knobs, overwrite=True), toy_copy)
        assert ranked.artifact is not None
        assert read_json(ranked.artifact / "manifest.json")["settings"]["max_prompt_tokens"] == budget
        assert ("prompts are kept to" in capsys.readouterr().err) == (budget != 500)


def test_an_encoder_is_refused_before_loading(toy_copy: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    path = toy_copy.root / "tiny" / "config.json"
    for kind in ("bert", "t5"):
        write_json(path, {"model_type": kind})
        with pytest.raises(BackendError, match=f"a {kind} model, .* Expected a causal language model"):
            train(toy_copy)
    assert "model:" not in capsys.readouterr().err


def test_validation_by_loss_keeps_the_step_of_the_lowest(toy_copy: Workspace) -> None:
    """The loss before the first step is that of exact scores: -score of the right answer over its tokens."""
    summary = train(toy_copy, validate="loss", eval_steps=2, limit=48)
    folder = toy_copy.checkpoint(DATASET, "sft")
    readings = log_of(folder, "valid_loss")
    assert list(readings) == [0, 2, 4, 6]
    assert summary.facts["best_step"] == min(readings, key=lambda step: readings[step]) > 0
    assert f"(best loss at step {summary.facts['best_step']})" in summary.headline
    manifest = Manifest.read(folder)
    assert manifest is not None
    assert (manifest.settings["validate_"], manifest.settings["select_by"]) == ("loss", "loss")
    settings, interactions = sft_settings(toy_copy), Interactions.load(toy_copy, DATASET)
    ranker = ranker_of(load(toy_copy, "tiny", device="cpu"), interactions.catalogue, {}, 4096)
    losses = []
    for example in validation_examples(settings, interactions, WINDOW):
        [(_, scores)] = ranker.scorer.score([ranker.encoder.scoring_task(example)])
        target = example.candidates.index(example.target_id)
        losses.append(-scores[target] / len(ranker.encoder.answer_ids(example.target_id)))
    assert readings[0] == pytest.approx(sum(losses) / len(losses), abs=1e-4)


def test_a_resumed_run_knows_the_losses_so_far(tmp_path: Path) -> None:
    for step, loss in enumerate((2.0, 1.5, 1.75)):
        append_log(tmp_path, step, {"valid_loss": loss})
        append_log(tmp_path, step, {"loss": [loss, loss]}, "validation.jsonl")
    callback = ValidationCallback(tmp_path, LossValidation([]), 1, lambda _model, _folder: None, "loss")
    callback.on_train_begin(None, SimpleNamespace(global_step=2), None)
    assert (callback.readings[2], callback.by_user[1], callback.best_step) == ({"loss": 1.75}, [1.5, 1.5], 1)


def test_a_model_that_cannot_be_scored_is_trained_by_loss(toy_copy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "find_map", lambda *_: None)
    with pytest.raises(
        BackendError, match=r"exact scoring doesn't know\. Validation reads such scores: .*--validate loss"
    ):
        train(toy_copy, limit=8)
    ranking = EvaluateSettings(dataset=DATASET, root=str(toy_copy.root), backbone="tiny", min_inter=WINDOW)
    with pytest.raises(BackendError, match=r"doesn't know\. Rank with --method generate"):
        evaluate.run(ranking, toy_copy)
    assert train(toy_copy, limit=8, validate="loss", overwrite=True).facts["best_step"] in (0, 1)


@pytest.mark.parametrize("given", [{"validate": "loss", "select_by": "HR@1"}, {"select_by": "loss"}])
def test_what_validation_does_not_measure_selects_nothing(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"isn't what validation measures"):
        SftSettings(dataset="d", **given)


def test_knobs_of_adapters_without_adapters_are_told(toy_copy: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    shorten_validation(toy_copy)
    train(toy_copy, peft="none", limit=8, rank=4, lora_targets="attention")
    assert "--rank, --lora-targets: without effect, since --peft none" in capsys.readouterr().err


def test_the_manifest_holds_what_later_verbs_inherit(trained: Workspace) -> None:
    manifest = Manifest.read(trained.checkpoint(DATASET, "full"))
    assert manifest is not None
    details = manifest.details
    assert details["prompt_format"] | {"template": ""} == {
        "window": 5,
        "captions": False,
        "max_prompt_tokens": 4096,
        "template": "",
        "hint_share": 0.0,
        "thought_share": 0.0,
        "chat_template": "",
        "candidates": 5,
    }
    assert (details["model"], details["peft"], details["steps"]) == ("tiny", "none", 116)
    lines = Interactions.load(trained, DATASET).train
    assert manifest.counts["examples"] == sum(len(line.items) - WINDOW + 1 for line in lines)
    assert set(manifest.inputs) == {"train", "valid", "titles", "model", "template"}
    assert details["validation"].keys() == {"0", "116"}


def test_only_the_result_is_left_in_the_folder(trained: Workspace) -> None:
    for tag in ("full", "sft", "grpo"):
        names = {path.name for path in trained.checkpoint(DATASET, tag).iterdir()}
        assert not {name for name in names if name.startswith(("checkpoint-", ".", "best", "unfinished"))}
        assert {"manifest.json", "training.jsonl", "tokenizer.json", "chat_template.jinja"} <= names


def test_four_passes_of_one_example_are_one_pass_of_four(toy_copy: Workspace) -> None:
    """Answers differ in length, so a mean of means would differ; without dropout the two are the same arithmetic."""
    knobs = {"peft": "none", "limit": 24, "lr": 1e-3}
    train(toy_copy, tag="at-once", batch=4, accum=1, **knobs)
    train(toy_copy, tag="in-four", batch=1, accum=4, **knobs)
    at_once, in_four = toy_copy.checkpoint(DATASET, "at-once"), toy_copy.checkpoint(DATASET, "in-four")
    for column in ("loss", "grad_norm"):
        found, expected = log_of(in_four, column), log_of(at_once, column)
        assert len(found) == 6
        assert found == {step: pytest.approx(value, rel=2e-3) for step, value in expected.items()}
    ours, theirs = weights_of(in_four), weights_of(at_once)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)


def test_the_trainer_reads_only_answers_in_the_last_layer(toy_copy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the trainer wraps the model in, each of its passes is one that skips prompts."""
    skipped: list[int] = []
    plain = compact._in_two_parts

    def counted(layer: Any, number: int, hidden: torch.Tensor, length: int, kwargs: dict[str, Any]) -> torch.Tensor:
        skipped.append(length)
        return plain(layer, number, hidden, length, kwargs)

    monkeypatch.setattr(compact, "_in_two_parts", counted)
    for peft in ("lora", "none"):
        train(toy_copy, tag=peft, peft=peft, limit=16, batch=4, accum=2)
    assert len(skipped) == 2 * 4
    assert min(skipped) > 20


def test_steps_are_those_of_all_epochs_and_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SftSettings(dataset=DATASET, epochs=3, batch=2, accum=8)
    assert sft.total_steps(100, settings) == 19
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert sft.total_steps(100, settings) == 10


@pytest.mark.parametrize("peft", ["lora", "none"])
def test_an_interrupted_run_ends_as_if_nothing_had_happened(
    toy_copy: Workspace, monkeypatch: pytest.MonkeyPatch, peft: str
) -> None:
    """A power cut at step 5, when the last checkpoint is that of step 3, or of 4 when that was the best reading; then
    Ctrl-C, which keeps one of step 8."""
    knobs = {"peft": peft, "eval_steps": 4, "save_steps": 3, "seed": 3}
    broken, whole = toy_copy.checkpoint(DATASET, "broken"), toy_copy.checkpoint(DATASET, "whole")
    handler = signal.getsignal(signal.SIGINT)
    train(toy_copy, tag="whole", **knobs)
    for step, how, error, kept in (
        (5, power_cut, RuntimeError, {3, 4}),
        (7, ctrl_c, KeyboardInterrupt, {8}),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(LogCallback, "on_log", interrupting(step, how))
            with pytest.raises(error):
                train(toy_copy, tag="broken", **knobs)
        assert max(int(path.name.split("-")[1]) for path in broken.glob("checkpoint-*")) in kept
        assert signal.getsignal(signal.SIGINT) is handler
        assert Manifest.read(broken) is None
    with pytest.raises(ArtifactError, match=r"holds an interrupted run that reached step 8. Leave --no-resume out"):
        train(toy_copy, tag="broken", resume=False, **knobs)
    train(toy_copy, tag="broken", **knobs)
    assert_same_run(broken, whole)


@pytest.mark.slow
def test_a_killed_process_loses_nothing_but_time(toy_copy: Workspace) -> None:
    """kill -9 in the middle, twice, through the command line."""
    knobs = {"windows": "all", "limit": None, "save_steps": 5, "eval_steps": 10}
    train(toy_copy, tag="whole", **knobs)
    settings = sft_settings(toy_copy, tag="killed", **knobs)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.model_dump(exclude_unset=True).items()]
    command = [sys.executable, "-m", "mllmrec", "sft", *(flag for flag in flags if "=None" not in flag)]
    folder = toy_copy.checkpoint(DATASET, "killed")
    for step in (13, 31):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None and steps_logged(folder) < step:
            time.sleep(0.02)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert Manifest.read(folder) is None
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert_same_run(folder, toy_copy.checkpoint(DATASET, "whole"))


def steps_logged(folder: Path) -> int:
    log = folder / "training.jsonl"
    return max(map(int, re.findall(r'"step": (\d+)', log.read_text())), default=0) if log.exists() else 0


def assert_same_run(one: Path, other: Path) -> None:
    """The same weights to the bit, and the same log but for the times in it."""
    ours, theirs = weights_of(one), weights_of(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for column in ("loss", "grad_norm", "valid_NDCG@3", "valid_HR@1"):
        assert log_of(one, column) == log_of(other, column)
    steps = [row["step"] for row in read_jsonl(one / "training.jsonl")]
    assert steps == sorted(steps)


def test_ctrl_c_at_the_last_step_leaves_nothing_to_do_but_finish(
    toy_copy: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(LogCallback, "on_log", interrupting(9, ctrl_c))
        with pytest.raises(KeyboardInterrupt, match="stopped at step 10"):
            train(toy_copy)
    assert "10 steps" in train(toy_copy).headline
    assert Manifest.read(toy_copy.checkpoint(DATASET, "sft")) is not None


def test_an_interrupted_run_is_not_gone_on_with_in_another_way(
    toy_copy: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(LogCallback, "on_log", interrupting(4, ctrl_c))
        with pytest.raises(KeyboardInterrupt, match="stopped at step 5; the same command goes on from there"):
            train(toy_copy)
    with pytest.raises(ArtifactError, match=r"setting lr was 0\.005 and is now 0\.1; setting rank was 16 and is now 8"):
        train(toy_copy, lr=0.1, rank=8)
    path = toy_copy.dataset(DATASET).split("train")
    before = path.read_text()
    write_text(path, before + "late\t101 102 103 104 105\n")
    with pytest.raises(ArtifactError, match=r"the input train has changed since"):
        train(toy_copy)
    write_text(path, before)
    folder = toy_copy.checkpoint(DATASET, "sft")
    with (folder / "training.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": 1.')
    train(toy_copy, save_steps=7)
    assert list(log_of(folder, "loss")) == list(range(1, 11))


def test_overwriting_starts_an_interrupted_run_afresh(toy_copy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(LogCallback, "on_log", interrupting(4, ctrl_c))
        with pytest.raises(KeyboardInterrupt):
            train(toy_copy)
    train(toy_copy, overwrite=True, limit=40)
    assert log_of(toy_copy.checkpoint(DATASET, "sft"), "loss").keys() == {1, 2, 3, 4, 5}


def test_checkpoints_of_another_program_are_left_alone(toy_copy: Workspace) -> None:
    foreign = toy_copy.checkpoint(DATASET, "sft") / "checkpoint-500" / "trainer_state.json"
    write_text(foreign, "{}")
    with pytest.raises(ArtifactError, match=r"holds checkpoints of another program \(checkpoint-500\)"):
        train(toy_copy)
    assert foreign.exists()


def test_a_finished_checkpoint_is_left_alone_and_another_one_refused(trained_copy: Workspace) -> None:
    folder = trained_copy.checkpoint(DATASET, "sft")
    before = {path.name: sha256(path) for path in folder.iterdir()}
    summary = train(trained_copy, **ON_FULL)
    assert "is finished; nothing to do" in summary.headline
    assert summary.facts["steps"] == 20
    train(trained_copy, **ON_FULL, save_steps=7, logging_steps=3, workers=1)
    with pytest.raises(ArtifactError, match=r"was already made by `mllmrec sft` .*setting epochs was 1 and is now 2"):
        train(trained_copy, **ON_FULL, epochs=2)
    with pytest.raises(ArtifactError, match=r"the input model has changed since"):
        train(trained_copy, lr=1e-2, backbone="tiny")
    assert {path.name: sha256(path) for path in folder.iterdir()} == before


def reading(ndcg: float) -> FloatArray:
    """A validation of two users that both have this NDCG@3."""
    return np.tile([0.0, 1.0, ndcg], (2, 1))


def test_the_weights_of_the_best_validation_are_kept(toy_copy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings by script: .2 at the start, then .5, .8, .8, .1; the earlier of two equal ones wins: step 4."""
    script, seen = [0.2, 0.5, 0.8, 0.8, 0.1], []

    def by_user(self: Validation, model: Any, rank: int = 0, world_size: int = 1) -> FloatArray:
        seen.append({name: weight.detach().clone() for name, weight in model.state_dict().items()})
        return reading(script[len(seen) - 1])

    monkeypatch.setattr(Validation, "by_user", by_user)
    summary = train(toy_copy, peft="none", limit=64, eval_steps=2)
    folder = toy_copy.checkpoint(DATASET, "sft")
    assert log_of(folder, "valid_NDCG@3") == dict(zip((0, 2, 4, 6, 8), script, strict=True))
    assert summary.facts["best_step"] == 4
    kept = weights_of(folder)
    assert all(torch.equal(weight, seen[2][name]) for name, weight in kept.items())
    assert not all(torch.equal(weight, seen[3][name]) for name, weight in kept.items())


@pytest.mark.parametrize(("select_by", "best"), [("NDCG@3", 2), ("HR@1", 0), ("HR@3", 4), ("reward", 1)])
def test_what_selects_is_asked_for_and_the_first_of_equals_wins(tmp_path: Path, select_by: str, best: int) -> None:
    """(HR@1, HR@3, NDCG@3, reward) by step: each is highest at another one."""
    callback = ValidationCallback(tmp_path, Validation([], [], 1), 1, lambda _model, _folder: None, select_by)
    script = [
        (0.5, 0.6, 0.5, 0.1),
        (0.4, 0.6, 0.5, 0.9),
        (0.5, 0.7, 0.6, 0.3),
        (0.2, 0.7, 0.6, 0.9),
        (0.3, 0.8, 0.1, 0.2),
    ]
    names = ("HR@1", "HR@3", "NDCG@3", "reward")
    callback.readings = {step: dict(zip(names, values, strict=True)) for step, values in enumerate(script)}
    assert callback.best_step == best


def test_the_setting_reaches_the_choice(toy_copy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """HR@3 is best at step 2, NDCG@3 and HR@1 at step 4; the headline tells what chose, too."""
    script = iter([(0.1, 0.5, 0.3), (0.3, 0.6, 0.2), (0.4, 0.5, 0.7)])
    monkeypatch.setattr(Validation, "by_user", lambda *_: np.tile(next(script), (2, 1)))
    summary = train(toy_copy, limit=32, eval_steps=2, select_by="HR@3")
    assert summary.facts["best_step"] == 2
    assert "NDCG@3 0.300 -> 0.200, HR@1 0.100 -> 0.300, HR@3 0.500 -> 0.600 (best HR@3 at step 2)" in summary.headline


@pytest.mark.parametrize(("script", "best", "warned"), [([0.5, 0.4, 0.5], 0, True), ([0.4, 0.5, 0.4], 2, False)])
def test_training_that_made_nothing_better_is_told_in_words(
    toy_copy: Workspace, monkeypatch: pytest.MonkeyPatch, script: list[float], best: int, warned: bool
) -> None:
    readings = iter(script)
    monkeypatch.setattr(Validation, "by_user", lambda *_: reading(next(readings)))
    summary = train(toy_copy, limit=32, eval_steps=2)
    assert summary.facts["best_step"] == best
    told = [warning for warning in summary.warnings if "the weights kept are those that training began with" in warning]
    assert bool(told) == warned
    assert not [warning for warning in told if f"{summary.artifact} ranks as tiny does" not in warning]


def test_the_recorded_validation_is_that_of_the_saved_model(trained: Workspace) -> None:
    """Loaded again, the checkpoint ranks the validation slice exactly as was measured while it trained."""
    manifest = Manifest.read(trained.checkpoint(DATASET, "full"))
    assert manifest is not None
    details = manifest.details
    loaded = load(trained, f"checkpoints/{DATASET}/full", device="cpu")
    interactions = Interactions.load(trained, DATASET)
    encoder = Encoder.make(loaded.chat, interactions.catalogue, {}, 2048)
    examples = validation_examples(sft_settings(trained), interactions, WINDOW)
    again = Validation(examples, [encoder.scoring_task(example) for example in examples], 500).measure(loaded.model)
    assert again == details["validation"][str(details["best_step"])]


def test_without_validation_the_last_weights_are_kept(toy_copy: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    shorten_validation(toy_copy)
    summary = train(toy_copy)
    assert "the last checkpoint is kept, not the best one" in capsys.readouterr().err
    assert summary.facts["best_step"] is None
    weights = weights_of(toy_copy.checkpoint(DATASET, "sft"))
    assert all(weight.abs().max() > 0 for weight in weights.values())


def test_captions_are_used_where_they_are_and_told(toy_copy: Workspace) -> None:
    titles = Interactions.load(toy_copy, DATASET).catalogue
    rows = {item: {"title": titles.title(item), "caption": "a warm glow"} for item in titles}
    write_json(toy_copy.dataset(DATASET).captions, rows)
    summary = train(toy_copy, limit=8)
    assert summary.facts["prompt_format"]["captions"] is True
    manifest = Manifest.read(toy_copy.checkpoint(DATASET, "sft"))
    assert manifest is not None
    assert "captions" in manifest.inputs


@pytest.mark.parametrize(
    ("knobs", "error", "message"),
    [
        ({"backbone": "nowhere"}, ArtifactError, r"There is no model 'nowhere'.*tiny"),
        ({"captions": "on"}, ArtifactError, r"--captions on needs .*toy_captions\.json"),
        ({"use_cot": True}, ArtifactError, r"A file of reasoning traces is missing"),
    ],
)
def test_what_is_missing_is_told_before_training(
    toy_copy: Workspace, knobs: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(toy_copy, **knobs)
    assert not (toy_copy.checkpoint(DATASET, "sft") / "unfinished.json").exists()
