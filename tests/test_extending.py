"""The examples of docs/architecture.md: what they say to edit is edited in a copy of the source, and then used."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from workspaces import tsv, write_dataset

import mllmrec
from mllmrec import Workspace

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
EDIT = re.compile(r"```diff\n--- (?P<file>\S+)\n(?P<lines>.*?)```", re.DOTALL)
LINES = tsv({str(user): [f"i{(user * user + step * (user % 3 + 1)) % 40}" for step in range(12)] for user in range(30)})


def edits_of(section: str) -> list[tuple[str, str, str]]:
    """(file, old text, new text) of each edit under a heading of the page."""
    text = PAGE.read_text(encoding="utf-8")
    body = text.split(f"## {section}\n")[1].split("\n## ")[0]
    edits = []
    for match in EDIT.finditer(body):
        lines = match["lines"].splitlines()
        assert all(line[0] in "+-" for line in lines)
        old, new = ("\n".join(line[1:] for line in lines if line[0] == mark) for mark in "-+")
        edits.append((match["file"], old, new))
    return edits


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of src/ of one test's own."""
    package = Path(mllmrec.__file__).parent
    shutil.copytree(package, tmp_path / "src" / "mllmrec", ignore=shutil.ignore_patterns("__pycache__", "backbone"))
    return tmp_path / "src"


def edit(source: Path, section: str) -> set[str]:
    """Make the edits of a section in a copy of src/, and give the files that they touch."""
    edits = edits_of(section)
    for name, old, new in edits:
        path = source.parent / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"docs/architecture.md edits {name} where it no longer reads {old!r}"
        path.write_text(text.replace(old, new), encoding="utf-8")
    return {name for name, _, _ in edits}


def run(source: Path, *words: str) -> str:
    """Standard output of Python with the copied source before the installed one."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=env, cwd=source.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


REWARDED = """
import mllmrec
from mllmrec.records import RankingExample
from mllmrec.settings.training import GrpoSettings
from mllmrec.training.grpo.rewards import REWARDS, for_trainer
name = GrpoSettings(dataset="shop", sft_tag="sft", reward="mild").reward
answers = ["[ITEM_2] b", "[ITEM_1] a", "[ITEM_9] z"]
print(mllmrec.__file__)
print(for_trainer(REWARDS[name])(answers, candidates=[["1", "2"]] * 3, target_id=["2"] * 3))
"""


def test_the_reward_of_the_page_is_one_file_more_and_can_be_trained_with(source: Path) -> None:
    touched = edit(source, "Adding a reward")
    assert len(touched) == 2
    file, values = run(source, "-c", REWARDED).splitlines()
    assert Path(file).is_relative_to(source)
    assert values == "[1.0, 0.0, -0.5]"


def test_the_protocol_of_the_page_is_three_files_and_is_drawn_ranked_and_audited(source: Path) -> None:
    touched = edit(source, "Adding a candidate protocol")
    assert len(touched) == 3
    root = source.parent / "workspace"
    workspace = write_dataset(root, train=LINES, test=LINES)
    # Lines of train that hold the test target would be a leak: drop the last item of each.
    workspace.dataset("shop").split("train").write_text(
        "".join(f"{line.rpartition(' ')[0]}\n" for line in LINES.splitlines())
    )
    shared = ("--dataset", "shop", "--root", str(root), "--min-inter", "5")
    run(source, "-m", "mllmrec", "candidates", *shared, "--negatives", "squared")
    run(source, "-m", "mllmrec", "baselines", *shared, "--negatives", "squared", "--names", "popularity")
    (metrics,) = Workspace(root).dataset("shop").results.glob("popularity/test_sq9_w5_s42/metrics.json")
    assert json.loads(metrics.read_text())["protocol"] == "sq9"
    run(source, "-m", "mllmrec", "audit", *shared)


def test_every_file_that_the_page_names_is_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    package, root = Path(mllmrec.__file__).parent, PAGE.parents[1]
    table = text.split("## Where to begin reading")[1].split("\n## ")[0]
    named = set(re.findall(r"`([a-z0-9_/]+\.(?:py|md))`", text.replace(table, "")))
    assert named
    assert not [name for name in sorted(named) if not ((package / name).exists() or (root / name).exists())]
    rooms = re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE)
    listed = [(room, name) for room, names in rooms for name in re.findall(r"`([a-z0-9_/]+\.py)`", names)]
    assert len(listed) > 40
    assert not [f"{room}/{name}" for room, name in listed if not (package / room / name).exists()]
