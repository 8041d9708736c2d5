"""Which stages wait for which: whatever one makes is there before another reads it, and nothing trains unaudited."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mllmrec.demo.habits import write_world
from mllmrec.demo.posters import write_posters
from mllmrec.demo.stage import demo_recipe
from mllmrec.demo.world import World
from mllmrec.pipeline.recipe import load_recipe
from mllmrec.pipeline.schedule import waits_for
from mllmrec.settings.evaluation import EvaluateSettings
from mllmrec.settings.pipeline import DemoSettings
from mllmrec.settings.training import GrpoSettings, MergeSettings, SftSettings
from mllmrec.stages import STAGES, entry_point
from mllmrec.storage.workspace import Workspace

ALONE = {"blend", "report"}


def names_of(waits: frozenset[int], names: list[str]) -> set[str]:
    return {names[index] for index in waits}


def test_the_stages_of_the_demo_wait_for_what_they_read() -> None:
    stages = demo_recipe(DemoSettings()).stages()
    names = [f"{stage.verb} {getattr(stage, 'tag', '') or getattr(stage, 'sft_tag', '')}".strip() for stage in stages]
    waits = dict(zip(names, (names_of(each, names) for each in waits_for(stages)), strict=True))
    assert waits["prepare"] == set()
    assert waits["caption"] == waits["candidates"] == {"prepare"}
    assert waits["baselines"] == {"prepare", "caption", "candidates"}
    assert waits["sft fold-2"] == {"prepare", "caption", "pseudo-cot", "refine"}
    assert {"sft fold-1", "sft fold-2", "refine"} <= waits["assess"]
    assert "assess" in waits["audit"]
    assert "audit" in waits["sft sft-adapters"] & waits["sft sft-captions-adapters"] & waits["grpo grpo"]
    assert "sft sft-adapters" not in waits["sft sft-captions-adapters"]
    assert waits["evaluate"] == {"prepare", "caption", "candidates"}, "the backbone is there from the start"
    assert "merge sft-adapters" in waits["evaluate sft"]
    assert waits["probe grpo"] >= {"grpo grpo", "merge sft-captions-adapters"}
    assert "evaluate grpo" not in waits["probe grpo"], "it asks the model itself"
    assert waits["report"] == {*names} - {"report"}


TINY = {"min_inter": 7, "limit": 8, "eval_users": 4, "eval_steps": 1, "max_prompt_tokens": 700, "epochs": 1}
EVERYTHING: dict[str, Any] = {
    "prepare": {"source": "pairs", "raw": "raw", "titles": "raw/titles.csv", "min_inter": 7},
    "caption": {"backend": "pixels"},
    "pseudo-cot": {"backend": "profile", "min_inter": 7},
    "refine": {"backend": "profile"},
    "backbone": {"out": "tiny", "layers": 1, "width": 32, "vocab": 400, "copy_steps": 2},
    "candidates": [{"num_neg": 9, "min_inter": 7, "split": split} for split in ("test", "valid")],
    "retrieve": {"retriever": "itemknn", "num": 9, "min_inter": 7},
    "baselines": [{"min_inter": 7, "names": "popularity,itemknn", "split": split} for split in ("test", "valid")],
    "scorers": [{"backbone": "tiny", "tag": f"fold-{n}", "fold": f"{n}/2", "use_cot": True, **TINY} for n in (1, 2)],
    "assess": {"scorer": "fold-1,fold-2", "limit": 8, "orders": 1},
    "audit": {"min_inter": 7},
    "sft": [
        {"backbone": "tiny", "tag": "plain", "captions": "off", **TINY},
        {"backbone": "tiny", "tag": "hinted", "use_cot": True, "cot_prob": 0.5, **TINY},
    ],
    "merge": [{"tag": "plain"}, {"tag": "hinted"}],
    "grpo": [
        {"sft_tag": "plain-merged", "tag": "grpo", "rollouts": "exact", **TINY},
        {"sft_tag": "plain-merged", "tag": "other", "rollouts": "exact", "replay": True, **TINY},
    ],
    "evaluate": [
        {"backbone": "tiny", "min_inter": 7, "limit": 8},
        {"sft_tag": "hinted-merged", "limit": 8},
        {"sft_tag": "plain-merged", "tag": "grpo"},
    ],
    "blend": {
        split: [f"result/demo/{name}/{lists}_uni9_w7_s42" for name in ("popularity", "itemknn")]
        for split, lists in (("runs", "test"), ("on", "valid"))
    },
    "probe": {"sft_tag": "plain-merged", "tag": "grpo", "probes": "position,popularity", "limit": 4},
    "report": {"cases": 2},
}
seen: set[Path] | None = None


def observe(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: which files are opened. It stays for good, and does nothing while `seen` is None."""
    if seen is not None and event == "open" and isinstance(arguments[0], str):
        seen.add(Path(arguments[0]).absolute())


