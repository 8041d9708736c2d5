"""The plan of benchmarks/real_llm: the command line takes its commands, and time is kept for what counts."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mllmrec.cli.main import take_globals
from mllmrec.cli.verbs import app

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "real_llm" / "run.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("real_llm_run", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def finish_arm(work: Path, tag: str, reading: float) -> None:
    folder = work / "checkpoints" / "movielens" / tag
    folder.mkdir(parents=True)
    details = {"best_step": 30, "validation": {"0": {"NDCG@3": 0.2}, "30": {"NDCG@3": reading}}}
    (folder / "manifest.json").write_text(json.dumps({"details": details}))


def test_every_command_is_one_of_the_command_line(script: ModuleType, tmp_path: Path) -> None:
    for tag, reading in (("sft-answer", 0.3), ("sft-list", 0.5), ("sft-traces", 0.4), ("sft-small", 0.3)):
        finish_arm(tmp_path, tag, reading)
    (tmp_path / "small").mkdir()
    for name in ("grpo", "itemknn", "sasrec"):
        for run in ("test_uni9_w10_s42_limit400", "valid_uni9_w10_s42_limit150"):
            folder = tmp_path / "result" / "movielens" / name / run
            folder.mkdir(parents=True)
            (folder / "manifest.json").write_text("{}")
    pipeline = script.Pipeline(script.parse(["--work", str(tmp_path)]))
    commands = {step.name: step.command() for step in pipeline.steps() if step.name not in script.OWN}
    for words in commands.values():
        rest, _, _ = take_globals([*words, "--root", str(tmp_path)])
        app.parse_args(rest, exit_on_error=False, print_error=False)
    assert commands["sft/traces"][commands["sft/traces"].index("--objective") + 1] == "list"
    assert commands["merge"][commands["merge"].index("--tag") + 1] == "sft-list"
    assert [word.split("/")[2] for word in commands["blend"] if "/" in word] == ["grpo", "sasrec", "itemknn"] * 2


def test_an_optional_step_leaves_time_for_the_others(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[str] = []

    def step(name: str, seconds: float, optional: bool = False) -> object:
        return script.Step(name=name, command=lambda: made.append(name), seconds=seconds, optional=optional)

    steps = [
        step("first", 1000),
        step("long", 2000, optional=True),
        step("short", 500, optional=True),
        step("end", 2000),
    ]
    pipeline = script.Pipeline(script.parse(["--work", str(tmp_path)]))
    script.work_through(pipeline, steps, hours=1.0, again=False)
    assert made == ["first", "short", "end"]
    assert "long: left out" in capsys.readouterr().out
