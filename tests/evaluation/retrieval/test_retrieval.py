"""Lists of a retriever: by scores alone, outside what is known, never by the target, each in a file of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from workspaces import titles_csv, tsv, write_dataset

from mllmrec.cli.main import main
from mllmrec.data.candidates.drawing import read_candidates
from mllmrec.data.candidates.protocols import ListsName
from mllmrec.data.sequences import is_held_out
from mllmrec.errors import ArtifactError, DataError, SettingsError
from mllmrec.evaluation.baselines.families import FAMILIES
from mllmrec.evaluation.ranking.runs import candidate_file
from mllmrec.evaluation.retrieval.stage import best, run
from mllmrec.records import RankingExample, Summary
from mllmrec.settings.base import validated
from mllmrec.settings.data import DEFAULT_RETRIEVER, RETRIEVERS, RetrieveSettings
from mllmrec.settings.evaluation import RunSettings
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import Workspace, read_json, sha256, write_text

ITEMS = [f"i{number}" for number in range(12)]
# i0 occurs 12 times in training, i1 11 times, ..., i11 once: no two items are equally popular.
POPULAR = [(f"t{copy}", ITEMS[: 12 - copy]) for copy in range(12)]


def shop(root: Path, test: list[tuple[str, list[str]]], train: list[tuple[str, list[str]]] | None = None) -> Workspace:
    rows = train or [(user, items) for user, items in POPULAR]
    return write_dataset(root, train=tsv(rows), valid=tsv([("v", ["i0", "i1", "i2"])]), test=tsv(test))


def freeze(workspace: Workspace, **knobs: object) -> Summary:
    base = {"dataset": "shop", "root": str(workspace.root), "retriever": "popularity", "min_inter": 3, "num": 3}
    return run(validated(RetrieveSettings, base | knobs, "test"), workspace)


def lists(summary: Summary) -> list[RankingExample]:
    assert summary.artifact is not None
    return read_candidates(summary.artifact)


@given(
    scores=st.lists(st.sampled_from([0.0, 1.0, 2.0, -1.0, 0.5]), min_size=4, max_size=12),
    data=st.data(),
)
@hypothesis_settings(deadline=None)
def test_the_best_are_those_a_full_sort_puts_first(scores: list[float], data: st.DataObject) -> None:
    free = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)).filter(any))
    count = data.draw(st.integers(1, sum(free)))
    above, equals = best(np.array(scores), np.array(free), count)
    ordered = sorted((scores[index] for index in range(len(scores)) if free[index]), reverse=True)[:count]
    taken = [scores[index] for index in above + equals[: count - len(above)]]
    assert sorted(taken, reverse=True) == ordered
    assert all(free[index] for index in above + equals)
    assert len(above) < count <= len(above) + len(equals)


def test_hard_negatives_are_the_top_items_that_are_neither_known_nor_the_target(tmp_path: Path) -> None:
    workspace = shop(tmp_path, [("u", ["i0", "i3", "i4"]), ("w", ["i7", "i8", "i0"])])
    first, second = lists(freeze(workspace))
    assert {*first.candidates} == {"i4", "i1", "i2", "i5"}
    assert {*second.candidates} == {"i0", "i1", "i2", "i3"}
    assert (first.history, first.target_id) == (("i0", "i3"), "i4")


def test_a_rerank_list_holds_the_target_only_where_the_retriever_found_it(tmp_path: Path) -> None:
    workspace = shop(tmp_path, [("u", ["i0", "i3", "i2"]), ("w", ["i7", "i8", "i5"])])
    summary = freeze(workspace, rerank=True)
    first, second = lists(summary)
    assert {*first.candidates} == {"i1", "i2", "i4"}
    assert {*second.candidates} == {"i0", "i1", "i2"}
    assert summary.facts["retrieved"] == 1
    assert summary.headline == (
        "The top 3 of popularity for each of 2 users in test_rr3-popularity_w3_s42.jsonl; the target is among them for "
        "1 (50.0%), and no ranking of them can find more"
    )


@pytest.mark.parametrize("target", ["i2", "i5", "i9", "i11"])
def test_what_is_retrieved_does_not_hang_on_the_target(tmp_path: Path, target: str) -> None:
    [example] = lists(freeze(shop(tmp_path, [("u", ["i0", "i3", target])]), rerank=True, num=5))
    assert {*example.candidates} == {"i1", "i2", "i4", "i5", "i6"}


def test_a_target_that_was_met_before_is_no_item_to_be_found(tmp_path: Path) -> None:
    """Were it let in because it is the target, its mere presence among unknown items would give it away."""
    train = [*POPULAR, ("u", ["i1", "i9"]), ("w", ["i9"])]
    workspace = shop(tmp_path, [("u", ["i9", "i3", "i1"]), ("w", ["i2", "i0", "i2"])], train)
    first, second = lists(freeze(workspace, rerank=True))
    assert {*first.candidates} == {"i0", "i2", "i4"}
    assert {*second.candidates} == {"i1", "i3", "i4"}
    assert all(each.target_id in each.candidates for each in lists(freeze(workspace)))


def test_among_equals_lots_are_drawn_evenly_and_for_each_example_anew(tmp_path: Path) -> None:
    users = [(f"u{number}", ["i0", "i1", "i2"]) for number in range(1_200)]
    train = [("t", ["i3"]), ("t", ["i0", "i1", "i2", "i4"])]
    workspace = write_dataset(tmp_path, train=tsv(train), test=tsv(users), titles=titles_csv(ITEMS[:9]))
    summary = freeze(workspace, num=4)
    drawn = [item for each in lists(summary) for item in each.candidates]
    assert summary.facts["cut_among_equals"] == 1_200
    assert drawn.count("i2") == drawn.count("i3") == drawn.count("i4") == 1_200
    # Two of i5 ... i8, which training never saw: binomial with mean 600 and standard deviation 17.
    assert all(abs(drawn.count(item) - 600) < 90 for item in ITEMS[5:9])
    places = [each.candidates.index("i2") for each in lists(summary)]
    assert all(abs(places.count(place) - 240) < 70 for place in range(5))


def test_lists_hang_neither_on_the_order_of_rows_nor_on_other_rows(tmp_path: Path) -> None:
    rows = [(f"u{number}", [ITEMS[number % 5], ITEMS[5], ITEMS[6 + number % 6]]) for number in range(9)]
    whole = freeze(shop(tmp_path / "one", rows), retriever="markov").artifact
    part = freeze(shop(tmp_path / "two", rows[:2:-1]), retriever="markov").artifact
    assert whole is not None
    assert part is not None
    assert part.read_text().splitlines() == whole.read_text().splitlines()[:2:-1]


def test_validation_targets_are_neither_counted_nor_excluded_by_hindsight(tmp_path: Path) -> None:
    held = next(user for user in map(str, range(999)) if is_held_out(user))
    other = next(user for user in map(str, range(999)) if not is_held_out(user))
    train = [(held, ["a", "b", "secret"]), (other, ["a", "b", "c"]), (other, ["c", "d"])]
    workspace = write_dataset(tmp_path, train=tsv(train), test=tsv([(held, ["a", "b", "secret", "e"])]))
    [hard] = lists(freeze(workspace, split="valid", num=2))
    assert {*hard.candidates} == {"secret", "c", "d"}
    summary = freeze(workspace, split="valid", rerank=True, num=2)
    [found] = lists(summary)
    # `secret` occurs in train.tsv as the validation target alone: it must not have counted, nor be known.
    assert {*found.candidates} == {"c", "d"}
    [test] = lists(freeze(workspace, rerank=True, num=2))
    assert "secret" not in test.candidates


def test_each_retriever_has_a_file_of_its_own_and_the_manifest_names_it(tmp_path: Path) -> None:
    workspace = shop(tmp_path, [("u", ["i0", "i3", "i4"])])
    made = [
        freeze(workspace, **knobs).artifact
        for knobs in ({}, {"retriever": "markov"}, {"rerank": True}, {"num": 5}, {"seed": 1})
    ]
    assert [path.name for path in made if path is not None] == [
        "test_hard3-popularity_w3_s42.jsonl",
        "test_hard3-markov_w3_s42.jsonl",
        "test_rr3-popularity_w3_s42.jsonl",
        "test_hard5-popularity_w3_s42.jsonl",
        "test_hard3-popularity_w3_s1.jsonl",
    ]


def test_every_retriever_is_a_baseline_that_can_be_fitted() -> None:
    assert set(RETRIEVERS) <= FAMILIES.keys()
    assert DEFAULT_RETRIEVER in RETRIEVERS


def test_the_default_retriever_reads_the_whole_line_and_is_tuned(tmp_path: Path) -> None:
    """By item kNN: whoever chose i0 and i1 chose i2 and i3; the last item alone, i9, resembles nothing but i8."""
    pytest.importorskip("implicit")
    rows = [(f"t{copy}", items) for copy in range(6) for items in (["i0", "i1", "i2", "i3"], ["i8", "i9", "i10"])]
    workspace = shop(tmp_path, [("u", ["i0", "i1", "i1", "i9", "i11"])], [*rows, *POPULAR])
    summary = freeze(workspace, retriever="itemknn", num=2, min_inter=2)
    path = summary.artifact
    assert path is not None
    assert path.name == "test_hard2_w2_s42.jsonl"
    [example] = read_candidates(path)
    assert (example.history, example.target_id) == (("i9",), "i11")
    assert {*example.candidates} == {"i11", "i2", "i3"}
    manifest = Manifest.read(path)
    assert manifest is not None
    assert manifest.details["retriever"] == "itemknn"
    assert manifest.details["tuning"]["point"].keys() == {"kind", "K", "decay"}


def test_a_retriever_whose_library_is_missing_names_the_one_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(SettingsError, match=r"itemknn needs RecTools.*pip install .*--retriever popularity or markov"):
        freeze(shop(tmp_path, [("u", ["i0", "i3", "i4"])]), retriever="itemknn")


def test_the_default_retriever_keeps_the_short_stem(tmp_path: Path) -> None:
    settings = RetrieveSettings(dataset="shop", root=str(tmp_path))
    path = ListsName.asked(settings).path(Workspace(tmp_path).dataset("shop"))
    assert (settings.retriever, path.name) == ("itemknn", "test_hard19_w10_s42.jsonl")
    rerank = RetrieveSettings(dataset="shop", root=str(tmp_path), rerank=True)
    assert ListsName.asked(rerank).path(Workspace(tmp_path).dataset("shop")).name == "test_rr100_w10_s42.jsonl"


def test_a_finished_file_is_left_alone_and_its_manifest_tells_how_it_was_made(tmp_path: Path) -> None:
    workspace = shop(tmp_path, [("u", ["i0", "i3", "i4"])])
    path = freeze(workspace).artifact
    assert path is not None
    manifest = Manifest.read(path)
    assert manifest is not None
    assert manifest.details == {
        "sha256": sha256(path),
        "draws": 2,
        "retriever": "popularity",
        "history": "full",
        "fit_lines": 12,
    }
    assert manifest.counts == {"lines": 1, "too_short": 0, "duplicates": 0, "cut_among_equals": 0, "examples": 1}
    assert freeze(workspace).headline == "test_hard3-popularity_w3_s42.jsonl is there already; nothing to do."


def test_a_file_of_other_training_data_is_refused_wherever_it_is_named(tmp_path: Path) -> None:
    workspace = shop(tmp_path, [("u", ["i0", "i3", "i4"])])
    path = freeze(workspace).artifact
    write_text(workspace.dataset("shop").split("train"), tsv(POPULAR[:-1]))
    knobs = {"dataset": "shop", "root": str(tmp_path), "min_inter": 3, "num_neg": 3}
    named = RunSettings.model_validate(knobs | {"negatives": "hard", "retriever": "popularity"})
    given = RunSettings.model_validate(knobs | {"candidates": str(path)})
    for settings in (named, given):
        with pytest.raises(
            ArtifactError, match=r"train changed since\. Make it again with `mllmrec retrieve --overwrite"
        ):
            candidate_file(settings, workspace)
    with pytest.raises(ArtifactError, match="input train has changed"):
        freeze(workspace)
    assert "hard3-popularity" in str(freeze(workspace, overwrite=True).artifact)


def test_too_few_items_are_told_with_the_number_there_is(tmp_path: Path) -> None:
    workspace = shop(tmp_path, [("u", ["i0", "i3", "i4"])])
    with pytest.raises(DataError, match=r"10 items .* only 9 of 12 are not known. Lower --num to 9 or less"):
        freeze(workspace, num=10)
    workspace = shop(tmp_path, [("u", ["i0", "i3", "i4"]), ("t0", ["i0", "i1", "i2"])])
    with pytest.raises(DataError, match=r"only 0 of 12 are not known. Use a larger catalogue"):
        freeze(workspace, num=10)


def test_a_retriever_that_there_is_not_and_a_split_without_lines_are_refused(tmp_path: Path) -> None:
    workspace = write_dataset(tmp_path, train=tsv(POPULAR))
    with pytest.raises(SettingsError, match="there is no retriever 'markow'; did you mean markov"):
        freeze(workspace, retriever="markow")
    with pytest.raises(SettingsError, match="split"):
        freeze(workspace, split="train")
    with pytest.raises(ArtifactError, match="has no test lines"):
        freeze(workspace)


def test_the_command_freezes_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop(tmp_path, [("u", ["i0", "i3", "i4"])])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main(["retrieve", "--dataset", "shop", "--retriever", "popularity", "--min-inter", "3", "--num", "4"])
    assert not exit_.value.code
    assert "1 targets in test_hard4-popularity_w3_s42.jsonl" in capsys.readouterr().out
    manifest = read_json(tmp_path / "data/shop/processed/test_hard4-popularity_w3_s42.jsonl.manifest.json")
    assert manifest["verb"] == "retrieve"
