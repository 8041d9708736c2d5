"""Baselines against counts made by hand, and their stage on a made-up shop and on real sequences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from mllmrec.data.candidates.drawing import candidate_rows, questions
from mllmrec.data.candidates.legacy import draw_legacy
from mllmrec.data.draws import uniform
from mllmrec.data.sequences import Interactions, Line, is_held_out, read_catalogue, read_lines
from mllmrec.errors import ArtifactError, DataError, SettingsError
from mllmrec.evaluation.baselines import base as baselines
from mllmrec.evaluation.baselines import stage as baselines_stage
from mllmrec.evaluation.baselines.counts import Markov, Popularity, Random
from mllmrec.evaluation.baselines.families import FAMILIES
from mllmrec.evaluation.metrics import metric_names, per_user
from mllmrec.evaluation.ranking.rankings import position_of, ranking_of
from mllmrec.evaluation.ranking.runs import read_run
from mllmrec.records import RankingExample, Split
from mllmrec.settings.base import validated
from mllmrec.settings.evaluation import BASELINES, BaselinesSettings
from mllmrec.storage.workspace import Workspace, read_json, write_json, write_jsonl, write_text

LINES = [
    Line(user_id="1", items=("a", "b", "a", "b"), line_index=0),
    Line(user_id="2", items=("a", "c"), line_index=1),
    Line(user_id="2", items=("b", "c"), line_index=2),
]


def question(last: str | None, candidates: str, key: str = "e") -> RankingExample:
    return RankingExample(
        example_id=key,
        user_id="9",
        history=("b", last) if last else (),
        candidates=tuple(candidates.split()),
        target_id="a",
        split="test",
    )


def settings_of(workspace: Workspace, **values: object) -> BaselinesSettings:
    base = {"dataset": "shop", "root": str(workspace.root), "num_neg": 3, "min_inter": 3}
    return validated(BaselinesSettings, base | values, "test")


def freeze_by_hand(workspace: Workspace, split: str, targets: dict[str, str], candidates: str) -> None:
    """Lists of the last windows of some users, each with the same candidates."""
    lines = Interactions.load(workspace, "shop").lines(cast(Split, split))
    examples = [
        replace(example, candidates=tuple(candidates.split()))
        for example in questions(lines, cast(Split, split), 3)[0]
        if example.user_id in targets
    ]
    assert {example.user_id: example.target_id for example in examples} == targets
    write_jsonl(workspace.dataset("shop").candidates(split, "uni3", 3, 42), candidate_rows(examples))


def test_the_registry_is_what_the_settings_offer() -> None:
    assert tuple(FAMILIES) == BASELINES


def test_popularity_counts_every_line_of_every_user() -> None:
    scores = Popularity().fit(LINES).score(question("a", "a b c new"))
    assert scores == [3.0, 3.0, 2.0, 0.0]


def test_markov_counts_what_followed_and_backs_off_to_popularity() -> None:
    model = Markov(prior=2).fit(LINES)
    # n(a, b) = 2, n(a, c) = 1, n(a, .) = 3; popularity a 3, b 3, c 2 of 8.
    expected = [2 * 3 / 8 / 5, (2 + 2 * 3 / 8) / 5, (1 + 2 * 2 / 8) / 5, 0.0]
    assert model.score(question("a", "a b c new")) == pytest.approx(expected)
    for unknown in ("c", "new", None):
        assert model.score(question(unknown, "a b c new")) == pytest.approx([3 / 8, 3 / 8, 2 / 8, 0.0])


def test_markov_scores_are_probabilities() -> None:
    model = Markov().fit(LINES)
    assert sum(model.score(question("b", "a b c"))) == pytest.approx(1.0)


def test_no_transition_links_two_lines() -> None:
    lines = [Line(user_id="1", items=("a", "b"), line_index=0), Line(user_id="1", items=("c", "d"), line_index=1)]
    assert "b" not in Markov().fit(lines).transitions


@pytest.mark.parametrize("model", [Popularity(), Markov()])
def test_equal_counts_tie_exactly_and_unseen_items_tie_at_the_bottom(model: baselines.Baseline) -> None:
    items = [f"i{index}" for index in range(49)]
    lines = [Line(user_id=str(copy), items=tuple(items), line_index=copy) for copy in range(3)]
    scores = model.fit(lines).score(question("new", " ".join([*items, "new", "newer"])))
    assert len(set(scores)) == 2
    assert scores[-1] == scores[-2] == min(scores) < scores[0]


def test_random_scores_belong_to_the_pair_and_the_seed() -> None:
    first = Random(1).score(question("a", "a b c"))
    assert Random(1).fit(LINES).score(question("b", "c b a")) == first[::-1]
    assert Random(2).score(question("a", "a b c")) != first
    assert Random(1).score(question("a", "a b c", key="f")) != first
    assert len(set(first)) == 3


def test_random_is_at_chance() -> None:
    questions = [question("a", "a b c d", key=str(index)) for index in range(4000)]
    positions = [position_of(ranking_of(each, Random().score(each))) for each in questions]
    assert per_user(positions, ["HR@1"]).mean() == pytest.approx(0.25, abs=0.02)


def test_the_stage_writes_a_run_for_each_baseline(sequences: Workspace) -> None:
    freeze_by_hand(sequences, "test", {"1": "c", "2": "new"}, "a b c new")
    summary = baselines_stage.run(settings_of(sequences), sequences)

    assert [row[0] for row in summary.tables[0].rows] == ["random", "popularity", "markov", "chance"]
    assert summary.artifact == sequences.dataset("shop").results
    popularity = read_run(sequences.dataset("shop").run("popularity", "test_uni3_w3_s42"))
    first, second = popularity.rankings()
    # train.tsv: a 5, b 3, c 1; new never.
    assert first.scores == (5.0, 3.0, 1.0, 0.0)
    assert (first.higher, second.higher, second.rank) == (2, 3, 4.0)
    assert popularity.facts["fit_lines"] == 3


def test_the_stage_leaves_finished_runs_alone(sequences: Workspace) -> None:
    freeze_by_hand(sequences, "test", {"1": "c", "2": "new"}, "a b c new")
    baselines_stage.run(settings_of(sequences, names="markov"), sequences)
    manifest = sequences.dataset("shop").run("markov", "test_uni3_w3_s42") / "manifest.json"
    before = manifest.read_bytes()

    assert "1 were there" in baselines_stage.run(settings_of(sequences), sequences).headline
    assert "nothing to do" in baselines_stage.run(settings_of(sequences), sequences).headline
    assert manifest.read_bytes() == before
    write_text(sequences.dataset("shop").split("train"), "1\ta c\n")
    with pytest.raises(ArtifactError, match="train has changed"):
        baselines_stage.run(settings_of(sequences), sequences)
    baselines_stage.run(settings_of(sequences, overwrite=True), sequences)
    assert manifest.read_bytes() != before


def test_other_cut_offs_are_told_without_ranking_again(sequences: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze_by_hand(sequences, "test", {"1": "c", "2": "new"}, "a b c new")
    baselines_stage.run(settings_of(sequences, names="markov"), sequences)
    folder = sequences.dataset("shop").run("markov", "test_uni3_w3_s42")
    rankings = (folder / "rankings.jsonl").read_bytes()
    monkeypatch.setattr(baselines_stage, "_rank", None)
    summary = baselines_stage.run(settings_of(sequences, names="markov", top_k="1,2"), sequences)
    wanted = {f"{name}/foreign-test_uni3_w3_s42" for name in ("HR@1", "HR@2", "NDCG@2", "HR@3", "NDCG@3", "MRR")}
    assert wanted <= {*summary.tables[0].columns}, "those of the first call stay"
    assert (folder / "rankings.jsonl").read_bytes() == rankings
    assert read_run(folder).facts["fit_lines"] == 3


def test_the_limit_takes_a_slice_of_users_into_a_folder_of_its_own(sequences: Workspace) -> None:
    freeze_by_hand(sequences, "test", {"1": "c", "2": "new", "3": "d"}, "a b c d new")
    summary = baselines_stage.run(settings_of(sequences, limit=2, names="popularity"), sequences)
    run = read_run(sequences.dataset("shop").run("popularity", "test_uni3_w3_s42_limit2"))
    smallest = sorted("123", key=lambda user: uniform(42, "slice/test", user))[:2]
    assert [ranking.user_id for ranking in run.rankings()] == smallest != ["1", "2"]
    assert run.facts["slice"] == {"of": 3, "by": "users by hash of seed, split and user, seed 42"}
    [table] = summary.tables
    assert table.title == "shop, 2 of 3 users, drawn by hash, test_uni3_w3_s42"
    assert [row[0] for row in table.rows] == ["popularity limit2", "chance", "detectable"]
    assert table.rows[-1][1:] == tuple(
        "" if least is None else f"{least:.3f}" for least in run.facts["minimum_detectable"].values()
    )
    assert "a 5 % test finds in 80 % of repetitions" in table.note


def test_a_slice_by_another_rule_is_no_finished_run(sequences: Workspace) -> None:
    freeze_by_hand(sequences, "test", {"1": "c", "2": "new", "3": "d"}, "a b c d new")
    settings = settings_of(sequences, limit=2, names="popularity")
    baselines_stage.run(settings, sequences)
    path = sequences.dataset("shop").run("popularity", "test_uni3_w3_s42_limit2") / "manifest.json"
    manifest = read_json(path)
    del manifest["inputs"]["slice"]
    write_json(path, manifest)
    with pytest.raises(ArtifactError, match="input slice has changed"):
        baselines_stage.run(settings, sequences)


def test_held_out_targets_are_counted_for_test_and_not_for_validation(sequences: Workspace) -> None:
    held_out = next(str(user) for user in range(1000) if is_held_out(str(user)))
    sequences.dataset("shop").split("valid").unlink()
    for split in ("train", "test"):
        write_text(sequences.dataset("shop").split(split), f"{held_out}\ta b c\n")
    for split in ("valid", "test"):
        freeze_by_hand(sequences, split, {held_out: "c"}, "a b c new")
        settings = settings_of(sequences, split=split, names="popularity")
        baselines_stage.run(settings, sequences)
    scores = {
        split: next(read_run(sequences.dataset("shop").run("popularity", f"{split}_uni3_w3_s42")).rankings()).scores
        for split in ("valid", "test")
    }
    assert scores == {"valid": (1.0, 1.0, 0.0, 0.0), "test": (1.0, 1.0, 1.0, 0.0)}


def test_the_train_split_is_refused(sequences: Workspace) -> None:
    freeze_by_hand(sequences, "train", {"1": "b"}, "a b c new")
    with pytest.raises(DataError, match="fitted on train"):
        baselines_stage.run(settings_of(sequences, split="train"), sequences)


def test_test_tsv_need_not_be_there(sequences: Workspace) -> None:
    freeze_by_hand(sequences, "test", {"1": "c"}, "a b c new")
    sequences.dataset("shop").split("test").unlink()
    assert baselines_stage.run(settings_of(sequences), sequences).tables


def test_missing_candidates_are_named(sequences: Workspace) -> None:
    with pytest.raises(ArtifactError, match="mllmrec candidates --dataset shop --split test --num-neg 3"):
        baselines_stage.run(settings_of(sequences), sequences)


def test_an_unknown_baseline_is_refused_with_the_nearest_name(sequences: Workspace) -> None:
    with pytest.raises(SettingsError, match="no baseline 'popular'; did you mean popularity"):
        settings_of(sequences, names="random,popular")
    with pytest.raises(SettingsError, match="names is empty"):
        settings_of(sequences, names="")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("num_neg", "expected"),
    [
        (9, {"HR@1": 0.384, "HR@3": 0.704, "NDCG@3": 0.570}),
        (99, {"HR@1": 0.079, "HR@10": 0.428, "NDCG@10": 0.229}),
    ],
)
def test_popularity_on_movielens_is_the_known_floor(real_data: Path, num_neg: int, expected: dict[str, float]) -> None:
    folder = real_data / "movielens"
    pool = read_catalogue(folder / "movielens_titles.csv").ids
    examples = draw_legacy(read_lines(folder / "test.tsv"), pool, "test", window=10, num_neg=num_neg, seed=42)
    model = Popularity().fit(read_lines(folder / "train.tsv"))
    positions = [position_of(ranking_of(example, model.score(example))) for example in examples]
    names = metric_names([3, 10])
    values = dict(zip(names, per_user(positions, names).mean(axis=0), strict=True))
    assert len(positions) == 6040
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=0.003)
