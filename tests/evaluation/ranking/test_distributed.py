"""Several processes, started by the field's launchers, do what one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import DATASET, grpo_settings, sft_settings, weights_of

from mllmrec.storage.workspace import Workspace, read_json, read_jsonl
from mllmrec.training import sft
from mllmrec.training.grpo import stage as grpo

pytestmark = pytest.mark.slow

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node")
ACCELERATE = ("-m", "accelerate.commands.launch", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no")
STEM = "test_uni9_w5_s42"


def launch(*arguments: str | Path, fails: bool = False) -> str:
    """Run a launcher with one thread a process, and return what it wrote on standard error."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode != 0) == fails, done.stderr[-3000:]
    return done.stderr


def flags_of(settings: sft.SftSettings | grpo.GrpoSettings) -> list[str]:
    given = settings.model_dump(exclude_unset=True)
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]


def log_of(folder: Path, column: str) -> list[float]:
    return [row[column] for row in read_jsonl(folder / "training.jsonl") if column in row]


def test_one_two_and_three_processes_write_the_same_bytes(trained_copy: Workspace) -> None:
    """160 users are three chunks: with two processes one has more to do, with three each has one."""
    folder = trained_copy.dataset(DATASET).run("grpo", STEM)
    written = []
    for processes in (1, 2, 3):
        evaluate = ("-m", "mllmrec", "evaluate", "--dataset", DATASET, "--root", trained_copy.root, "--tag", "grpo")
        launch(*TORCHRUN, str(processes), *evaluate, "--overwrite")
        written.append((folder / "rankings.jsonl").read_bytes())
        told = read_json(folder / "grpo_toy_top3.json")
        assert (told["world_size"], told["distributed"]) == (processes, processes > 1)
        assert not list(folder.glob("*.partial.jsonl"))
    assert written[0].count(b"\n") == 160
    assert written[0] == written[1] == written[2]


def test_what_a_launch_of_two_left_another_of_three_goes_on_with(trained_copy: Workspace) -> None:
    """One of two processes did its share; then three finish, and the first share isn't ranked again."""
    folder = trained_copy.dataset(DATASET).run("full", STEM)
    evaluate = ("-m", "mllmrec", "evaluate", "--dataset", DATASET, "--root", trained_copy.root, "--tag", "full")
    launch(*evaluate, "--shard", "1/2")
    (log,) = folder.glob("*.partial.jsonl")
    first = [row["row"]["rows"][0]["scores"] for row in read_jsonl(log) if "row" in row]
    assert len(first) == 2
    launch(*TORCHRUN, "3", *evaluate)
    again = trained_copy.root / "again"
    (folder / "rankings.jsonl").rename(again)
    launch(*evaluate, "--overwrite")
    assert (folder / "rankings.jsonl").read_bytes() == again.read_bytes()


def test_an_error_in_every_process_ends_the_launch(trained_copy: Workspace) -> None:
    evaluate = ("-m", "mllmrec", "evaluate", "--dataset", DATASET, "--root", trained_copy.root, "--tag", "nowhere")
    assert "The checkpoint nowhere is missing" in launch(*TORCHRUN, "2", *evaluate, fails=True)


@pytest.mark.parametrize("launcher", ["accelerate", "torchrun"])
def test_two_processes_of_four_train_like_one_of_eight(toy_copy: Workspace, launcher: str) -> None:
    """The same rows in each step, so the same losses; best weights, log and manifest are written once."""
    knobs = {"peft": "none", "lr": 1e-3, "eval_steps": 5}
    sft.run(sft_settings(toy_copy, tag="one", batch=8, **knobs), toy_copy)
    flags = flags_of(sft_settings(toy_copy, tag="two", batch=4, **knobs))
    if launcher == "accelerate":
        two = (*ACCELERATE, "--multi_gpu", "--num_processes=2", "--main_process_port=0")
    else:
        two = (*TORCHRUN, "2")
    told = launch(*two, "-m", "mllmrec", "sft", "--device", "cpu", *flags)
    assert told.count("validation HR@1") == 3
    one, both = (toy_copy.checkpoint(DATASET, tag) for tag in ("one", "two"))
    for column in ("loss", "grad_norm", "valid_NDCG@3", "valid_HR@1"):
        assert log_of(both, column) == pytest.approx(log_of(one, column), rel=2e-3)
    ours, theirs = weights_of(both), weights_of(one)
    assert all((ours[name] - theirs[name]).abs().max() < 2e-3 for name in theirs)
    manifests = [read_json(folder / "manifest.json")["details"] for folder in (one, both)]
    assert manifests[0]["steps"] == manifests[1]["steps"] == 10


def test_accelerate_on_a_plain_cpu_starts_one_process(toy_copy: Workspace) -> None:
    """Without GPUs `accelerate launch --cpu` starts one process, whatever number is asked for, and all is as usual."""
    flags = flags_of(sft_settings(toy_copy, tag="launched"))
    launch(*ACCELERATE, "--cpu", "--num_processes=2", "-m", "mllmrec", "sft", *flags)
    sft.run(sft_settings(toy_copy, tag="direct"), toy_copy)
    launched, direct = (toy_copy.checkpoint(DATASET, tag) for tag in ("launched", "direct"))
    assert log_of(launched, "loss") == log_of(direct, "loss")


def test_grpo_shares_its_groups_among_two_processes(trained_copy: Workspace) -> None:
    """Two processes of 8 answers hold the same four prompts a step as one of 16 does; what is sampled differs."""
    settings = grpo_settings(trained_copy, tag="two", batch=8, limit=8)
    launch(*TORCHRUN, "2", "-m", "mllmrec", "grpo", "--device", "cpu", *flags_of(settings))
    folder = trained_copy.checkpoint(DATASET, "two")
    assert read_json(folder / "manifest.json")["details"]["steps"] == 2
    for reward, hits, invalid in zip(
        *(log_of(folder, name) for name in ("reward", "hit_share", "invalid_share")), strict=True
    ):
        assert reward == pytest.approx(hits - 1.5 * invalid)
