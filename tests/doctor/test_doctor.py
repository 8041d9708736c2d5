"""What the doctor sees in made-up workspaces, and what it says comes next."""

from __future__ import annotations

import importlib.metadata
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from unprivileged import unprivileged

from mllmrec.doctor import report as doctor
from mllmrec.doctor.report import run
from mllmrec.doctor.workspace import next_step
from mllmrec.errors import SettingsError
from mllmrec.records import Summary, Table
from mllmrec.settings.resources import DoctorSettings
from mllmrec.storage.workspace import Workspace, write_json


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def table(summary: Summary, title: str) -> Table:
    return next(each for each in summary.tables if each.title.startswith(title))


def states(summary: Summary, title: str) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in table(summary, title).rows}


def packages_of(summary: Summary) -> dict[str, tuple[str, ...]]:
    """Each package, those as expected included: its extra, installed version, tested range and state."""
    listed: Any = summary.facts["packages"]
    return {row["name"]: (row["extra"], row["installed"], row["tested"], row["state"]) for row in listed}


def add_dataset(workspace: Workspace, name: str = "films") -> None:
    folder = workspace.dataset(name).folder
    (folder / "images").mkdir(parents=True)
    for split in ("train", "test"):
        (folder / f"{split}.tsv").write_text("u1\t1 2 3\nu2\t2 3 1\n")
    (folder / f"{name}_titles.csv").write_text("item,title\n1,One\n2,Two\n3,Three\n")
    (folder / "images" / "1.PNG").write_bytes(b"")
    (folder / "images" / "notes.txt").write_text("")


def add_model(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    (folder / "tokenizer.json").write_text("{}")
    header = json.dumps({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))


def add_checkpoint(workspace: Workspace, tag: str, verb: str, *, adapters: bool, **settings: Any) -> None:
    folder = workspace.checkpoint("films", tag)
    folder.mkdir(parents=True)
    write_json(
        folder / "manifest.json", {"verb": verb, "settings": settings, "result_settings": settings, "inputs": {}}
    )
    if adapters:
        (folder / "adapter_config.json").write_text("{}")


def test_an_empty_folder_is_answered_with_where_to_begin(workspace: Workspace) -> None:
    summary = run(DoctorSettings(), workspace)
    assert summary.headline == "Next: no dataset yet: mllmrec prepare, or mllmrec demo for an example"
    assert states(summary, "Model folders") == {"none": ("", "mllmrec fetch backbone Qwen/Qwen3-4B")}


def test_a_root_that_does_not_exist_is_looked_at_all_the_same(tmp_path: Path) -> None:
    summary = run(DoctorSettings(), Workspace(tmp_path / "not" / "yet"))
    assert "free of" in states(summary, "Machine")["disk of the root"][0]
    assert not (tmp_path / "not").exists()


def test_packages_stand_beside_their_tested_ranges(workspace: Workspace) -> None:
    summary = run(DoctorSettings(), workspace)
    packages = packages_of(summary)
    assert packages["trl"] == ("", importlib.metadata.version("trl"), "<2,>=1.16", "ok")
    assert (packages["fastapi"][0], packages["modelscope"][0]) == ("serve", "modelscope")
    assert "pytest" not in packages
    assert summary.warnings == ()


def test_a_missing_package_and_an_old_one_are_told_with_the_command(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {"trl": "0.26.2", "peft": None, "fastapi": None, "uvicorn": None}
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name, "9999"))
    monkeypatch.setattr(
        importlib.metadata,
        "requires",
        lambda _name: [
            "trl>=1.16,<2",
            "peft>=0.21",
            "numpy>=1.26",
            'fastapi; extra == "serve"',
            'uvicorn; extra == "serve"',
        ],
    )
    summary = run(DoctorSettings(), workspace)
    packages = states(summary, "Packages")
    install = "pip install -c requirements.lock -e"
    assert packages["trl"] == ("0.26.2", "<2,>=1.16", f"outside the tested range: {install} .")
    assert packages["peft"] == ("absent", ">=0.21", f"missing: {install} .")
    assert packages["fastapi, uvicorn (extra serve)"] == ("absent", "", f"for that part only: {install} '.[serve]'")
    assert packages["2 packages as expected"] == ("", "", "ok"), "python and numpy"
    assert len(packages) == 4
    assert packages_of(summary)["numpy"][-1] == "ok"
    assert len(summary.warnings) == 2


