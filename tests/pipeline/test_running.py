"""A recipe runs its stages in order, a second run skips them, and one table holds everything that was ranked."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_models import DATASET, WINDOW
from workspaces import tsv, write_dataset

from mllmrec import Workspace
from mllmrec.cli.main import main
from mllmrec.errors import SettingsError
from mllmrec.evaluation.ranking.rankings import read_rankings
from mllmrec.pipeline.stage import command_of, run
from mllmrec.settings.pipeline import RunRecipeSettings
from mllmrec.storage.workspace import sha256

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
        "report": {"cases": 2},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_recipe_runs_once_and_is_then_finished(recipe: Path, toy_copy: Workspace) -> None:
    summary = run(RunRecipeSettings(recipe=str(recipe)))
    page = toy_copy.dataset(DATASET).results / "report.html"
    assert summary.headline == f"All 8 stages are done.\nOpen {page}"
    _, steps, baselines, ladder = summary.tables
    assert [row[0] for row in baselines.rows] == ["random", "popularity", "chance"]
    assert [row[0] for row in ladder.rows][:3] == ["sft-merged limit30", "grpo limit30", "chance"]
    assert [row[0] for row in steps.rows] == ["grpo limit30\n- sft-merged limit30"]

    before = digests(toy_copy.root)
    run(RunRecipeSettings(recipe=str(recipe)))
    assert digests(toy_copy.root) == before


@pytest.mark.slow
def test_lanes_make_what_one_stage_after_the_other_makes(recipe: Path, toy_copy: Workspace) -> None:
    """The second run finds all of it finished; here and there a thread more or less may change a last digit."""
    summary = run(RunRecipeSettings(recipe=str(recipe), lanes=2))
    assert summary.tables[0].rows[-1][0] == "all, up to 2 at a time"
    beside = {path: read_rankings(path) for path in toy_copy.dataset(DATASET).results.rglob("rankings.jsonl")}
    assert len(beside) == 4
    before = digests(toy_copy.root)
    run(RunRecipeSettings(recipe=str(recipe)))
    assert digests(toy_copy.root) == before

    run(RunRecipeSettings(recipe=str(recipe), overwrite=True))
    for path, rankings in beside.items():
        for ranking, alone in zip(rankings, read_rankings(path), strict=True):
            assert ranking.example_id == alone.example_id
            assert ranking.scores == pytest.approx(alone.scores, abs=0.02)


def test_the_command_that_goes_on_holds_flags_without_a_value() -> None:
    settings = RunRecipeSettings(recipe="movielens", ladder=True, dataset="films")
    assert command_of(settings) == "mllmrec run movielens --dataset films --ladder"


LINES = {str(user): [f"i{(user * 3 + step * 7) % 40}" for step in range(12)] for user in range(6)}


def test_the_demo_has_a_verb_of_its_own() -> None:
    with pytest.raises(SettingsError, match="`mllmrec demo`"):
        run(RunRecipeSettings(recipe="demo"))


def write_recipe(root: Path, **blocks: Any) -> Path:
    path = root / "my recipe.yaml"
    path.write_text(yaml.safe_dump({"dataset": "shop", "root": str(root), **blocks}))
    return path


def failing(capsys: pytest.CaptureFixture[str], status: int, *words: str) -> tuple[str, str]:
    """What a command that ends with this status puts on standard output, and its last paragraph on standard error."""
    with pytest.raises(SystemExit) as exit_:
        main(["run", *words])
    assert exit_.value.code == status
    told = capsys.readouterr()
    return told.out, told.err.splitlines()[-1]


def test_a_stage_that_fails_is_named_with_the_command_that_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(tmp_path, train=tsv({user: items[:10] for user, items in LINES.items()}), test=tsv(LINES))
    path = write_recipe(tmp_path, candidates={"min_inter": 5}, sft={"backbone": "nowhere"}, evaluate={})
    _, told = failing(capsys, 2, str(path), "--root", str(tmp_path), "--overwrite")
    command = shlex.join(["mllmrec", "run", str(path), "--root", str(tmp_path)])
    assert told.startswith("There is no model 'nowhere'")
    assert told.endswith(f" This was stage 2 of 3, sft sft; `{command}` goes on with it.")


def test_an_interrupted_stage_is_named_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt("stopped at step 3; the same command goes on from there")

    monkeypatch.setattr("mllmrec.data.candidates.stage.run", interrupt)
    path = write_recipe(tmp_path, candidates={})
    assert failing(capsys, 130, str(path))[1] == (
        "Interrupted: stopped at step 3; the same command goes on from there. This was stage 1 of 1, candidates; "
        f"`{shlex.join(['mllmrec', 'run', str(path)])}` goes on with it."
    )


def test_nothing_is_trained_after_an_audit_that_found_a_leak(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The train lines hold the test targets; the audit's table is shown and the command ends with status 1."""
    workspace = write_dataset(tmp_path, train=tsv(LINES), test=tsv(LINES))
    path = write_recipe(tmp_path, audit={"min_inter": 5}, sft={"backbone": "nowhere"})
    shown, _ = failing(capsys, 1, str(path))
    assert "This was stage 1 of 2, audit; mend it, and go on with `mllmrec run" in shown
    assert "train.tsv" in shown
    assert not workspace.checkpoint("shop", "sft").exists()
