"""The demo: what it asks of the recipe, whose world a folder holds, and, slowly, its ladder by the real command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from workspaces import tsv, write_dataset

from mllmrec.cli.main import main
from mllmrec.demo.stage import demo_recipe, description, refuse_other_world, with_ceiling, world_of
from mllmrec.demo.world import SIZES, World
from mllmrec.errors import ArtifactError
from mllmrec.records import Summary
from mllmrec.settings.pipeline import DemoSettings
from mllmrec.storage.workspace import Workspace, read_json, write_json


def test_a_size_sets_the_world_and_how_much_is_trained_on() -> None:
    limits = {size: demo_recipe(DemoSettings(size=size)).blocks["sft"][0]["limit"] for size in SIZES}
    assert limits["s"] * 2 == limits["m"] == limits["l"] / 2
    for size, world in SIZES.items():
        assert world_of(DemoSettings(size=size)) == world


def test_shares_and_seed_reach_the_world_and_rollouts_reach_grpo() -> None:
    settings = DemoSettings(seed=7, poster_share=0, order_share=0.2, rollouts="candidates")
    assert world_of(settings) == World(seed=7, poster=0, order=0.2)
    stages = {stage.verb: stage for stage in demo_recipe(settings).stages()}
    assert vars(stages["grpo"])["rollouts"] == "candidates"


def test_an_absent_extra_leaves_one_baseline_out_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert demo_recipe(DemoSettings()).blocks["baselines"][0]["names"] == ["random", "popularity", "markov"]
    assert "itemknn is left out" in capsys.readouterr().err


def test_served_are_the_models_that_the_demo_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    monkeypatch.setattr("mllmrec.demo.stage.run_demo", lambda own: done.append(own) or Summary(headline="Done."))
    monkeypatch.setattr("mllmrec.serving.commands.run_serve", done.append)
    with pytest.raises(SystemExit, match="0"):
        main(["demo", "--root", str(tmp_path), "--out", "w", "--serve"])
    demo, served = done
    assert Path(served.root) == demo.folder == tmp_path / "w"
    trained = {vars(stage).get(name) for stage in demo_recipe(demo).stages() for name in ("tag", "merged_tag")}
    assert served.dataset == demo_recipe(demo).shared["dataset"]
    assert {*served.tag} <= trained
    assert served.tag[0] == "grpo"


def test_an_absent_server_is_told_before_the_demo_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mllmrec.serving.commands.SERVING", ("no_such_library",))
    with pytest.raises(SystemExit, match="2"):
        main(["demo", "--root", str(tmp_path), "--serve"])
    assert "no_such_library" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_a_folder_of_another_world_is_refused_by_what_differs(tmp_path: Path) -> None:
    told = tmp_path / "raw" / "world.json"
    refuse_other_world(World(), told, replacing=False)
    write_json(told, description(World(poster=0.5)))
    refuse_other_world(World(poster=0.5), told, replacing=False)
    with pytest.raises(ArtifactError, match=r"poster 0\.5 there, 0\.85 now.*--overwrite"):
        refuse_other_world(World(), told, replacing=False)
    refuse_other_world(World(), told, replacing=True)
    write_json(told, vars(World()))
    with pytest.raises(ArtifactError, match=r"places not told there, Meadow .* now; kinds not told"):
        refuse_other_world(World(), told, replacing=False)


def test_the_ceiling_is_told_for_the_lists_that_were_frozen(tmp_path: Path) -> None:
    from mllmrec.settings.data import CandidatesSettings

    world = World(num_items=60, num_users=12)
    lines = {str(user): [str(101 + (user * 5 + step * 7) % 60) for step in range(9)] for user in range(12)}
    train, valid = ({user: items[:end] for user, items in lines.items()} for end in (-2, -1))
    titles = "item,title\n" + "".join(f"{101 + number},T{number}\n" for number in range(60))
    workspace = write_dataset(tmp_path, train=tsv(train), valid=tsv(valid), test=tsv(lines), titles=titles)
    settings = CandidatesSettings(dataset="shop", root=str(tmp_path), min_inter=5)
    path = with_ceiling(world, "candidates")(settings, workspace).artifact
    told = read_json(workspace.dataset("shop").ceiling)
    assert path is not None
    assert (told["candidates"], told["num_users"]) == (path.stem, 12)
    assert 0.1 < told["rows"]["ceiling"]["HR@1"]["value"] <= 1


def demo(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mllmrec", "demo", "--size", "s", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ)


def hit_rate(workspace: Workspace, name: str) -> float:
    metrics = json.loads((workspace.dataset("demo").run(name, "test_uni9_w7_s42") / "metrics.json").read_text())
    return float(metrics["metrics"]["HR@1"]["value"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_climbs_its_ladder_and_is_then_finished(tmp_path: Path) -> None:
    """500 users: an interval of HR@1 is about 0.04 wide to each side, and the margins here are wider than chance."""
    made = demo(tmp_path)
    assert made.returncode == 0, made.stderr[-2000:]
    workspace = Workspace(tmp_path / "demo-workspace")
    reached = {
        name: hit_rate(workspace, name)
        for name in ("random", "popularity", "markov", "backbone", "sft", "sft-captions", "grpo")
    }
    ceiling = read_json(workspace.dataset("demo").ceiling)["rows"]["ceiling"]["HR@1"]["value"]
    assert reached["random"] < 0.16, reached
    assert reached["sft"] > reached["random"] + 0.06, reached
    assert reached["sft"] > reached["backbone"] - 0.03, reached
    assert reached["sft-captions"] > reached["sft"] + 0.12, reached
    assert reached["sft-captions"] > max(reached["popularity"], reached["markov"]) + 0.1, reached
    assert reached["grpo"] > reached["sft-captions"] - 0.02, reached
    assert reached["grpo"] < ceiling + 0.06, reached
    assert (workspace.dataset("demo").results / "report.html").exists()
    again = demo(tmp_path)
    assert again.returncode == 0
    assert again.stderr.count("nothing to do") >= 10


@pytest.mark.parametrize("share", ["1", "-0.1"])
def test_a_share_out_of_bounds_is_refused_on_the_command_line(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["demo", "--poster-share", share])
    assert exit_.value.code == 2
    assert "poster" in capsys.readouterr().err
