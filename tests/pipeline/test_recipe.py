"""Recipes: the shipped ones carry the published settings; every mistake of a file is told at once, by its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mllmrec import SettingsError
from mllmrec.pipeline.recipe import Recipe, load_recipe, shipped_recipes
from mllmrec.stages import STAGES

# The reference implementation's best settings: SFT share of hints and epochs; the same of GRPO; window, G, beta.
PUBLISHED = {
    "movielens": (0.10, 3, 0.05, 3, 10, 8, 0.10),
    "microlens": (0.10, 5, 0.10, 3, 10, 8, 0.05),
    "netflix": (0.10, 3, 0.05, 2, 5, 8, 0.20),
}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def mistakes(tmp_path: Path, text: str) -> str:
    with pytest.raises(SettingsError) as error:
        load_recipe(write(tmp_path, text))
    return str(error.value).replace(f"{tmp_path}/", "")


def only(recipe: Recipe, verb: str) -> Any:
    (stage,) = [stage for stage in recipe.stages() if stage.verb == verb and not getattr(stage, "fold", "")]
    return stage


def test_a_recipe_is_shipped_for_each_published_dataset_and_for_the_demo() -> None:
    assert {"demo", *PUBLISHED} <= set(shipped_recipes())


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_validates_and_names_its_dataset(name: str) -> None:
    recipe = load_recipe(name)
    stages = recipe.stages()
    assert {stage.dataset for stage in stages} == {name.split("-")[0]}
    assert list(recipe.blocks) == [verb for verb in STAGES if verb in recipe.blocks]
    assert [stage.verb for stage in stages] == [STAGES[key].verb for key in recipe.blocks for _ in recipe.blocks[key]]
    assert {"candidates", "baselines", "sft", "merge", "grpo", "evaluate"} <= {stage.verb for stage in stages}


def test_scorers_are_sft_stages_that_come_before_the_assessment(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "dataset: shop\npseudo_cot: {}\nassess: {scorer: [a]}\nsft: {tag: b}\nscorers: [{tag: a, fold: 1/2}]\n"
    )
    assert [stage.verb for stage in load_recipe(path).stages()] == ["pseudo-cot", "sft", "assess", "sft"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shipped_recipe_carries_the_published_settings(name: str) -> None:
    recipe = load_recipe(name)
    sft, grpo = only(recipe, "sft"), only(recipe, "grpo")
    found = (sft.cot_prob, sft.epochs, grpo.cot_prob, grpo.epochs, sft.min_inter, grpo.num_generations, grpo.beta)
    assert found == PUBLISHED[name]
    assert (sft.lr, sft.rank, sft.batch, sft.accum) == (1e-5, 16, 2, 8)
    assert (grpo.lr, grpo.rank, grpo.batch, grpo.accum, grpo.save_steps) == (1e-5, 16, 4, 8, 500)
    assert (sft.backbone, sft.peft, sft.windows, sft.num_neg) == ("Qwen3-4B", "lora", "last", 9)


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_stages_of_a_shipped_recipe_fit_together(name: str) -> None:
    recipe = load_recipe(name)
    stages = recipe.stages()
    frozen = {(s.split, s.num_neg, s.min_inter, s.seed) for s in stages if s.verb == "candidates"}
    merges = [stage for stage in stages if stage.verb == "merge"]
    assert {stage.tag for stage in merges} <= {stage.tag for stage in stages if stage.verb == "sft"}
    whole = {stage.tag for stage in stages if stage.verb == "sft" and stage.peft == "none"}
    assert only(recipe, "grpo").sft_tag in {*(stage.merged_tag for stage in merges), *whole}
    (window,) = {stage.min_inter for stage in stages if stage.verb == "sft"}
    for stage in stages:
        if stage.verb == "baselines":
            assert (stage.split, stage.num_neg, stage.min_inter, stage.seed) in frozen
        if stage.verb == "evaluate":
            assert (stage.split, stage.num_neg, window, stage.seed) in frozen


def test_a_recipe_is_found_by_path_by_name_and_by_the_name_it_has_in_the_repository(tmp_path: Path) -> None:
    mine = write(tmp_path, "candidates: {num_neg: 4}\n")
    assert load_recipe(mine).path == mine
    shipped = load_recipe("demo").path
    for spelling in ("demo.yaml", "recipes/demo.yaml", "recipes/demo"):
        assert load_recipe(spelling).path == shipped


@pytest.mark.parametrize("name", ["", "movielns", "elsewhere/demo", "/nowhere/demo.yaml", "."])
def test_a_recipe_that_is_nowhere_is_answered_with_the_shipped_ones(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"shipped recipes are {', '.join(shipped_recipes())}\.$"):
        load_recipe(name)


def test_blocks_run_in_the_order_of_the_pipeline_whatever_the_order_of_the_file(tmp_path: Path) -> None:
    text = "evaluate: [{tag: b}, {tag: a}]\nsft: {tag: a}\ncandidates:\ndataset: shop\n"
    stages = load_recipe(write(tmp_path, text)).stages()
    assert [stage.verb for stage in stages] == ["candidates", "sft", "evaluate", "evaluate"]
    assert [stage.tag for stage in stages if stage.verb == "evaluate"] == ["b", "a"]


def test_shared_keys_reach_every_block_that_knows_them_and_blocks_win(tmp_path: Path) -> None:
    text = "dataset: shop\nseed: 7\nroot: /w\nmerge: {}\ncandidates: {seed: 8}\nbaselines: {}\n"
    stages = {stage.verb: stage for stage in load_recipe(write(tmp_path, text)).stages()}
    assert {stage.dataset for stage in stages.values()} == {"shop"}
    assert {stage.root for stage in stages.values()} == {"/w"}
    assert stages["candidates"].seed == 8
    assert stages["baselines"].seed == 7


def test_overrides_win_over_shared_keys(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "dataset: shop\nroot: /w\ncandidates: {}\n"))
    (stage,) = recipe.stages(dataset="other", root="/v", overwrite=True)
    assert (stage.dataset, stage.root, stage.overwrite) == ("other", "/v", True)


def test_hyphens_and_underscores_both_work(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "dataset: shop\ncandidates: {num-neg: 4, min_inter: 5}\n"))
    assert recipe.block("candidates") == {"dataset": "shop", "num_neg": 4, "min_inter": 5}


def test_numbers_that_yaml_takes_for_text_still_count(tmp_path: Path) -> None:
    assert only(load_recipe(write(tmp_path, "dataset: d\nsft: {lr: 1e-5}\n")), "sft").lr == 1e-5


def test_a_block_on_its_own(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "dataset: d\nevaluate: []\nsft:\n"))
    assert recipe.block("evaluate") == {"dataset": "d"}
    assert recipe.block("sft") == {"dataset": "d"}
    assert recipe.block("merge") == {"dataset": "d"}
    assert recipe.block("no verb") == {}
    assert [stage.verb for stage in recipe.stages()] == ["sft"]


def test_several_blocks_of_a_verb_have_no_one_block(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "dataset: d\nevaluate: [{}, {}]\n"))
    with pytest.raises(SettingsError, match=r"has 2 blocks for evaluate.*`mllmrec run`"):
        recipe.block("evaluate")


def test_a_recipe_without_a_dataset_gets_it_from_the_command_line(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "candidates: {}\n"))
    assert recipe.stages(dataset="shop")[0].dataset == "shop"
    with pytest.raises(SettingsError, match=r"candidates: dataset is required"):
        recipe.stages()


def test_every_mistake_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    text = (
        "dataset: d\nseeed: 3\nevalute: {}\nmerge: yes please\nsft: {epochs: 0, bach: 2, lr: fast}\n"
        "evaluate: [{}, {top_k: 0}, {methode: score}]\ngrpo: {}\n"
    )
    assert mistakes(tmp_path, text) == (
        "mine.yaml has mistakes: seeed is no verb or shared key (did you mean seed?); "
        "evalute is no verb or shared key (did you mean evaluate?); merge isn't a block of settings; "
        "sft: lr = 'fast': input should be a valid number, unable to parse string as a number; "
        "epochs = 0: input should be greater than or equal to 1; bach is no setting here (did you mean batch?); "
        "grpo: sft_tag is required; "
        "evaluate[2]: top_k = [0]: expected one or more whole numbers of at least 1, such as 3,5,10; "
        "evaluate[3]: methode is no setting here (did you mean method?). Mend the file and start again."
    )


def test_a_key_that_stands_twice_is_told_by_its_line(tmp_path: Path) -> None:
    text = "dataset: d\nsft: {tag: a}\nevaluate:\n  - tag: a\n    tag: b\nsft: {tag: b}\n"
    told = mistakes(tmp_path, text)
    assert "line 5: tag stands twice" in told
    assert "line 6: sft stands twice" in told


def test_broken_yaml_is_named_with_its_line(tmp_path: Path) -> None:
    told = mistakes(tmp_path, "dataset: d\nsft: {tag: a\nmerge: {}\n")
    assert told.startswith("mine.yaml:3: not valid YAML (")
    assert mistakes(tmp_path, "sft:\n\ttag: a\n").startswith("mine.yaml:2: not valid YAML (")


@pytest.mark.parametrize(("text", "kind"), [("", "NoneType"), ("- sft\n- grpo\n", "list"), ("just words", "str")])
def test_a_file_that_holds_no_blocks_is_refused(tmp_path: Path, text: str, kind: str) -> None:
    assert mistakes(tmp_path, text) == f"mine.yaml: expected blocks of settings by verb, found {kind}."


def test_a_recipe_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"dataset: caf\xe9\n")
    with pytest.raises(SettingsError, match="not UTF-8"):
        load_recipe(path)
    path.write_bytes(b"\xef\xbb\xbfdataset: cafe\r\ncandidates: {}\r\n")
    assert load_recipe(path).stages()[0].dataset == "cafe"


def test_yaml_can_run_no_code(tmp_path: Path) -> None:
    told = mistakes(tmp_path, "dataset: !!python/object/apply:os.getcwd []\n")
    assert "could not determine a constructor" in told