def stamps(root: Path) -> dict[Path, tuple[int, int]]:
    files = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_stages_that_open_each_other_s_files_are_tied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every verb runs, one after the other: what it really opens and writes must agree with what is said of it.

    Of files that libraries open outside Python (weights, which lie beside a config.json) nothing is seen.
    """
    global seen
    write_world(world := World(num_items=60, num_users=40), tmp_path / "raw")
    write_posters(world, Workspace(tmp_path).dataset("demo").images)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"dataset": "demo", **EVERYTHING}))
    monkeypatch.chdir(tmp_path)
    stages = load_recipe(tmp_path / "recipe.yaml").stages(root=str(tmp_path))
    assert {stage.verb for stage in stages} == {*STAGES} - {"scorers"}
    sys.addaudithook(observe)
    opened, written = [], []
    for stage in stages:
        before, seen = stamps(tmp_path), set()
        try:
            entry_point(stage.verb)(stage, Workspace(tmp_path))
        finally:
            opened.append(seen)
            seen = None
        written.append({path for path, stamp in stamps(tmp_path).items() if before.get(path) != stamp})
        assert written[-1] or stage.verb == "audit", f"{stage.verb} wrote nothing"
    waits, ties_of = waits_for(stages), [f"{stage.verb} {getattr(stage, 'tag', '')}" for stage in stages]
    for after, own in enumerate(waits):
        before_it = {*own}.union(*(waits[index] for index in own))
        for before in set(range(after)) - before_it:
            shared = (written[before] & (opened[after] | written[after])) | (opened[before] & written[after])
            assert not shared, f"{ties_of[after]} and {ties_of[before]} share {sorted(shared)}"


def test_every_verb_of_a_recipe_is_known_but_those_that_read_everything() -> None:
    for block, stage in STAGES.items():
        settings = stage.settings.model_construct(dataset="shop", sft_tag="sft", scorer=("fold-1",))
        assert (stage.reads is None) == (block in ALONE), block
        if stage.reads is not None:
            assert stage.reads(settings) or block == "prepare", f"{block} reads nothing"
            assert stage.makes(settings), f"{block} makes nothing"


def test_what_is_made_anew_waits_for_those_that_read_it_before() -> None:
    """GRPO reads the model `sft-merged`; a later merge over the same name has to wait for it."""
    stages = [
        MergeSettings(dataset="shop", tag="sft"),
        GrpoSettings(dataset="shop", sft_tag="sft-merged"),
        MergeSettings(dataset="shop", tag="other", merged_tag="sft-merged"),
    ]
    assert waits_for(stages) == [frozenset(), frozenset({0}), frozenset({0, 1})]


def test_shards_of_a_ranking_wait_for_each_other_no_more_than_other_models_do() -> None:
    first, second, whole = (EvaluateSettings(dataset="shop", tag="grpo", shard=shard) for shard in ("1/2", "2/2", ""))
    assert waits_for([first, second, EvaluateSettings(dataset="shop", tag="sft")]) == [frozenset()] * 3
    assert waits_for([whole, whole]) == [frozenset(), frozenset({0})]


def test_hints_make_training_wait_for_traces_and_a_path_names_a_model_as_its_tag_does() -> None:
    plain = SftSettings(dataset="shop", backbone="checkpoints/shop/base")
    hinted = SftSettings(dataset="shop", use_cot=True)
    reads = STAGES["sft"].reads
    assert reads is not None
    assert "model base" in reads(plain)
    assert "traces" not in reads(plain)
    assert "traces" in reads(hinted)
