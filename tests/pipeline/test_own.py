"""`mllmrec run own`: settings by arithmetic from the data card, what is missing, and a small shop taken through."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from workspaces import write_dataset

from mllmrec import BackendError, SettingsError, Workspace
from mllmrec.data.fetching import stage as fetching
from mllmrec.demo.habits import Habits
from mllmrec.demo.world import World, make_things
from mllmrec.evaluation.ranking.runs import read_run
from mllmrec.pipeline.own import ALIGNED, PASSES, own_recipe, settings_for
from mllmrec.pipeline.stage import command_of, run
from mllmrec.settings.pipeline import RunRecipeSettings
from mllmrec.storage.workspace import read_json


def facts(lines: int, mean: float, window: int) -> dict[str, Any]:
    return {"window": window, "splits": {"train": {"lines": lines, "lengths": {"mean": mean, "median": int(mean)}}}}


def own(root: Path, **knobs: Any) -> RunRecipeSettings:
    return RunRecipeSettings(recipe="own", dataset="shop", root=str(root), **knobs)


def write_table(path: Path, lengths: list[int]) -> Path:
    """A table of interactions in which user u has `lengths[u]` items."""
    rows = [(f"u{user}", f"i{step}", step, f"Thing {step}") for user, num in enumerate(lengths) for step in range(num)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("user", "item", "timestamp", "title"), *rows])
    return path


@pytest.mark.parametrize(
    ("lines", "mean", "window", "size", "computed"),
    [
        (600, 8.0, 7, "cpu", {"window": 7, "epochs": 3, "limit": None, "aligned": 960}),  # 600 x 2 windows, 3 x 1,200
        (900, 8.0, 7, "cpu", {"window": 7, "epochs": 2, "limit": None, "aligned": 960}),  # 1,800 windows, twice
        (40, 12.0, 10, "cpu", {"window": 10, "epochs": 3, "limit": None, "aligned": 120}),  # 40 x 3 windows
        (600, 160.0, 10, "cpu", {"window": 10, "epochs": 1, "limit": 3_600, "aligned": 960}),  # 600 x 151 windows
        (600, 160.0, 10, "gpu", {"window": 10, "epochs": 1, "limit": 16_000, "aligned": 2_000}),
        (600, 5.0, 7, "cpu", {"window": 7, "epochs": 3, "limit": None, "aligned": 600}),  # short lines still count one
    ],
)
def test_numbers_of_examples_follow_from_the_card(
    lines: int, mean: float, window: int, size: str, computed: dict[str, Any]
) -> None:
    found = asdict(settings_for(facts(lines, mean, window), size, item_bytes=20))
    assert {name: found[name] for name in computed} == computed


@pytest.mark.parametrize(
    ("window", "item_bytes", "tokens"),
    [(7, 20, 128 + 36 * 16), (10, 100, 128 + 116 * 19), (10, 5_000, 8_000)],
)
def test_the_budget_of_a_prompt_holds_each_item_at_a_token_a_byte(window: int, item_bytes: int, tokens: int) -> None:
    """128 tokens for the question, 16 and the bytes for each item of history and candidates; the context ends it."""
    assert settings_for(facts(600, 12.0, window), "cpu", item_bytes).max_prompt_tokens == tokens


@pytest.mark.parametrize(
    ("lengths", "window"),
    [
        ([12] * 10, 10),
        ([40] * 10, 10),
        ([9] * 10, 7),  # 7 + 2
        ([9] * 1 + [11] * 9, 9),  # nine in ten are long enough for 9 + 2
        ([9] * 2 + [11] * 8, 7),
        ([2] * 30 + [8] * 10, 6),  # who is too short for any window doesn't count
    ],
)
def test_raw_files_are_prepared_with_the_widest_window_that_keeps_most(
    lengths: list[int], window: int, tmp_path: Path
) -> None:
    table = write_table(tmp_path / "interactions.csv", lengths)
    recipe = own_recipe(own(tmp_path, raw=str(table)), Workspace(tmp_path))
    assert read_json(Workspace(tmp_path).dataset("shop").card)["window"] == window
    stages = recipe.stages(dataset="shop")
    assert {stage.min_inter for stage in stages if "min_inter" in type(stage).model_fields} == {window}
    assert (tmp_path / "small-backbone" / "config.json").exists()


def test_columns_of_other_names_are_passed_on(tmp_path: Path) -> None:
    table = write_table(tmp_path / "interactions.csv", [12] * 4)
    table.write_text(table.read_text().replace("user,item,timestamp,title", "who,what,when,name", 1))
    columns = {"user_column": "who", "item_column": "what", "time_column": "when", "title_column": "name"}
    own_recipe(own(tmp_path, raw=str(table), **columns), Workspace(tmp_path))
    assert read_json(Workspace(tmp_path).dataset("shop").card)["users"] == 4


def test_flags_that_prepare_refuses_are_refused_in_its_words(tmp_path: Path) -> None:
    raw = write_table(tmp_path / "t.csv", [6] * 3)
    with pytest.raises(SettingsError, match=r"run own: rating_column and min_rating belong together"):
        own_recipe(own(tmp_path, raw=str(raw), rating_column="stars"), Workspace(tmp_path))


def test_data_that_is_not_there_is_told_with_the_flags_that_prepare_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"prepared first.*run own --dataset shop --raw .*or run `mllmrec prepare`"):
        run(own(tmp_path))
    with pytest.raises(SettingsError, match="--dataset shop"):
        run(RunRecipeSettings(recipe="own", root=str(tmp_path)))
    with pytest.raises(SettingsError, match="`mllmrec run own --size gpu`"):
        run(RunRecipeSettings(recipe="own-gpu", root=str(tmp_path)))


def test_a_backbone_under_the_root_is_taken_and_one_that_cannot_be_had_is_one_paragraph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any) -> None:
        raise BackendError("Qwen/Qwen3-4B can't be downloaded.")

    monkeypatch.setattr(fetching, "run_backbone", unreachable)
    workspace = Workspace(tmp_path)
    write_dataset(tmp_path, train="u1\ta b c d\nu2\tb c d a\n")
    with pytest.raises(BackendError, match=r"Qwen/Qwen3-4B is no model folder.*may be copied there.*--size cpu"):
        own_recipe(own(tmp_path, size="gpu"), workspace)
    own_recipe(own(tmp_path), workspace)
    (tmp_path / "small-backbone").rename(tmp_path / "Qwen3-4B")
    recipe = own_recipe(own(tmp_path, size="gpu"), workspace)
    assert recipe.block("sft")["backbone"] == "Qwen3-4B"
    assert recipe.block("sft").get("peft", "lora") == "lora"


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"recipe": "movielens", "size": "gpu"}, "--size: only the recipe own"),
        ({"recipe": "movielens", "raw": "x.csv"}, "--raw: only the recipe own"),
        ({"recipe": "own", "user_column": "who"}, "expected --raw"),
        ({"recipe": "own", "ladder": True}, "no chains of thought"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(knobs: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        RunRecipeSettings(**knobs)


def test_the_command_that_goes_on_names_the_raw_files() -> None:
    settings = RunRecipeSettings(recipe="own", dataset="shop", raw="in.csv", user_column="who")
    assert command_of(settings) == "mllmrec run own --dataset shop --raw in.csv --user-column who"


@pytest.mark.slow
def test_a_small_shop_is_taken_from_its_table_to_a_report_above_popularity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fewer examples than usual, in a world where titles tell all and popularity nothing."""
    monkeypatch.setitem(PASSES, "cpu", 120)
    monkeypatch.setitem(ALIGNED, "cpu", 32)
    world = World(num_items=80, num_users=60, title=0.98, poster=0.0, order=0.0, popular=0.0)
    things = make_things(world)
    rows = [
        (user, item, step, things[item].title)
        for user, items in Habits(world, things).everyone()
        for step, item in enumerate(items)
    ]
    table = tmp_path / "interactions.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("user", "item", "timestamp", "title"), *rows])
    summary = run(own(tmp_path, raw=str(table)))
    results = Workspace(tmp_path).dataset("shop").results
    popularity, model = (
        read_run(results / name / "test_uni9_w7_s42").intervals["HR@1"].value for name in ("popularity", "grpo-small")
    )
    assert str(results / "report.html") in summary.headline
    assert model > popularity
