"""A manifest means finished: same work is not done again, other work is refused with the difference named."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest

import mllmrec
from mllmrec import ArtifactError, DataError
from mllmrec.settings.base import Integers, StageSettings, knob
from mllmrec.storage.manifests import (
    Manifest,
    altered,
    finished,
    hash_files,
    hash_model,
    manifest_path,
    unmark,
    write_manifest,
)
from mllmrec.storage.workspace import sha256

INPUTS = {"train": "aa", "titles": "bb"}


class PaintSettings(StageSettings):
    verb: ClassVar[str] = "paint"

    colour: str = knob("red", "Colour.")
    coats: int = knob(2, "Coats.")
    layers: Integers = knob((1, 2), "Layers.")
    brushes: int = knob(1, "Brushes at a time.", operational=True)


@pytest.fixture
def wall(tmp_path: Path) -> Path:
    """A finished file."""
    path = tmp_path / "wall.jsonl"
    path.write_text("painted\n")
    write_manifest(path, PaintSettings(), INPUTS, started=time.monotonic(), counts={"in": 3, "failed": {"drip": 1}})
    return path


def test_where_a_manifest_lies() -> None:
    assert manifest_path(Path("data/x.jsonl")) == Path("data/x.jsonl.manifest.json")
    assert manifest_path(Path("data/card.json")) == Path("data/card.json.manifest.json")
    assert manifest_path(Path("checkpoints/shop/sft")) == Path("checkpoints/shop/sft/manifest.json")
    assert manifest_path(Path("checkpoints/shop/lr1e-5.v2")) == Path("checkpoints/shop/lr1e-5.v2/manifest.json")


def test_without_a_manifest_there_is_work_to_do(tmp_path: Path) -> None:
    (tmp_path / "wall.jsonl").write_text("half")
    assert finished(tmp_path / "wall.jsonl", PaintSettings(), INPUTS) is None


def test_the_same_settings_and_inputs_are_finished(wall: Path) -> None:
    manifest = finished(wall, PaintSettings(), INPUTS)
    assert manifest is not None
    assert manifest.counts == {"in": 3, "failed": {"drip": 1}}


def test_operational_settings_may_change(wall: Path, tmp_path: Path) -> None:
    assert finished(wall, PaintSettings(brushes=8, root=str(tmp_path)), INPUTS) is not None


def test_a_setting_that_came_later_was_its_default(wall: Path) -> None:
    path = manifest_path(wall)
    manifest = json.loads(path.read_text())
    del manifest["result_settings"]["layers"], manifest["result_settings"]["coats"]
    path.write_text(json.dumps(manifest))
    assert finished(wall, PaintSettings(), INPUTS) is not None
    with pytest.raises(ArtifactError, match=r"setting coats was 2 and is now 3\."):
        finished(wall, PaintSettings(coats=3), INPUTS)


def test_another_setting_is_refused_and_each_difference_named(wall: Path) -> None:
    with pytest.raises(ArtifactError) as error:
        finished(wall, PaintSettings(colour="blue", layers="1,3"), INPUTS)
    assert str(error.value) == (
        f"{wall} was already made by `mllmrec paint` in another way: setting colour was 'red' and is now 'blue'; "
        "setting layers was [1, 2] and is now [1, 3]. Expected the same settings and inputs. Give the same ones, "
        "choose another name, or replace it with --overwrite."
    )


@pytest.mark.parametrize("inputs", [{"train": "cc", "titles": "bb"}, {"titles": "bb"}])
def test_another_input_is_refused(wall: Path, inputs: dict[str, str]) -> None:
    with pytest.raises(ArtifactError, match="the input train has changed since"):
        finished(wall, PaintSettings(), inputs)


def test_overwrite_makes_work(wall: Path) -> None:
    assert finished(wall, PaintSettings(colour="blue", overwrite=True), INPUTS) is None


def test_overwrite_replaces_an_artifact_whose_manifest_broke_off(wall: Path) -> None:
    manifest_path(wall).write_text('{"verb": "pai')
    with pytest.raises(DataError, match="--overwrite"):
        finished(wall, PaintSettings(), INPUTS)
    assert finished(wall, PaintSettings(overwrite=True), INPUTS) is None


def test_a_manifest_without_its_artifact_counts_for_nothing(wall: Path) -> None:
    wall.unlink()
    assert finished(wall, PaintSettings(colour="blue"), INPUTS) is None


def test_unmarking_makes_an_artifact_unfinished(wall: Path) -> None:
    unmark(wall)
    unmark(wall)
    assert wall.exists()
    assert Manifest.read(wall) is None


def test_what_a_manifest_tells(wall: Path) -> None:
    value = json.loads(manifest_path(wall).read_text())
    assert value["verb"] == "paint"
    assert value["settings"]["brushes"] == 1
    assert value["result_settings"] == {"colour": "red", "coats": 2, "layers": [1, 2]}
    assert value["inputs"] == INPUTS
    assert value["packages"].keys() >= {"torch", "numpy", "mllmrec-r1"}
    assert value["revision"] is None or re.fullmatch("[0-9a-f]{40}", value["revision"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value["finished_at"])
    assert 0 <= value["seconds"] < 60


def test_the_revision_is_that_of_the_source_tree_and_never_of_a_repository_around_a_copy(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    copied = tmp_path / "lib" / "mllmrec"
    shutil.copytree(Path(mllmrec.__file__).parent, copied, ignore=shutil.ignore_patterns("__pycache__"))
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "-m", "Somebody's own work")
    told = [sys.executable, "-c", "import mllmrec.storage.manifests as m; print(m.__file__, m._git_revision())"]
    environment = os.environ | {"PYTHONPATH": str(copied.parent)}
    for tracked in (False, True):
        if tracked:
            git("add", "lib")
            git("commit", "--quiet", "-m", "Take it in")
        result = subprocess.run(told, check=True, capture_output=True, text=True, env=environment)
        expected = git("rev-parse", "HEAD") if tracked else None
        assert result.stdout == f"{copied / 'storage' / 'manifests.py'} {expected}\n"


@pytest.mark.parametrize("content", ["{}", "[]", "3", '{"verb": "paint"}'])
def test_a_manifest_of_another_program_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ArtifactError, match="is not a manifest of this program"):
        Manifest.read(tmp_path)


def test_a_broken_manifest_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"verb":\n')
    with pytest.raises(DataError, match=r"manifest\.json:2: not valid JSON"):
        Manifest.read(tmp_path)


def test_a_key_that_a_later_version_wrote_is_passed_over(wall: Path) -> None:
    path = manifest_path(wall)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weather": "dry"}))
    assert finished(wall, PaintSettings(), INPUTS) is not None


def test_only_files_that_exist_are_hashed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    assert hash_files(a=tmp_path / "a", b=tmp_path / "b") == {"a": sha256(tmp_path / "a")}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(3 << 20))
    return folder


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{ }"),
        ("tokenizer.json", b"{ }"),
        ("chat_template.jinja", b"{{ messages }}"),
        ("adapter_config.json", b"{}"),
        ("model.safetensors", b"\1" + bytes((3 << 20) - 1)),
        ("model.safetensors", bytes((3 << 20) - 1) + b"\1"),
        ("model.safetensors", bytes((3 << 20) + 1)),
        ("model-2.safetensors", b""),
    ],
)
def test_the_hash_of_a_model_sees_what_makes_it_another(model: Path, name: str, content: bytes) -> None:
    before = hash_model(model)
    (model / name).write_bytes(content)
    assert hash_model(model) != before


def test_the_hash_of_a_model_passes_over_what_does_not(model: Path) -> None:
    before = hash_model(model)
    (model / "README.md").write_text("notes")
    (model / "manifest.json").write_text("{}")
    assert hash_model(model) == before


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A finished folder of two outputs, with a hidden file and a working file that are none."""
    folder = tmp_path / "trained"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", ".draft", "model.partial.jsonl"):
        (folder / name).write_text(f"content of {name}")
    write_manifest(folder, PaintSettings(), INPUTS, started=time.monotonic())
    return folder


