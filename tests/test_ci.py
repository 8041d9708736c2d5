"""What checks a change: the workflow, the hooks and `.ci/run` do the same, and the quick tests can't load torch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from workspaces import SUPPORT

ROOT = Path(__file__).parents[1]


def recipe_of(target: str) -> list[str]:
    """The commands of a target of the Makefile, as make would run them."""
    made = subprocess.run(["make", "-n", "-o", ".venv/.ready", target], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return [line for line in made.stdout.splitlines() if not line.startswith("make")]


def test_the_workflow_runs_the_steps_of_the_local_script() -> None:
    steps = re.findall(r"\$\{@:-(.*?)\}", (ROOT / ".ci" / "run").read_text())
    assert len(steps) == 1
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [f".ci/run {step}" for step in steps[0].split()]
    assert job["timeout-minutes"] == 75


def test_hooks_check_what_make_checks() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook["entry"].replace(" --force-exclude", "") for hook in repository["hooks"]]
    assert hooks == [command.removesuffix(" .") for command in recipe_of("check")]


@pytest.mark.parametrize("target", ["test", "test-quick", "test-slow"])
def test_tests_of_one_kind_leave_out_those_that_take_hours(target: str) -> None:
    (command,) = recipe_of(target)
    assert "not full" in command


def test_whatever_loads_torch_fails_among_the_quick_tests() -> None:
    (command,) = recipe_of("test-quick")
    path = re.match(r"PYTHONPATH=(\S+) ", command)
    assert path is not None
    assert (ROOT / path[1]).is_relative_to(SUPPORT)
    env = os.environ | {"PYTHONPATH": str(ROOT / path[1])}
    loaded = subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, text=True, env=env)
    assert loaded.returncode == 1
    assert "load no torch" in loaded.stderr


def test_every_package_of_the_extra_for_developers_is_pinned() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"^dev = \[(.*)\]$", project, re.MULTILINE)
    assert listed is not None
    names = [name.lower() for name in re.findall(r'"([A-Za-z0-9-]+)', listed[1])]
    assert "pytest-xdist" in names
    pinned = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "requirements.lock").read_text().splitlines()
    }
    assert {*names} <= pinned


def test_a_python_without_pinned_packages_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    python = tmp_path / "python3.10"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'import sys; sys.version_info = (3, 10, 1); '\"$2\"\n")
    python.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    made = subprocess.run(["make", f"PYTHON={python}", ".venv"], cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 2
    assert "is Python 3.10" in made.stderr
    assert "3.11 to 3.14" in made.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize(("given", "from_there"), [((), False), (("TORCH_INDEX=https://torch.example",), True)])
def test_torch_alone_comes_from_the_index_that_is_named(given: tuple[str, ...], from_there: bool) -> None:
    made = subprocess.run(
        ["make", "-n", "-W", "pyproject.toml", *given, ".venv"], cwd=ROOT, capture_output=True, text=True
    )
    torch, rest = [line for line in made.stdout.splitlines() if "pip install" in line]
    assert ("--no-deps --index-url https://torch.example" in torch) is from_there
    assert "index-url" not in rest
    assert "--constraint requirements.lock" in rest