def test_the_files_of_a_dataset_are_counted_and_the_missing_ones_named(workspace: Workspace) -> None:
    add_dataset(workspace)
    files = states(run(DoctorSettings(), workspace), "Dataset films")
    assert files["train.tsv"] == ("2 lines", "")
    assert files["films_titles.csv"] == ("4 lines with the header", "")
    assert files["images"] == ("1 image; can't be read: 1.PNG (empty file)", "")
    assert files["films_captions.json"][0].startswith("absent")
    assert files["processed/test_*.jsonl"] == ("missing", "mllmrec candidates --dataset films")


def test_a_dataset_that_is_asked_for_and_not_there_gets_its_command(workspace: Workspace) -> None:
    add_dataset(workspace)
    summary = run(DoctorSettings(dataset="songs"), workspace)
    assert summary.headline == "Next: songs: mllmrec prepare --source NAME --raw FOLDER --dataset songs"
    assert not any(each.title == "Dataset films" for each in summary.tables)


def test_folders_that_are_no_datasets_are_passed_over(workspace: Workspace) -> None:
    (workspace.root / "data" / "raw" / "ml-1m").mkdir(parents=True)
    assert run(DoctorSettings(), workspace).facts["next"] == []


def test_a_cut_model_folder_is_told_apart_from_a_whole_one(workspace: Workspace) -> None:
    add_model(workspace.root / "Whole")
    add_model(workspace.root / "Cut")
    (workspace.root / "Cut" / "model.safetensors").write_bytes(b"\x08")
    (workspace.root / "Cut" / "tokenizer.json").unlink()
    (workspace.root / "notes").mkdir()
    models = states(run(DoctorSettings(), workspace), "Model folders")
    assert models["Whole"] == ("complete", "")
    assert models["Cut"][0].startswith("lacks a tokenizer (tokenizer.json), a whole model.safetensors")
    assert set(models) == {"Whole", "Cut"}


def test_checkpoints_are_finished_by_their_manifest(workspace: Workspace) -> None:
    add_dataset(workspace)
    add_checkpoint(workspace, "sft", "sft", adapters=True)
    add_checkpoint(workspace, "merged", "merge", adapters=False)
    (workspace.checkpoint("films", "cut") / "checkpoint-100").mkdir(parents=True)
    (workspace.checkpoint("films", "odd")).mkdir()
    (workspace.checkpoint("films", "odd") / "manifest.json").write_text("{")
    found = states(run(DoctorSettings(), workspace), "Checkpoints of films")
    assert found["sft"] == ("finished by mllmrec sft (adapters)", "")
    assert found["merged"] == ("finished by mllmrec merge (full model)", "")
    assert found["cut"] == ("not finished: it has no manifest", "the command that began it, which goes on")
    assert found["odd"][0].startswith("unreadable: ")


def add_run(workspace: Workspace, name: str) -> None:
    folder = workspace.dataset("films").run(name, "test_uni9_w10_s42")
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")


def test_the_next_step_follows_the_pipeline(workspace: Workspace) -> None:
    add_dataset(workspace)
    steps = [next_step(workspace, "films", gpu=True)]
    workspace.dataset("films").processed.mkdir()
    (workspace.dataset("films").processed / "test_uni9_w10_s42.jsonl").write_text("{}\n")
    steps.append(next_step(workspace, "films", gpu=True))
    add_run(workspace, "markov")
    steps.append(next_step(workspace, "films", gpu=True))
    add_model(workspace.root / "Small")
    steps.append(next_step(workspace, "films", gpu=True))
    add_checkpoint(workspace, "first", "sft", adapters=True)
    steps.append(next_step(workspace, "films", gpu=True))
    add_checkpoint(workspace, "whole", "merge", adapters=False)
    steps.append(next_step(workspace, "films", gpu=True))
    add_checkpoint(workspace, "aligned", "grpo", adapters=True, sft_tag="whole")
    steps.append(next_step(workspace, "films", gpu=True))
    add_run(workspace, "aligned")
    steps.append(next_step(workspace, "films", gpu=True))
    assert steps == [
        "mllmrec candidates --dataset films",
        "mllmrec baselines --dataset films",
        "mllmrec fetch backbone Qwen/Qwen3-4B",
        "mllmrec sft --dataset films --backbone Small",
        "mllmrec merge --dataset films --tag first",
        "mllmrec grpo --dataset films --sft-tag whole",
        "mllmrec evaluate --dataset films --sft-tag whole --tag aligned",
        "mllmrec report --dataset films",
    ]