def test_a_manifest_vouches_for_what_it_marks_as_finished(wall: Path, trained: Path) -> None:
    facts = {"bytes": 8, "sha256": hashlib.sha256(b"painted\n").hexdigest(), "mtime_ns": wall.stat().st_mtime_ns}
    manifest = Manifest.read(wall)
    assert manifest is not None
    assert manifest.outputs == {"wall.jsonl": facts}
    manifest = Manifest.read(trained)
    assert manifest is not None
    assert manifest.outputs.keys() == {"config.json", "model.safetensors"}


def test_a_stage_names_outputs_that_lie_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    paths = [tmp_path / "beside.csv", tmp_path / "data" / "card.json", tmp_path / "data" / "deep" / "x.tsv"]
    for path in paths:
        path.write_text("1")
    manifest = write_manifest(paths[1], PaintSettings(), INPUTS, started=time.monotonic(), outputs=paths)
    assert list(manifest.outputs) == ["../beside.csv", "card.json", "deep/x.tsv"]
    paths[0].unlink()
    assert altered(paths[1], manifest) == ["../beside.csv"]


def test_outputs_that_are_gone_or_altered_are_no_longer_finished(trained: Path) -> None:
    (trained / "config.json").unlink()
    (trained / "model.safetensors").write_text("content of model.safetensorS")
    with pytest.raises(ArtifactError) as error:
        finished(trained, PaintSettings(), INPUTS)
    assert str(error.value) == (
        f"{trained} is no longer what `mllmrec paint` finished: config.json is gone; model.safetensors was altered. "
        f"Expected the files that {trained / 'manifest.json'} vouches for. Put them back, or make it again with "
        "--overwrite."
    )
    assert finished(trained, PaintSettings(overwrite=True), INPUTS) is None


def test_another_time_alone_leads_to_hashing_and_is_no_fault(trained: Path) -> None:
    os.utime(trained / "model.safetensors", ns=(1, 1))
    assert finished(trained, PaintSettings(), INPUTS) is not None


def test_a_thorough_look_finds_what_kept_its_size_and_time(trained: Path) -> None:
    path, manifest = trained / "config.json", Manifest.read(trained)
    assert manifest is not None
    before = path.stat()
    path.write_text("CONTENT of config.json")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert altered(trained, manifest) == []
    assert altered(trained, manifest, thorough=True) == ["config.json"]


def test_a_manifest_of_an_earlier_version_vouches_for_nothing(trained: Path) -> None:
    content = json.loads((trained / "manifest.json").read_text())
    del content["outputs"]
    (trained / "manifest.json").write_text(json.dumps(content))
    (trained / "model.safetensors").write_text("other")
    assert finished(trained, PaintSettings(), INPUTS) is not None
