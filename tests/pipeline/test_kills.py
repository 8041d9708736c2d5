"""A stage that is killed before any of its file operations comes to the same bytes when it is started again."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kills import SERVER, Disturbed, disturbances
from test_dependencies import EVERYTHING

from mllmrec.demo.habits import write_world
from mllmrec.demo.posters import write_posters
from mllmrec.demo.world import World
from mllmrec.pipeline.recipe import load_recipe
from mllmrec.settings.base import StageSettings
from mllmrec.stages import STAGES
from mllmrec.storage.workspace import Workspace

LIGHT = ("prepare", "caption", "pseudo-cot", "candidates")
"""Stages that load no torch."""


def world(root: Path, **blocks: object) -> list[StageSettings]:
    """A made-up world to begin with, and the stages of a recipe."""
    write_world(drawn := World(num_items=60, num_users=40), root / "raw")
    write_posters(drawn, Workspace(root).dataset("demo").images)
    (root / "recipe.yaml").write_text(yaml.safe_dump({"dataset": "demo", **blocks}))
    return load_recipe(root / "recipe.yaml").stages(root=str(root))


@pytest.mark.sockets  # processes are asked for through one
def test_kills_of_stages_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    stages = world(tmp_path / "work", **{verb: EVERYTHING[verb] for verb in LIGHT})
    rng, kills = random.Random(0), {"prepare": 3, "caption": 2, "pseudo-cot": 2, "candidates": 2}
    tried = list[str]()
    for disturbed in disturbances(stages, tmp_path / "work", tmp_path / "kept"):
        for number in rng.sample(range(len(disturbed.operations)), kills[disturbed.stage.verb]):
            tried.append(disturbed.stage.verb)
            assert disturbed.kill(number) == ""
    assert Counter(tried) == kills | {"candidates": 4}, "of both splits"


@pytest.fixture
def everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disturbed]:
    """Every stage there is: a new one has to be named in EVERYTHING, and is tried then."""
    SERVER.set_forkserver_preload(["torch", "trl", "peft", "polars", "matplotlib", "rectools", "kills"])
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    stages = world(tmp_path / "work", **EVERYTHING)
    assert {stage.verb for stage in stages} == {*STAGES} - {"scorers"}
    return disturbances(stages, tmp_path / "work", tmp_path / "kept")


@pytest.mark.slow
@pytest.mark.timeout(800)
def test_a_kill_of_every_stage(everything: Iterator[Disturbed]) -> None:
    rng, tried = random.Random(1), set[str]()
    for disturbed in everything:
        if disturbed.operations and disturbed.stage.verb not in tried:
            tried.add(disturbed.stage.verb)
            assert disturbed.kill(rng.randrange(len(disturbed.operations))) == ""
    assert tried == {*STAGES} - {"scorers", "audit"}, "audit writes nothing, and scorers are sft"


@pytest.mark.full
@pytest.mark.timeout(0)
def test_a_kill_before_every_operation_of_every_stage(everything: Iterator[Disturbed]) -> None:
    differing, kills = list[str](), 0
    for disturbed in everything:
        kills += len(disturbed.operations)
        differing += filter(None, map(disturbed.kill, range(len(disturbed.operations))))
    assert kills
    assert differing == []
