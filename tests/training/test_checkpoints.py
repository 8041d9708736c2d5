"""A checkpoint folder: what is refused before training writes into it, and how it becomes finished."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import TrainerControl, TrainerState

from mllmrec.errors import ArtifactError
from mllmrec.settings.training import GrpoSettings, SftSettings
from mllmrec.storage.workspace import read_json, read_jsonl, write_json, write_jsonl, write_text
from mllmrec.training.callbacks import TimedSaveCallback
from mllmrec.training.checkpoints import begin, clear, draws_of, last_checkpoint, place_best, refuse_own_input

INPUTS = {"train": "a", "model": "b"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "toy" / "sft"


def settings(**knobs: Any) -> SftSettings:
    return SftSettings(dataset="toy", **knobs)


def interrupted(folder: Path, *steps: int) -> None:
    """A run of `settings()` that left trainer checkpoints."""
    assert begin(folder, settings(), INPUTS) is None
    for step in steps:
        checkpoint = folder / f"checkpoint-{step}"
        write_json(checkpoint / "trainer_state.json", {"global_step": step})
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            torch.save({"step": step}, checkpoint / name)
        save_file({"weight": torch.zeros(4)}, checkpoint / "adapter_model.safetensors")


def test_a_fresh_folder_is_begun_and_begun_again_where_no_step_was_kept(folder: Path) -> None:
    assert begin(folder, settings(), INPUTS) is None
    write_text(folder / "training.jsonl", '{"step": 1}\n')
    write_text(folder / "best" / "adapter_config.json", "{}")
    assert begin(folder, settings(lr=0.5), INPUTS) is None
    assert [path.name for path in folder.iterdir()] == ["unfinished.json"]


def test_a_process_that_is_not_the_first_touches_nothing(folder: Path) -> None:
    assert begin(folder, settings(), INPUTS, main=False) is None
    assert not folder.exists()
    interrupted(folder, 10)
    before = sorted(folder.rglob("*"))
    assert begin(folder, settings(overwrite=True), INPUTS, main=False) is None
    assert sorted(folder.rglob("*")) == before


def test_the_newest_complete_checkpoint_counts(folder: Path) -> None:
    """By number, not by name; one without a trainer state was cut off while it was saved."""
    interrupted(folder, 9, 10)
    (folder / "checkpoint-11").mkdir()
    assert last_checkpoint(folder) == folder / "checkpoint-10"
    assert begin(folder, settings(), INPUTS) == folder / "checkpoint-10"


def test_resuming_takes_later_and_torn_lines_out_of_the_log(folder: Path) -> None:
    interrupted(folder, 2)
    write_jsonl(folder / "training.jsonl", [{"step": step, "loss": 1.0} for step in (1, 2, 3)])
    with (folder / "training.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    begin(folder, settings(), INPUTS)
    assert [row["step"] for row in read_jsonl(folder / "training.jsonl")] == [1, 2]


@pytest.mark.parametrize(
    ("now", "inputs", "told"),
    [
        (settings(lr=0.5), INPUTS, "setting lr was 1e-05 and is now 0.5"),
        (settings(), INPUTS | {"model": "c"}, "the input model has changed since"),
        (GrpoSettings(dataset="toy", sft_tag="x"), INPUTS, "an interrupted run of `mllmrec sft` (step 7)"),
        (
            settings(resume=False),
            INPUTS,
            "reached step 7. Leave --no-resume out to go on with it, or start over with --ov",
        ),
    ],
)
def test_an_interrupted_run_goes_on_only_as_it_began(
    folder: Path, now: SftSettings | GrpoSettings, inputs: dict[str, str], told: str
) -> None:
    interrupted(folder, 7)
    with pytest.raises(ArtifactError) as error:
        begin(folder, now, inputs)
    assert told in str(error.value)
    assert (folder / "checkpoint-7").exists()
    assert begin(folder, now.model_copy(update={"overwrite": True}), inputs) is None
    assert not (folder / "checkpoint-7").exists()


def test_an_interrupted_run_goes_on_with_the_same_number_of_processes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another number a step would hold other rows."""
    interrupted(folder, 7)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ArtifactError, match="the input number of processes has changed since"):
        begin(folder, settings(), INPUTS)


def test_an_interrupted_run_from_before_a_knob_goes_on_with_its_default(folder: Path) -> None:
    interrupted(folder, 7)
    began = read_json(folder / "unfinished.json")
    del began["settings"]["lora_dropout"]
    write_json(folder / "unfinished.json", began)
    assert begin(folder, settings(), INPUTS) == folder / "checkpoint-7"
    write_json(folder / "unfinished.json", began)
    with pytest.raises(ArtifactError, match=r"setting lora_dropout was 0\.05 and is now 0\.0[.;]"):
        begin(folder, settings(lora_dropout=0), INPUTS)