def test_without_a_gpu_one_command_comes_next_until_a_model_of_the_users_own_is_there(workspace: Workspace) -> None:
    add_dataset(workspace)
    whole = "mllmrec run own --dataset films --size cpu"
    assert next_step(workspace, "films", gpu=False) == whole
    add_run(workspace, "markov")
    add_model(workspace.root / "small-backbone")
    assert next_step(workspace, "films", gpu=False) == whole
    add_model(workspace.root / "Mine")
    assert next_step(workspace, "films", gpu=False) == "mllmrec candidates --dataset films"


def test_a_report_that_is_older_than_a_run_is_asked_for_again(workspace: Workspace) -> None:
    add_dataset(workspace)
    workspace.dataset("films").processed.mkdir()
    (workspace.dataset("films").processed / "test_uni9_w10_s42.jsonl").write_text("{}\n")
    add_checkpoint(workspace, "whole", "merge", adapters=False)
    add_checkpoint(workspace, "aligned", "grpo", adapters=True, sft_tag="whole")
    add_run(workspace, "aligned")
    page = workspace.dataset("films").results / "report.html"
    page.write_text("<!doctype html>")
    [run_manifest] = workspace.dataset("films").results.glob("*/*/manifest.json")
    os.utime(run_manifest, (1000, 1000))
    os.utime(page, (1001, 1001))
    recommend = "mllmrec recommend --dataset films --sft-tag whole --tag aligned --user USER"
    assert next_step(workspace, "films", gpu=True) == f"{recommend}; {page} shows all results"
    add_run(workspace, "whole")
    for manifest in workspace.dataset("films").results.glob("*/*/manifest.json"):
        os.utime(manifest, (1000, 1000))
    compare = (
        f"mllmrec compare result/films/whole/{run_manifest.parent.name} result/films/aligned/{run_manifest.parent.name}"
    )
    assert next_step(workspace, "films", gpu=True) == f"{compare}, or {recommend}; {page} shows all results"
    os.utime(run_manifest, (1002, 1002))
    assert next_step(workspace, "films", gpu=True) == "mllmrec report --dataset films"


def test_a_model_trained_in_full_needs_no_merge(workspace: Workspace) -> None:
    add_dataset(workspace)
    workspace.dataset("films").processed.mkdir()
    (workspace.dataset("films").processed / "test_uni9_w10_s42.jsonl").write_text("{}\n")
    add_run(workspace, "markov")
    add_checkpoint(workspace, "whole", "sft", adapters=False)
    assert next_step(workspace, "films", gpu=True) == "mllmrec grpo --dataset films --sft-tag whole"


@pytest.mark.parametrize("recipe", ["movielens", "microlens", "netflix"])
def test_the_plan_of_a_shipped_recipe(workspace: Workspace, recipe: str) -> None:
    summary = run(DoctorSettings(plan=recipe, gpu=24), workspace)
    plan = table(summary, "Memory of Qwen3-4B (4.02B parameters) on a GPU of 24 GiB")
    assert [row[0] for row in plan.rows] == [
        "sft",
        "merge",
        "grpo",
        "evaluate, score, 9 negatives",
        "evaluate, score, 99 negatives",
    ]
    assert {row[-1] for row in plan.rows} == {"yes"}


def test_captions_of_the_dataset_count_in_the_plan(workspace: Workspace) -> None:
    without = table(run(DoctorSettings(plan="movielens", gpu=24), workspace), "Memory")
    workspace.dataset("movielens").folder.mkdir(parents=True)
    write_json(workspace.dataset("movielens").captions, {})
    captioned = table(run(DoctorSettings(plan="movielens", gpu=24), workspace), "Memory")
    assert without.rows[2][-1] == "yes"
    assert captioned.rows[2][-1].startswith("no; --batch 1 --accum ")


