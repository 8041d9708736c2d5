"""Which stages wait for which: whatever one makes is there before another reads it, and nothing trains unaudited."""

from __future__ import annotations

import pytest

from mllmrec.dependencies import ties, waits_for
from mllmrec.settings.pipeline import DemoSettings
from mllmrec.settings.recipe import STAGES, load_recipe, shipped_recipes
from mllmrec.settings.training import GrpoSettings, MergeSettings, SftSettings
from mllmrec.tour import demo_recipe

ALONE = {"report"}


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
    assert waits["probe grpo"] >= {"evaluate grpo", "grpo grpo", "merge sft-captions-adapters"}
    assert waits["report"] == {*names} - {"report"}


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name != "demo"])
def test_no_stage_of_a_shipped_recipe_begins_before_its_models_are_made(name: str) -> None:
    stages = load_recipe(name).stages()
    waits = waits_for(stages)
    made = {word: index for index, stage in enumerate(stages) if (own := ties(stage)) for word in own.makes}
    for index, stage in enumerate(stages):
        own = ties(stage)
        for word in own.reads if own else ():
            assert word not in made or made[word] >= index or made[word] in waits[index], (stage.verb, word)


def test_every_verb_of_a_recipe_is_known_but_those_that_read_everything() -> None:
    for verb, settings in STAGES.items():
        stage = settings.model_construct(dataset="shop", sft_tag="sft", scorer=("fold-1",))
        assert (ties(stage) is None) == (verb in ALONE), verb


def test_what_is_made_anew_waits_for_those_that_read_it_before() -> None:
    """GRPO reads the model `sft-merged`; a later merge over the same name has to wait for it."""
    stages = [
        MergeSettings(dataset="shop", tag="sft"),
        GrpoSettings(dataset="shop", sft_tag="sft-merged"),
        MergeSettings(dataset="shop", tag="other", merged_tag="sft-merged"),
    ]
    assert waits_for(stages) == [frozenset(), frozenset({0}), frozenset({0, 1})]


def test_hints_make_training_wait_for_traces_and_a_path_names_a_model_as_its_tag_does() -> None:
    plain = SftSettings(dataset="shop", backbone="checkpoints/shop/base")
    hinted = SftSettings(dataset="shop", use_cot=True)
    told, hinted_told = ties(plain), ties(hinted)
    assert told is not None
    assert hinted_told is not None
    assert "model base" in told.reads
    assert "traces" not in told.reads
    assert "traces" in hinted_told.reads
