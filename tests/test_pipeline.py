"""A recipe runs its stages in order, a second run skips them, and one table holds everything that was ranked."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mllmrec import Workspace
from mllmrec.artifacts import sha256
from mllmrec.pipeline import run
from mllmrec.settings.pipeline import RunRecipeSettings
from small_models import DATASET, WINDOW

QUICK = {"limit": 16, "batch": 8, "accum": 1, "eval_users": 8, "eval_steps": 1000, "num_neg": 4}


def digests(root: Path) -> dict[Path, str]:
    return {path: sha256(path) for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def recipe(toy_copy: Workspace, tmp_path: Path) -> Path:
    """The whole corridor on the toy workspace, which the recipe itself names as its root."""
    content = {
        "dataset": DATASET,
        "root": str(toy_copy.root),
        "candidates": {"num_neg": 9, "min_inter": WINDOW},
        "baselines": {"min_inter": WINDOW, "names": "random,popularity"},
        "sft": {"backbone": "tiny", "tag": "sft", "min_inter": WINDOW, "epochs": 1, **QUICK},
        "merge": {"tag": "sft"},
        "grpo": {"sft_tag": "sft-merged", "tag": "grpo", "num_generations": 4, "max_completion_length": 8, **QUICK},
        "evaluate": [{"sft_tag": "sft-merged", "limit": 30}, {"sft_tag": "sft-merged", "tag": "grpo", "limit": 30}],
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_recipe_runs_once_and_is_then_finished(recipe: Path, toy_copy: Workspace) -> None:
    summary = run(RunRecipeSettings(recipe=str(recipe)))
    assert summary.headline == "All 7 stages are done."
    ladder = next(table for table in summary.tables if "30 users" in table.title)
    assert [row[0] for row in ladder.rows] == ["sft-merged limit30", "grpo limit30", "chance"]
    baselines = next(table for table in summary.tables if "30 users" not in table.title)
    assert [row[0] for row in baselines.rows] == ["random", "popularity", "chance"]

    before = digests(toy_copy.root)
    run(RunRecipeSettings(recipe=str(recipe)))
    assert digests(toy_copy.root) == before
