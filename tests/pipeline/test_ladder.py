"""The ladder of a recipe: five rungs, what the recipe has keeps its name, and the published recipes can climb."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mllmrec import SettingsError
from mllmrec.pipeline.recipe import Recipe, load_recipe, shipped_recipes
from mllmrec.pipeline.stage import ladder_of


def recipe_of(tmp_path: Path, **blocks: Any) -> Recipe:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"dataset": "shop", **blocks}))
    return load_recipe(path)


FULL: dict[str, Any] = {
    "sft": {"backbone": "models/small", "tag": "sft", "use_cot": True, "min_inter": 7},
    "merge": {"tag": "sft", "merged_tag": "whole"},
    "grpo": {"sft_tag": "whole", "tag": "grpo", "use_cot": True, "beta": 0.2},
    "evaluate": [{"sft_tag": "whole"}, {"sft_tag": "whole", "tag": "grpo"}],
}


def test_the_missing_arm_gets_the_settings_of_the_other(tmp_path: Path) -> None:
    ladder, below = ladder_of(recipe_of(tmp_path, **FULL))
    assert [(block["tag"], block["use_cot"]) for block in ladder.blocks["sft"]] == [("sft-plain", False), ("sft", True)]
    assert {block["min_inter"] for block in ladder.blocks["sft"]} == {7}
    assert ladder.blocks["merge"] == [
        {"tag": "sft-plain", "merged_tag": "sft-plain-merged"},
        {"tag": "sft", "merged_tag": "whole"},
    ]
    assert ladder.blocks["grpo"] == [
        {"sft_tag": "sft-plain-merged", "tag": "grpo-plain", "use_cot": False, "beta": 0.2},
        {"sft_tag": "whole", "tag": "grpo", "use_cot": True, "beta": 0.2},
    ]
    assert ladder.blocks["evaluate"] == [
        {"backbone": "models/small", "min_inter": 7},
        {"sft_tag": "sft-plain-merged"},
        {"sft_tag": "whole"},
        {"sft_tag": "sft-plain-merged", "tag": "grpo-plain"},
        {"sft_tag": "whole", "tag": "grpo"},
    ]
    assert below == {
        "sft-plain-merged": "small",
        "whole": "small",
        "grpo-plain": "sft-plain-merged",
        "grpo": "whole",
    }


def test_a_full_model_needs_no_merging(tmp_path: Path) -> None:
    sft, merge, grpo = {"tag": "a", "peft": "none"}, {"tag": "a"}, {"sft_tag": "a", "tag": "b"}
    ladder, below = ladder_of(recipe_of(tmp_path, sft=sft, merge=merge, grpo=grpo))
    assert [block["tag"] for block in ladder.blocks["sft"]] == ["a", "a-cot"]
    assert [(block["sft_tag"], block["tag"]) for block in ladder.blocks["grpo"]] == [("a", "b"), ("a-cot", "b-cot")]
    assert below == {"a": "Qwen3-4B", "a-cot": "Qwen3-4B", "b": "a", "b-cot": "a-cot"}


def test_every_rung_is_evaluated_in_every_way_of_the_recipe_and_other_models_are_kept(tmp_path: Path) -> None:
    ways = [{"sft_tag": "whole"}, {"sft_tag": "whole", "num_neg": 99, "limit": 1000}, {"sft_tag": "older"}]
    ladder, _ = ladder_of(recipe_of(tmp_path, **{**FULL, "evaluate": ways}))
    evaluated = ladder.blocks["evaluate"]
    assert len(evaluated) == 2 * 5 + 1
    assert [block.get("num_neg") for block in evaluated[:10]] == [None] * 5 + [99] * 5
    assert evaluated[-1] == {"sft_tag": "older"}


def test_without_grpo_there_are_three_rungs_and_the_other_stages_stay(tmp_path: Path) -> None:
    ladder, below = ladder_of(recipe_of(tmp_path, sft={"tag": "x"}, audit={}, report={}))
    assert list(ladder.blocks) == ["audit", "sft", "merge", "evaluate", "report"]
    assert len(ladder.blocks["evaluate"]) == 3
    assert set(below) == {"x-merged", "x-cot-merged"}


def test_the_arm_of_the_last_grpo_is_taken_among_several(tmp_path: Path) -> None:
    sfts = [{"tag": "titles", "captions": "off"}, {"tag": "captions", "captions": "on"}]
    merges = [{"tag": "titles"}, {"tag": "captions"}]
    recipe = recipe_of(tmp_path, sft=sfts, merge=merges, grpo={"sft_tag": "titles-merged", "tag": "g"})
    ladder, _ = ladder_of(recipe)
    assert [block["tag"] for block in ladder.blocks["sft"]] == ["captions", "titles", "titles-cot"]
    assert ladder.blocks["sft"][-1]["captions"] == "off"


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name != "demo"])
def test_a_shipped_recipe_can_climb(name: str) -> None:
    ladder, below = ladder_of(load_recipe(name))
    stages = ladder.stages()
    assert [stage.verb for stage in stages].count("grpo") == 2
    assert len(below) == 4


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"audit": {}}, "has no block sft"),
        ({"sft": {"tag": "a"}, "grpo": {"sft_tag": "b"}}, "grpo starts from b, which no block of sft or merge makes"),
    ],
)
def test_a_recipe_that_cannot_climb_says_why(tmp_path: Path, blocks: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        ladder_of(recipe_of(tmp_path, **blocks))
