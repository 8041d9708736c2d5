"""Scorers: nobody is judged by a model that saw the choice, however far back in its making."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fold_scorers import checkpoint, sft
from small_models import DATASET, WINDOW

from mllmrec.data.draws import in_fold
from mllmrec.errors import ArtifactError, SettingsError
from mllmrec.reasoning.assessment.scorers import FoldScorer, assign, check_window, choose_scorers
from mllmrec.settings.texts import AssessSettings
from mllmrec.settings.training import GrpoSettings, MergeSettings
from mllmrec.storage.manifests import Manifest, hash_model, manifest_path, unmark
from mllmrec.storage.workspace import Workspace, sha256, write_json, write_text

USERS = [f"u{number}" for number in range(60)]
ODD, EVEN = ([user for user in USERS if in_fold(user, fold)] for fold in ("1/2", "2/2"))


def choose(workspace: Workspace, *tags: str, dataset: str = DATASET) -> list[FoldScorer]:
    return choose_scorers(AssessSettings(dataset=dataset, root=str(workspace.root), scorer=tags), workspace)


def pretrained(workspace: Workspace, **settings: Any) -> None:
    """Say that `tiny` was pre-trained so."""
    path = manifest_path(workspace.root / "tiny")
    manifest = Manifest.read(workspace.root / "tiny")
    assert manifest is not None
    write_json(path, vars(manifest) | {"settings": manifest.settings | settings})


def test_two_folds_judge_each_others_users(toy_copy: Workspace) -> None:
    sft(toy_copy, "a", "1/2")
    sft(toy_copy, "b", "2/2")
    chosen = assign(choose(toy_copy, "a", "b"), USERS)
    assert set(chosen) == set(USERS)
    assert {user for user, scorer in chosen.items() if scorer.tag == "a"} == set(EVEN)
    assert {user for user, scorer in chosen.items() if scorer.tag == "b"} == set(ODD)


def test_of_three_folds_the_first_that_never_saw_the_user_judges(toy_copy: Workspace) -> None:
    for number in (1, 2, 3):
        sft(toy_copy, f"f{number}", f"{number}/3")
    chosen = assign(choose(toy_copy, "f1", "f2", "f3"), USERS)
    assert all(not in_fold(user, f"{scorer.tag[1]}/3") for user, scorer in chosen.items())
    assert {scorer.tag for scorer in chosen.values()} == {"f1", "f2"}


@pytest.mark.parametrize("folds", [["1/2"], [""], ["1/2", "1/2"], ["1/2", ""], ["1/2", "1/4"]])
def test_scorers_that_saw_some_user_are_refused(toy_copy: Workspace, folds: list[str]) -> None:
    for number, fold in enumerate(folds):
        sft(toy_copy, f"s{number}", fold)
    scorers = choose(toy_copy, *(f"s{number}" for number in range(len(folds))))
    seen = [user for user in USERS if all(in_fold(user, fold) for fold in folds)]
    with pytest.raises(SettingsError) as error:
        assign(scorers, USERS)
    assert f"{len(seen)} of 60 users (such as {seen[0]}) were trained on by every scorer" in str(error.value)
    assert f"s0 saw {f'part {folds[0]}' if folds[0] else 'everybody'}" in str(error.value)
    assert "`mllmrec sft --fold 1/2`" in str(error.value)
    assert assign(scorers, [user for user in USERS if user not in seen]).keys() == set(USERS) - set(seen)


def test_a_backbone_that_read_the_sequences_saw_everybody(toy_copy: Workspace) -> None:
    pretrained(toy_copy, sequence_steps=200)
    sft(toy_copy, "a", "1/2")
    sft(toy_copy, "b", "2/2")
    with pytest.raises(SettingsError, match=r"60 of 60 users.*a saw everybody"):
        assign(choose(toy_copy, "a", "b"), USERS)


def test_a_backbone_that_read_the_sequences_of_its_fold_saw_these(toy_copy: Workspace) -> None:
    pretrained(toy_copy, sequence_steps=200, fold="1/2")
    sft(toy_copy, "a", "1/2")
    assert set(assign(choose(toy_copy, "a"), EVEN)) == set(EVEN)
    sft(toy_copy, "b", "2/2")
    with pytest.raises(SettingsError, match="b saw part 1/2 and 2/2"):
        assign(choose(toy_copy, "b"), USERS[:1])


def test_what_a_scorer_was_made_from_counts_through_every_stage(toy_copy: Workspace) -> None:
    """Everybody's SFT, merged, then GRPO on one fold: it saw everybody."""
    everybody = sft(toy_copy, "first")
    settings = MergeSettings(dataset=DATASET, tag="first", merged_tag="merged")
    checkpoint(toy_copy, settings, "merged", f"checkpoints/{DATASET}/merged", adapter=hash_model(everybody))
    grpo = GrpoSettings(dataset=DATASET, sft_tag="merged", tag="last", fold="1/2")
    checkpoint(toy_copy, grpo, "last", f"checkpoints/{DATASET}/merged")
    assert choose(toy_copy, "last")[0].folds == {"", "1/2"}
    assert choose(toy_copy, "merged")[0].folds == {""}


def test_a_model_of_the_hub_saw_nobody(toy_copy: Workspace) -> None:
    sft(toy_copy, "a", "1/2", model="Qwen/Qwen3-4B")
    assert choose(toy_copy, "a")[0].folds == {"1/2"}


@pytest.mark.parametrize("change", [shutil.rmtree, lambda base: write_text(base / "tokenizer.json", "{}")])
def test_a_base_that_is_gone_or_has_changed_is_refused(toy_copy: Workspace, change: Callable[[Path], None]) -> None:
    sft(toy_copy, "a", "1/2")
    change(toy_copy.root / "tiny")
    with pytest.raises(ArtifactError, match="was made from tiny, which is gone or has changed since"):
        choose(toy_copy, "a")


def test_another_dataset_counts_only_where_it_is_the_same_file(toy_copy: Workspace) -> None:
    shutil.copytree(toy_copy.dataset(DATASET).folder, toy_copy.dataset("other").folder)
    same = sha256(toy_copy.dataset("other").split("train"))
    base = sft(toy_copy, "elsewhere", dataset="other", train="0" * 64)
    sft(toy_copy, "a", "1/2", model=str(base))
    assert choose(toy_copy, "a")[0].folds == {"1/2"}
    base = sft(toy_copy, "copied", dataset="other", train=same)
    sft(toy_copy, "b", "1/2", model=str(base))
    assert choose(toy_copy, "b")[0].folds == {"", "1/2"}


def test_a_scorer_that_is_missing_or_unfinished_is_told_with_those_there_are(toy_copy: Workspace) -> None:
    unmark(sft(toy_copy, "a", "1/2"))
    sft(toy_copy, "b", "1/2")
    with pytest.raises(ArtifactError, match=r"The scorer c is missing.*Finished checkpoints of toy: b\."):
        choose(toy_copy, "c")
    with pytest.raises(ArtifactError, match=r"has no finished manifest, which would say whom the scorer a saw"):
        choose(toy_copy, "a")


def test_other_windows_are_refused(toy_copy: Workspace) -> None:
    sft(toy_copy, "a", "1/2")
    scorers = choose(toy_copy, "a")
    check_window(scorers, WINDOW)
    with pytest.raises(SettingsError, match=r"window is 10, and the scorer a was trained with 5"):
        check_window(scorers, 10)


def test_without_scorers_nobody_is_assigned() -> None:
    assert assign([], []) == {}
