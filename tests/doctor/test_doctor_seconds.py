"""The time plan: steps, readings and users by hand, and seconds carried on from few layers by a clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from small_models import DATASET, WINDOW, make_backbone, make_workspace

from mllmrec.data.sequences import Interactions
from mllmrec.doctor import report as doctor
from mllmrec.doctor.report import run
from mllmrec.errors import SettingsError
from mllmrec.models.huggingface import LoadedModel
from mllmrec.records import RankingExample, Summary, Table
from mllmrec.settings.evaluation import EvaluateSettings
from mllmrec.settings.resources import DoctorSettings
from mllmrec.storage.workspace import Workspace
from mllmrec.training import speed

QUICK = "min_inter: 5, num_neg: 4, batch: 8, accum: 2, limit: 80, eval_users: 8, eval_steps: 2"
RECIPE = f"""
dataset: {DATASET}
sft:
  - {{backbone: tiny, tag: adapters, epochs: 1, {QUICK}}}
  - {{backbone: tiny, tag: listwise, peft: none, objective: list, epochs: 1, {QUICK}}}
merge: {{tag: adapters, merged_tag: merged}}
grpo: {{sft_tag: merged, tag: aligned, rollouts: exact, num_neg: 4, limit: 16, num_generations: 4, eval_users: 8}}
evaluate:
  - {{sft_tag: merged, tag: aligned, limit: 20, shard: 1/2}}
  - {{backbone: absent, min_inter: 5}}
"""


def planned(workspace: Workspace, recipe: str) -> tuple[Table, Summary]:
    path = workspace.root / "recipe.yaml"
    path.write_text(recipe)
    summary = run(DoctorSettings(plan=str(path), root=str(workspace.root)), workspace)
    return next(table for table in summary.tables if table.title.startswith("Time on this machine")), summary


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "gpu_memory", dict)


@pytest.mark.slow
def test_a_recipe_is_timed_stage_by_stage(toy_copy: Workspace, without_gpu: None) -> None:
    """GRPO and evaluation find windows of five through the merge in the fine-tuning, without a checkpoint."""
    table, summary = planned(toy_copy, RECIPE)
    work = {row[0]: row[1].split(" of ")[0] for row in table.rows}
    assert work == {
        "sft adapters": "5 steps",
        "sft listwise": "5 steps",
        "grpo aligned": "2 steps",
        "evaluate aligned, part 1/2": "10 users",
        "evaluate absent": "not known",
        "sum": "",
    }
    seconds = [float(row[-1].split(" ")[0].replace(",", "")) for row in table.rows[:4]]
    assert all(value > 0 for value in seconds)
    assert any("evaluate absent" in warning and "absent" in warning for warning in summary.warnings)
    assert not (toy_copy.root / "checkpoints").exists()


def test_a_recipe_whose_models_are_not_there_names_what_to_do(toy_copy: Workspace, without_gpu: None) -> None:
    with pytest.raises(SettingsError, match=r"none of them can be timed yet.*no model 'absent'.*--gpu 24"):
        planned(toy_copy, f"dataset: {DATASET}\nsft: {{backbone: absent, min_inter: 5}}\n")


class Clock:
    """Time that passes only when it is told to, and processor time that passes twice as fast."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def perf_counter(self) -> float:
        return self.seconds

    def process_time(self) -> float:
        return 2 * self.seconds


@pytest.mark.parametrize(("layers", "expected"), [(6, 13.0), (2, 5.0), (1, 3.0)])
def test_seconds_are_carried_on_by_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers: int, expected: float
) -> None:
    """A ranker that takes a second a user and two more a layer; the model of six layers is never made."""
    workspace = make_workspace(tmp_path)
    source, clock, built = make_backbone(workspace, layers=layers), Clock(), list[int]()

    def chunk_ranker(_settings: Any, ranker: Any) -> Callable[[Sequence[RankingExample]], None]:
        small: LoadedModel = ranker.engine
        built.append(small.model.config.num_hidden_layers)

        def rank(examples: Sequence[RankingExample]) -> None:
            clock.seconds += len(examples) * (1 + 2 * built[-1])

        return rank

    monkeypatch.setattr(speed, "chunk_ranker", chunk_ranker)
    monkeypatch.setattr(speed, "time", clock)
    example = RankingExample(example_id="", user_id="u", history=(), candidates=(), target_id="", split="test")
    settings = EvaluateSettings(dataset=DATASET, min_inter=WINDOW)
    catalogue = Interactions.load(workspace, DATASET).catalogue
    assert speed.time_ranking(settings, str(source), catalogue, {}, [example] * 5) == pytest.approx(expected)
    assert built == ([1, 2] if layers > 2 else [layers])
