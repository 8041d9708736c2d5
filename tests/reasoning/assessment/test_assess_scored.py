"""`assess` with scorers: each user is judged by the fold that never saw them, in any number of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fold_scorers import sft
from gallery import make_gallery, traces, write_traces
from small_models import DATASET, WINDOW, sft_settings
from traces import own
from workspaces import SUPPORT

from mllmrec.data.candidates.drawing import questions
from mllmrec.data.draws import generator
from mllmrec.data.sequences import Interactions
from mllmrec.errors import SettingsError
from mllmrec.models.chat import Encoder
from mllmrec.models.huggingface import load
from mllmrec.models.scoring import HuggingFaceScorer
from mllmrec.reasoning.assessment.prediction import ListDraw, PredictionJudge
from mllmrec.reasoning.assessment.stage import run
from mllmrec.records import Summary, Trace
from mllmrec.settings.texts import AssessSettings
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import Workspace, partial, read_json, write_json

SCRIPT = SUPPORT / "assessing.py"
KNOBS: dict[str, Any] = {"scorer": "a,b", "orders": 2, "num_neg": 4}


def assess(workspace: Workspace, **knobs: Any) -> Summary:
    settings = AssessSettings.model_validate({"dataset": DATASET, "root": str(workspace.root), **KNOBS, **knobs})
    return run(settings, workspace)


def assessed(workspace: Workspace) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_json(workspace.dataset(DATASET).assessed_cot)
    return rows


def toy_traces(workspace: Workspace, count: int | None = None) -> list[Trace]:
    """Drafts that name the history, the tenth of them their target too; and what is in them."""
    interactions, written = Interactions.load(workspace, DATASET), []
    for number, each in enumerate(questions(interactions.train, "train", WINDOW)[0][:count]):
        named = [*each.history, each.target_id] if number % 10 == 9 else each.history
        titles = ", ".join(interactions.catalogue.title(item) for item in named)
        text = f"The user chose {titles}, and will go on with number {number} of the like, as so often before."
        written.append(
            Trace(
                example_id=each.example_id,
                user_id=each.user_id,
                history=each.history,
                target_id=each.target_id,
                reasoning=text,
            )
        )
    rows = [own(each.user_id, " ".join((*each.history, each.target_id)), reasoning=each.reasoning) for each in written]
    write_json(workspace.dataset(DATASET).pseudo_cot, rows)
    return written


def test_every_trace_is_judged_by_a_scorer_that_never_saw_its_user(toy_copy: Workspace) -> None:
    sft(toy_copy, "a", "1/2")
    sft(toy_copy, "b", "2/2")
    written = toy_traces(toy_copy, 40)
    with pytest.raises(SettingsError, match="were trained on by every scorer: a saw part 1/2"):
        assess(toy_copy, scorer="a")
    assert not toy_copy.dataset(DATASET).assessed_cot.exists()
    summary = assess(toy_copy)
    interactions = Interactions.load(toy_copy, DATASET)
    loaded = load(toy_copy, "tiny", device="cpu")
    encoder = Encoder.make(loaded.chat, interactions.catalogue, {}, 4096)
    judge = PredictionJudge(
        HuggingFaceScorer(loaded.model), encoder, interactions, ListDraw(orders=2, num_neg=4, seed=42)
    )
    for row, trace in zip(assessed(toy_copy), written, strict=True):
        if row["reason"] == "names the target's title":
            assert row["scores"]["lift"] is row["scores"]["prediction"] is None, "it isn't worth a scorer's time"
            continue
        expected = judge.lift(trace)
        assert row["scores"]["lift"] == pytest.approx(expected.value, abs=1e-5)
        assert row["scores"]["lift_error"] == pytest.approx(expected.error, abs=1e-5)
        assert 0 < row["scores"]["prediction"] < 1
    assert sum(row["reason"] == "names the target's title" for row in assessed(toy_copy)) == 4
    manifest = Manifest.read(toy_copy.dataset(DATASET).assessed_cot)
    assert manifest is not None
    assert {"a model", "b model", "template", "traces", "train", "titles", "rules"} == manifest.inputs.keys()
    assert manifest.details["usage"]["scored"] == 36
    assert not summary.warnings
    assert "lift of the target, nats" in {row[0] for row in summary.tables[1].rows}


def test_a_prompt_beyond_the_budget_is_a_failure_with_its_reason(toy_copy: Workspace) -> None:
    sft(toy_copy, "a", "1/2")
    sft(toy_copy, "b", "2/2")
    written = toy_traces(toy_copy, 40)
    long = own(
        written[0].user_id,
        " ".join((*written[0].history, written[0].target_id)),
        reasoning="antidisestablishmentarianism " * 600,
    )
    rows = read_json(toy_copy.dataset(DATASET).pseudo_cot)
    write_json(toy_copy.dataset(DATASET).pseudo_cot, [long, *rows[1:]])
    summary = assess(toy_copy)
    assert len(assessed(toy_copy)) == 39
    assert ("failed: its prompt doesn't fit the scorer", "1", "2.5%") in summary.tables[0].rows
    manifest = Manifest.read(toy_copy.dataset(DATASET).assessed_cot)
    assert manifest is not None
    assert manifest.details["failures"] == {written[0].example_id: "its prompt doesn't fit the scorer"}
    assert "nothing to do" in assess(toy_copy).headline


@pytest.mark.slow
def test_adapters_and_full_models_may_judge_together(toy_copy: Workspace) -> None:
    """Two folds really trained, one as LoRA and one whole, on captionless windows."""
    from mllmrec.training.sft import run as train

    train(sft_settings(toy_copy, tag="a", fold="1/2", limit=16), toy_copy)
    train(sft_settings(toy_copy, tag="b", fold="2/2", limit=16, peft="none"), toy_copy)
    toy_traces(toy_copy, 20)
    assess(toy_copy)
    rows = [row for row in assessed(toy_copy) if row["reason"] != "names the target's title"]
    assert len(rows) == 18
    assert all(row["scores"]["lift"] is not None for row in rows)
    manifest = Manifest.read(toy_copy.dataset(DATASET).assessed_cot)
    assert manifest is not None
    assert {"a model", "a adapter", "b model"} < manifest.inputs.keys()


def start(workspace: Workspace, dataset: str, *launcher: str, **knobs: Any) -> subprocess.Popen[bytes]:
    folders = os.pathsep.join((str(SCRIPT.parent), str(SCRIPT.parent.parent)))
    chosen = [f"{name}={value}" for name, value in knobs.items()]
    return subprocess.Popen(
        [sys.executable, *launcher, str(SCRIPT), str(workspace.root), dataset, *chosen],
        env=os.environ | {"PYTHONPATH": folders, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told.decode()


def wait_for_work(process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the log is longer than it was."""
    before = log.stat().st_size if log.exists() else 0
    while process.poll() is None and (not log.exists() or log.stat().st_size <= before):
        time.sleep(0.002)


