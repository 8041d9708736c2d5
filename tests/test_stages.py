"""The registry of stages: one entry makes a verb, a block of recipes, a stage that waits, and a file of the doctor."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from workspaces import tsv, write_dataset

from mllmrec import ArtifactError, Workspace
from mllmrec.cli.verbs import add_stage, app
from mllmrec.doctor.workspace import dataset_table
from mllmrec.pipeline.recipe import load_recipe
from mllmrec.pipeline.schedule import waits_for
from mllmrec.records import Summary
from mllmrec.settings.base import DatasetSettings, knob
from mllmrec.settings.data import CandidatesSettings
from mllmrec.stages import STAGES, Run, Stage, always, entry_point, stage


class CountSettings(DatasetSettings):
    """Count what was captioned.

    This paragraph isn't shown.
    """

    verb: ClassVar[str] = "count"

    least: int = knob(1, "Smallest count.", ge=1)


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A made-up stage, entered as any other and gone after the test."""
    monkeypatch.setitem(STAGES, "count", STAGES["sft"])

    @stage(
        CountSettings,
        reads=always("captions"),
        makes=always("counts"),
        file=lambda files: files.folder / "counts.json",
        without="nothing is counted",
    )
    def entered() -> Run:
        return lambda settings, _workspace: Summary(headline=f"at least {settings.least}")

    return entered


def test_an_entry_is_a_block_of_recipes_and_waits_for_what_it_reads(tmp_path: Path, count: Stage) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"dataset": "shop", "count": {"least": 2}, "caption": {}, "candidates": {}}))
    stages = load_recipe(path).stages()
    assert [each.verb for each in stages] == ["caption", "candidates", "count"]
    assert waits_for(stages) == [frozenset(), frozenset(), frozenset({0})]
    assert entry_point("count")(stages[2], Workspace(tmp_path)).headline == "at least 2"
    assert count.command == count.block == "count"


def test_an_entry_is_a_verb_whose_help_is_that_of_its_settings(
    count: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    add_stage(count)
    try:
        app(["count", "--dataset", "shop", "--least", "3"], exit_on_error=False, result_action="return_value")
        app(["count", "--help"], exit_on_error=False, result_action="return_value")
    finally:
        del app["count"]
    shown = capsys.readouterr()
    assert "at least 3" in shown.out + shown.err
    assert "Count what was captioned." in shown.out
    assert "isn't shown" not in shown.out
    assert "Smallest count." in shown.out


@pytest.mark.usefixtures("count")
def test_the_doctor_looks_for_the_file_of_an_entry(tmp_path: Path) -> None:
    workspace = write_dataset(tmp_path, train=tsv({"1": ["a", "b", "c"]}))
    row = next(row for row in dataset_table(workspace, "shop").rows if row[0] == "counts.json")
    assert row[1:] == ("absent: nothing is counted", "mllmrec count --dataset shop")
    (workspace.dataset("shop").folder / "counts.json").write_text("{}")
    row = next(row for row in dataset_table(workspace, "shop").rows if row[0] == "counts.json")
    assert row[2] == ""


def test_a_verb_that_is_no_stage_has_no_entry_point() -> None:
    with pytest.raises(ArtifactError, match="compare is no stage of a recipe"):
        entry_point("compare")


def test_a_stage_takes_the_window_that_the_dataset_was_prepared_with(
    toy_copy: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    """`toy` was prepared with windows of five items."""
    known = {"dataset": "toy", "root": str(toy_copy.root)}
    made = entry_point("candidates")(CandidatesSettings(num_neg=3, **known), toy_copy)
    assert made.artifact is not None
    assert made.artifact.name == "test_uni3_w5_s42.jsonl"
    assert "min-inter" not in capsys.readouterr().err
    other = entry_point("candidates")(CandidatesSettings(num_neg=3, min_inter=4, **known), toy_copy)
    assert other.artifact is not None
    assert other.artifact.name == "test_uni3_w4_s42.jsonl"
    assert "--min-inter is 4, and toy was prepared with 5: windows of 4 are used." in capsys.readouterr().err
    toy_copy.dataset("toy").card.unlink()
    plain = entry_point("candidates")(CandidatesSettings(num_neg=3, **known), toy_copy)
    assert plain.artifact is not None
    assert plain.artifact.name == "test_uni3_w10_s42.jsonl", "files without a card tell nothing"