def test_a_folder_under_the_root_decides_over_the_known_sizes(workspace: Workspace) -> None:
    add_model(workspace.root / "Qwen3-4B")
    config = doctor.known_config("Qwen3-0.6B")
    write_json(workspace.root / "Qwen3-4B" / "config.json", config)
    summary = run(DoctorSettings(plan="movielens", gpu=24), workspace)
    assert table(summary, "Memory of Qwen3-4B (0.60B parameters)")


def test_a_plan_without_a_gpu_asks_for_its_memory(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "gpu_memory", dict)
    with pytest.raises(SettingsError, match="--gpu 24"):
        run(DoctorSettings(plan="movielens"), workspace)
    monkeypatch.setattr(doctor, "gpu_memory", lambda: {"cuda:0 A": 12.0, "cuda:1 B": 40.0})
    assert table(run(DoctorSettings(plan="movielens"), workspace), "Memory").title.endswith("40 GiB")


def test_a_plan_for_an_unknown_backbone_says_how_to_get_it(workspace: Workspace) -> None:
    with pytest.raises(SettingsError, match=r"memory of backbone can't be planned.*fetch backbone ID"):
        run(DoctorSettings(plan="demo", gpu=8), workspace)


def test_a_recipe_that_is_not_there_is_told(workspace: Workspace) -> None:
    with pytest.raises(SettingsError, match="no recipe 'movielense'"):
        run(DoctorSettings(plan="movielense", gpu=8), workspace)


def test_a_recipe_without_training_has_nothing_to_plan(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text("dataset: films\ncandidates: {num_neg: 9}\n")
    with pytest.raises(SettingsError, match="none of the stages that need a GPU: sft, merge, grpo, evaluate"):
        run(DoctorSettings(plan=str(tmp_path / "small.yaml"), gpu=8), workspace)


def test_memory_is_read_within_the_limit_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "/proc/meminfo": "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 800 kB\n",
        "/sys/fs/cgroup/memory.max": "512000\n",
        "/sys/fs/cgroup/memory.current": "112000\n",
    }
    monkeypatch.setattr(Path, "read_text", lambda self, **_: texts[str(self)])
    assert doctor.free_memory() == (400_000, 512_000)
    texts["/sys/fs/cgroup/memory.max"] = "max\n"
    assert doctor.free_memory() == (800 * 1024, 1000 * 1024)


def test_keys_of_the_environment_never_show(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_sesame")
    assert "sesame" not in repr(run(DoctorSettings(), workspace))


def test_what_cannot_be_read_is_a_line_and_no_end(workspace: Workspace) -> None:
    add_dataset(workspace)
    add_model(workspace.root / "tiny")
    workspace.dataset("films").refined_cot.mkdir()
    (workspace.dataset("films").folder / "test.tsv").unlink()
    (workspace.dataset("films").folder / "test.tsv").mkdir()
    (workspace.root / "tiny" / "model.safetensors.index.json").write_text("{")
    found = run(DoctorSettings(), workspace)
    assert states(found, "Dataset films")["test.tsv"][0] == "unreadable: Is a directory"
    assert states(found, "Dataset films")["train.tsv"] == ("2 lines", "")
    assert states(found, "Model folders")["tiny"][0].startswith("unreadable: ")


def test_files_that_may_not_be_read_are_told_and_the_rest_is_looked_at(workspace: Workspace) -> None:
    root = workspace.root
    for name in ("films", "books"):
        add_dataset(workspace, name)
    add_model(root / "tiny")
    add_model(root / "closed")
    add_checkpoint(workspace, "a", "sft", adapters=False)
    closed = [workspace.dataset("films").split("train"), workspace.dataset("books").folder, root / "closed"]
    closed.append(workspace.checkpoint("films", "a"))
    for path in closed:
        path.chmod(0)
    try:
        found = unprivileged(lambda: run(DoctorSettings(), workspace))
    finally:
        for path in closed:
            path.chmod(0o755)
    assert states(found, "Dataset films")["train.tsv"][0] == "unreadable: Permission denied"
    assert states(found, "Dataset films")["films_titles.csv"][0] == "4 lines with the header"
    assert states(found, "Dataset books")["train.tsv"][0] == "unreadable: Permission denied"
    assert states(found, "Model folders")["closed"][0].startswith("unreadable: ")
    assert states(found, "Model folders")["tiny"][0] == "complete"
    assert states(found, "Checkpoints of films")["a"][0].startswith("unreadable: ")
    assert "books: make" in found.headline