def kill_at_random(workspace: Workspace, dataset: str, times: int, within: float, **knobs: Any) -> None:
    """Start and kill some time after the first new record; every record that was there stays."""
    artifact = workspace.dataset(dataset).assessed_cot
    log, moments = partial(artifact), generator(0, "kill", dataset)
    for _ in range(times):
        before = log.read_bytes() if log.exists() else b""
        process = start(workspace, dataset, **knobs)
        wait_for_work(process, log)
        time.sleep(within * moments.random())
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it ended before it was killed often enough"
        assert not artifact.exists()
        whole = before[: before.rfind(b"\n") + 1]
        assert log.read_bytes().startswith(whole)


@pytest.mark.slow
def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    whole, killed = (make_gallery(tmp_path / name) for name in ("whole", "killed"))
    for workspace in (whole, killed):
        write_traces(workspace, traces())
    finish(start(whole, "gallery"))
    kill_at_random(killed, "gallery", 10, 0.03)
    finish(start(killed, "gallery"))
    assert killed.dataset("gallery").assessed_cot.read_bytes() == whole.dataset("gallery").assessed_cot.read_bytes()
    assert not partial(killed.dataset("gallery").assessed_cot).exists()


@pytest.mark.slow
def test_kills_while_scoring_change_nothing_and_score_nothing_twice(toy_copy: Workspace) -> None:
    for tag, fold in (("a", "1/2"), ("b", "2/2")):
        sft(toy_copy, tag, fold)
    toy_traces(toy_copy, 100)
    assess(toy_copy)
    first = toy_copy.dataset(DATASET).assessed_cot.read_bytes()
    before = Manifest.read(toy_copy.dataset(DATASET).assessed_cot)
    for path in toy_copy.dataset(DATASET).folder.glob("*assessed_cot.json*"):
        path.unlink()
    kill_at_random(toy_copy, DATASET, 2, 0.4, **KNOBS)
    finish(start(toy_copy, DATASET, **KNOBS))
    assert toy_copy.dataset(DATASET).assessed_cot.read_bytes() == first
    after = Manifest.read(toy_copy.dataset(DATASET).assessed_cot)
    assert before is not None
    assert after is not None
    assert after.details["usage"]["scored"] == before.details["usage"]["scored"] == 90


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_processes_of_a_launch_write_the_same_bytes(toy_copy: Workspace, size: int) -> None:
    for tag, fold in (("a", "1/2"), ("b", "2/2")):
        sft(toy_copy, tag, fold)
    toy_traces(toy_copy, 40)
    assess(toy_copy)
    first = toy_copy.dataset(DATASET).assessed_cot.read_bytes()
    for path in toy_copy.dataset(DATASET).folder.glob("*assessed_cot.json*"):
        path.unlink()
    launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}")
    finish(start(toy_copy, DATASET, *launcher, **KNOBS))
    assert toy_copy.dataset(DATASET).assessed_cot.read_bytes() == first


@pytest.mark.slow
def test_a_second_process_is_refused_with_the_owner(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path / "workspace")
    write_traces(gallery, traces())
    first = start(gallery, "gallery")
    wait_for_work(first, partial(gallery.dataset("gallery").assessed_cot))
    first.send_signal(signal.SIGSTOP)
    second = start(gallery, "gallery")
    _, told = second.communicate(timeout=60)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 1
    assert f"is being made by process {first.pid}, started " in told.decode()
    finish(first)