def test_an_interrupted_run_keeps_the_version_of_its_draws(folder: Path) -> None:
    """One from before versions were written down drew by the first; a new one, and one made anew, by the second."""
    assert draws_of(folder, settings()) == 2
    interrupted(folder, 10)
    assert draws_of(folder, settings()) == 2
    marker = read_json(folder / "unfinished.json")
    del marker["draws"]
    write_json(folder / "unfinished.json", marker)
    assert draws_of(folder, settings()) == 1
    begin(folder, settings(), INPUTS, 1)
    assert read_json(folder / "unfinished.json")["draws"] == 1
    assert draws_of(folder, settings()) == 1
    assert draws_of(folder, settings(overwrite=True)) == 2


def test_operational_knobs_may_change_on_the_way(folder: Path) -> None:
    interrupted(folder, 7)
    changed = settings(save_steps=7, logging_steps=3, workers=2, device="cpu", root="/elsewhere")
    assert begin(folder, changed, INPUTS) == folder / "checkpoint-7"


def test_models_and_checkpoints_of_another_origin_are_left_alone(folder: Path) -> None:
    write_text(folder / "model.safetensors", "x")
    with pytest.raises(ArtifactError, match="holds a model of another origin"):
        begin(folder, settings(), INPUTS)
    (folder / "model.safetensors").unlink()
    write_text(folder / "checkpoint-500" / "trainer_state.json", "{}")
    with pytest.raises(ArtifactError, match=r"holds checkpoints of another program \(checkpoint-500\)"):
        begin(folder, settings(), INPUTS)
    assert (folder / "checkpoint-500" / "trainer_state.json").exists()


def test_a_run_never_writes_over_the_model_it_starts_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder.parent)
    for same in (folder, "sft", folder.parent / ".." / "toy" / "sft"):
        with pytest.raises(ArtifactError, match="is the model that this run starts from"):
            refuse_own_input(folder, same)
    refuse_own_input(folder, folder.parent / "other")
    refuse_own_input(folder, "Qwen/Qwen3-4B")


def test_finishing_puts_the_best_in_place_and_then_clears(folder: Path) -> None:
    interrupted(folder, 7)
    write_text(folder / "training.jsonl", '{"step": 7}\n')
    write_text(folder / "best" / "adapter_config.json", "{}")
    save_file({"weight": torch.zeros(4)}, folder / "best" / "adapter_model.safetensors")
    place_best(folder)
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "checkpoint-7",
        "training.jsonl",
        "unfinished.json",
    }
    place_best(folder)
    clear(folder)
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "training.jsonl",
    }


@pytest.mark.parametrize(
    "name", ["trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "adapter_model.safetensors"]
)
@pytest.mark.parametrize("cut", [False, True], ids=["missing", "torn"])
def test_a_checkpoint_that_is_not_whole_is_told_and_the_one_before_taken(
    folder: Path, name: str, cut: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without an optimizer's or a generator's state the trainer would go on to other weights."""
    interrupted(folder, 10, 20)
    path = folder / "checkpoint-20" / name
    content = path.read_bytes()
    path.unlink()
    if cut:
        path.write_bytes(content[: len(content) // 2])
    assert begin(folder, settings(), INPUTS) == folder / "checkpoint-10"
    told = "weights" if (name, cut) == ("adapter_model.safetensors", False) else name
    assert capsys.readouterr().err == (
        f"{folder / 'checkpoint-20'} was cut off while it was saved ({told} missing or torn); training goes on from "
        "checkpoint-10.\n"
    )
    assert not (folder / "checkpoint-20").exists()


def test_each_process_of_a_launch_has_a_generator_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    interrupted(folder, 10)
    for rank in range(2):
        assert last_checkpoint(folder) is None
        torch.save({}, folder / "checkpoint-10" / f"rng_state_{rank}.pth")
    assert last_checkpoint(folder) == folder / "checkpoint-10"


def test_a_run_whose_best_weights_are_gone_is_not_finished(folder: Path) -> None:
    interrupted(folder, 7)
    with pytest.raises(ArtifactError, match=r"which held the best weights of this run, is gone"):
        place_best(folder)


def test_ten_minutes_without_a_checkpoint_ask_for_one() -> None:
    now = 0.0
    callback = TimedSaveCallback(clock=lambda: now)
    arguments, state = SimpleNamespace(world_size=1), TrainerState()
    callback.on_train_begin(arguments, state, TrainerControl())
    asked = []
    for now in (300.0, 599.0, 600.0, 900.0, 1201.0):  # noqa: B007
        control = TrainerControl()
        callback.on_step_end(arguments, state, control)
        asked.append(control.should_save)
        if control.should_save:
            callback.on_save(arguments, state, control)
    assert asked == [False, False, True, False, True]
