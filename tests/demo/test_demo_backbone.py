"""The backbone that comes with the package: an ordinary, small model that can choose in worlds it has never seen."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from transformers import Qwen3ForCausalLM

from demo_backbone.lessons import Shape
from demo_backbone.pretrain_exam import Mark, mark
from mllmrec.data.model_folders import lacking, stored_parameters
from mllmrec.errors import ArtifactError
from mllmrec.models.huggingface import LoadedModel, load
from mllmrec.pipeline.own import SHIPPED, install_small_backbone
from mllmrec.storage.workspace import Workspace, write_text

SEED, QUESTIONS = 31337, 60


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    install_small_backbone(workspace.root / "demo-backbone")
    return load(workspace, "demo-backbone", device="cpu")


def test_it_loads_by_name_like_any_backbone(shipped: LoadedModel) -> None:
    assert type(shipped.model) is Qwen3ForCausalLM
    assert shipped.model.dtype == torch.float32
    assert shipped.tokenizer.eos_token == "<|im_end|>"
    assert all(torch.isfinite(weight).all() for weight in shipped.model.parameters())


def test_it_is_small_and_half_precise(shipped: LoadedModel) -> None:
    assert lacking(SHIPPED) == []
    weights = SHIPPED / "model.safetensors"
    assert stored_parameters(SHIPPED) == shipped.model.num_parameters() <= 1_500_000
    assert weights.stat().st_size <= min(4_000_000, 2.1 * shipped.model.num_parameters())
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 4_000_000


@pytest.mark.parametrize(
    ("shape", "hit", "mass"),
    [
        (Shape(history=6, candidates=10), 0.85, 0.4),
        (Shape(history=6, candidates=10, cue="caption", caption_words=6), 0.5, 0.02),
    ],
    ids=["titles", "captions"],
)
def test_it_chooses_in_a_fresh_world(shipped: LoadedModel, shape: Shape, hit: float, mass: float) -> None:
    """Chance is .1; pre-training had other seeds, so other words and worlds."""
    seen: Mark = mark(shipped, "test", shape, SEED, QUESTIONS, sampled=0)
    assert seen.hit > hit
    assert mass < seen.mass <= 1 + 1e-6


def test_what_it_says_freely_is_mostly_on_the_list(shipped: LoadedModel) -> None:
    seen = mark(shipped, "test", Shape(history=6, candidates=10), SEED, 16, sampled=16)
    assert seen.valid is not None
    assert seen.valid >= 0.75


def test_its_card_says_what_it_is() -> None:
    card = (SHIPPED / "README.md").read_text(encoding="utf-8")
    for needed in ("license: apache-2.0", "demo_backbone.pretrain", "steps", "seconds", "HR@1"):
        assert needed in card


def test_its_files_are_in_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["mllmrec"]
    names = [f"demo/backbone/{path.name}" for path in SHIPPED.iterdir()]
    assert [name for name in names if not any(fnmatch(name, pattern) for pattern in patterns)] == []


def test_installing_again_changes_nothing_and_spares_another_model(tmp_path: Path) -> None:
    folder = install_small_backbone(tmp_path / "demo-backbone")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert set(before) == {path.name for path in SHIPPED.iterdir()}
    install_small_backbone(folder)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    write_text(folder / "README.md", "My notes on it.")
    assert install_small_backbone(folder) == folder
    write_text(folder / "config.json", "{}")
    with pytest.raises(ArtifactError, match=r"config\.json is not the file .* holds another model"):
        install_small_backbone(folder)
