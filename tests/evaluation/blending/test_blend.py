"""The command `blend`, from validation and test RUNs to a RUN that the other commands take, and all that it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import vouch_again
from toy_world import ToyWorld, write_toy_world

from mllmrec.cli.main import main
from mllmrec.data.candidates.drawing import read_candidates
from mllmrec.data.draws import generator
from mllmrec.evaluation.blending.fitting import standardised
from mllmrec.evaluation.blending.stage import run as blend
from mllmrec.evaluation.ranking.rankings import ranking_of
from mllmrec.evaluation.ranking.runs import read_run, run_folder, write_run
from mllmrec.evaluation.reporting.ladder import measure, verdict
from mllmrec.evaluation.reporting.runs import read_ladders
from mllmrec.records import RankingExample, Summary
from mllmrec.settings.evaluation import BlendSettings, EvaluateSettings
from mllmrec.storage.workspace import Workspace, read_json, sha256, write_json

DATASET, LISTS = "world", "uni9_w5_s42"
NAMES = ("popularity", "recency", "markov")
BLENDS = {"left-right": ("left", "right"), "left-markov-right": ("left", "right", "markov")}
Scorer = Callable[[RankingExample, np.random.Generator], Iterable[float]]


def command(*words: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(list(words))
    return int(exit_.value.code or 0)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one paragraph with which a command is refused."""
    assert command("blend", *words) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy world with validation and test lists, and three baselines on both; tests that write take a copy."""
    root = tmp_path_factory.mktemp("blend")
    write_toy_world(ToyWorld(num_items=60, num_users=120, length=(8, 11)), root / "raw")
    where = ("--dataset", DATASET, "--root", str(root), "--min-inter", "5")
    raw = ("--raw", str(root / "raw"), "--titles", str(root / "raw" / "titles.csv"))
    assert not command("prepare", "--source", "pairs", *raw, *where)
    for split in ("valid", "test"):
        assert not command("candidates", *where, "--split", split)
        assert not command("baselines", *where, "--split", split, "--names", ",".join(NAMES), "--history", "window")
    return root


@pytest.fixture
def world(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "world"))


def runs_of(split: str, *names: str, lists: str = LISTS) -> list[str]:
    return [f"result/{DATASET}/{name}/{split}_{lists}" for name in names]


def words_of(root: Path, *names: str) -> list[str]:
    """The command line that blends these recommenders."""
    return [*runs_of("test", *names), "--on", *runs_of("valid", *names), "--root", str(root)]


def blended(root: Path, *names: str, **knobs: Any) -> Summary:
    runs = {"runs": runs_of("test", *names), "on": runs_of("valid", *names)}
    return blend(BlendSettings.model_validate({"root": str(root)} | runs | knobs), Workspace(root))


def plant(root: Path, name: str, scorer: Scorer, splits: Iterable[str] = ("valid", "test"), **knobs: Any) -> None:
    """RUNs of a made-up model on the frozen lists: as many scores as there are candidates, from an example's draws."""
    for split in splits:
        path = Workspace(root).dataset(DATASET).candidates(split, "uni9", 5, 42)
        settings = EvaluateSettings.model_validate(
            {"dataset": DATASET, "root": str(root), "min_inter": 5, "tag": name, "split": split} | knobs
        )
        examples = read_candidates(path)
        drawn = [np.random.default_rng(generator(1, name, own.example_id).getrandbits(64)) for own in examples]
        write_run(
            run_folder(settings, Workspace(root), name, path, settings.method),
            [ranking_of(own, [*scorer(own, rng)]) for own, rng in zip(examples, drawn, strict=True)],
            settings,
            name=name,
            candidates=path,
            inputs={"candidates": sha256(path), "model": f"{name} model"},
            started=0.0,
            seconds=1.0,
            method=settings.method,
            details={"model": f"{name} model", "adapter": None},
        )


def noisy(strength: float) -> Scorer:
    """The target is raised above noise that no other scorer shares."""

    def score(example: RankingExample, rng: np.random.Generator) -> Iterable[float]:
        return [strength * (item == example.target_id) + rng.normal() for item in example.candidates]

    return score


def test_the_commands_from_baselines_to_the_report(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = words_of(world, "popularity", "markov")
    assert not command("blend", *words)
    told = capsys.readouterr()
    assert "What each part of blend-popularity-markov adds" in told.out
    assert "blends popularity, markov. At NDCG@3/uni9 " in told.out + told.err
    [own] = runs_of("test", "blend-popularity-markov")
    assert not command("verify", own, "--root", str(world))
    assert not command("compare", *runs_of("test", "markov"), own, "--root", str(world))
    assert not command("blend", *words)
    assert "is finished; nothing to do" in capsys.readouterr().out
    assert not command("report", "--dataset", DATASET, "--root", str(world), "--no-audit", "--cases", "2")
    page = (world / "result" / DATASET / "report.md").read_text()
    assert "### What each part of blend-popularity-markov adds" in page
    assert "`blend-popularity-markov` reaches" not in page, "the verdict is on the recommenders"
    assert page.index("## Ladder, uni9, 120 users\n") < page.index("## Ladder, uni9, 120 users, validation")
    assert "### Each row against the row above, a blend against its best part" in page
    recipe = world / "blend.yaml"
    recipe.write_text(json.dumps({"root": str(world), "blend": {"runs": words[:2], "on": words[3:5]}}))
    assert not command("run", str(recipe))
    assert "What each part of blend-popularity-markov adds" in capsys.readouterr().out
    assert command("blend", *words, "--folds", "4") == 2
    assert "setting folds was 5 and is now 4" in capsys.readouterr().err


def test_parts_that_complete_each_other_both_add_something(world: Path) -> None:
    plant(world, "left", noisy(1.0))
    plant(world, "right", noisy(1.0))
    summary = blended(world, "left", "right", features="scores")
    facts: Any = summary.facts["blend"]
    for name in ("left", "right"):
        adds = facts["without"][name]["adds"]
        assert adds["NDCG@3"]["low"] > 0, f"{name} adds nothing that shows"
        assert adds["NDCG@3"]["p_holm"] < 0.05
    # A target raised by one deviation of the noise is chosen as by weights of 1; with 120 users give or take .11.
    assert list(facts["whole"]["weights"].values()) == pytest.approx([1.0, 1.0], abs=0.45)
    assert "At NDCG@3/uni9 left, right add to the others." in summary.headline
    rows = {row[0]: row for row in summary.tables[1].rows}
    assert rows["left"][-1] == rows["right"][-1] == "yes"
    made = read_run(Path(str(summary.artifact)))
    for name, path in zip(("left", "right"), runs_of("test", "left", "right"), strict=True):
        assert made.intervals["NDCG@3"].value > read_run(world / path).intervals["NDCG@3"].value, name


def test_the_ladder_holds_a_blend_against_its_best_part(world: Path) -> None:
    """The row above the blend is `other`, which isn't of it; the part that the blend has to beat is `left`."""
    for name, strength in (("left", 2.0), ("right", 1.0), ("other", 3.0)):
        plant(world, name, noisy(strength))
    folders = {name: Path(str(blended(world, *names).artifact)) for name, names in BLENDS.items()}
    measured = measure(read_ladders(Workspace(world), DATASET, "NDCG@3")[0][0], 42)
    for name, others in (("left-right", "right"), ("left-markov-right", "right, markov")):
        [step] = [step for step in measured.steps if step.upper.run.folder == folders[name]]
        best = read_run(world / runs_of("test", "left")[0])
        gain = read_run(folders[name]).intervals["NDCG@3"].value - best.intervals["NDCG@3"].value
        assert step.differences["NDCG@3"].interval.value == pytest.approx(gain)
        assert step.label == f"blend-{'-'.join(BLENDS[name])}: left blended with {others}\n− left"
    assert [step.lower.label for step in measured.steps if not step.upper.is_blend] == [
        rung.label for rung in measured.ladder.rungs[:5]
    ]
    [sentence] = [sentence for sentence in verdict(measured) if "blended with" in sentence]
    assert sentence.startswith("`left` blended with right")
    shutil.rmtree(world / runs_of("test", "right")[0])
    [ladder, *_] = read_ladders(Workspace(world), DATASET, "NDCG@3")[0]
    assert all(lower == upper - 1 for lower, upper in ladder.steps), "a best part isn't known without all parts"


def test_a_part_that_knows_nothing_gets_little_weight_and_adds_nothing(world: Path) -> None:
    plant(world, "good", noisy(2.0))
    plant(world, "chance", noisy(0.0))
    facts: Any = blended(world, "good", "chance").facts["blend"]
    adds = facts["without"]["chance"]["adds"]["NDCG@3"]
    assert adds["low"] <= 0 <= adds["high"]
    assert abs(facts["whole"]["weights"]["chance"]) < 0.3 * facts["whole"]["weights"]["good"]


def test_a_part_that_says_nothing_leaves_the_ranking_of_the_other(world: Path) -> None:
    """All its scores are equal: features of zero, no weight, and the same positions, ties included."""
    plant(world, "flat", lambda example, _: [0.25] * len(example.candidates))
    summary = blended(world, "markov", "flat")
    made, [markov] = read_run(Path(str(summary.artifact))), runs_of("test", "markov")
    assert made.facts["blend"]["whole"]["weights"]["flat"] == 0.0
    alone = {own.example_id: (own.higher, own.ties) for own in read_run(world / markov).rankings()}
    assert any(ties for _, ties in alone.values())
    assert {own.example_id: (own.higher, own.ties) for own in made.rankings()} == alone
    adds = made.facts["blend"]["without"]["flat"]["adds"]
    assert all(own["low"] == own["value"] == own["high"] == 0 for own in adds.values())


def test_scores_are_the_weighted_sum_of_standardised_ones(world: Path) -> None:
    made = read_run(Path(str(blended(world, "popularity", "markov", features="scores").artifact)))
    weights = made.facts["blend"]["whole"]["weights"]
    parts = [
        {own.example_id: own for own in read_run(world / path).rankings()}
        for path in runs_of("test", "popularity", "markov")
    ]
    for own in made.rankings():
        one, other = (standardised(part[own.example_id].scores) for part in parts)
        expected = weights["popularity"] * one + weights["markov"] * other
        assert own.scores == pytest.approx(expected.tolist(), abs=1e-9)


def test_the_scale_of_a_part_changes_nothing(world: Path) -> None:
    plant(world, "left", noisy(1.0))
    plain: Any = blended(world, "left", "markov").facts["blend"]
    plant(world, "left", lambda example, rng: [0.001 * score - 7 for score in noisy(1.0)(example, rng)])
    rescaled: Any = blended(world, "left", "markov", overwrite=True).facts["blend"]
    assert rescaled["whole"]["weights"] == pytest.approx(plain["whole"]["weights"], abs=1e-6)
    assert rescaled["without"]["left"]["adds"] == plain["without"]["left"]["adds"]


def test_the_same_seed_makes_the_same_folds(world: Path) -> None:
    def losses(**knobs: Any) -> Any:
        facts: Any = blended(world, "popularity", "markov", overwrite=True, **knobs).facts["blend"]
        return facts["whole"]["held_out_loss"]

    first = losses()
    assert losses() == first
    assert losses(seed=43) != first


def test_a_slice_stays_one(world: Path) -> None:
    for split in ("valid", "test"):
        where = ("--dataset", DATASET, "--root", str(world), "--min-inter", "5", "--history", "window")
        assert not command("baselines", *where, "--split", split, "--names", "popularity,markov", "--limit", "60")
    runs = [runs_of(split, "popularity", "markov", lists=f"{LISTS}_limit60") for split in ("test", "valid")]
    assert not command("blend", *runs[0], "--on", *runs[1], "--root", str(world))
    folder = world / "result" / DATASET / "blend-popularity-markov" / f"test_{LISTS}_limit60"
    assert read_run(folder).facts["slice"]["of"] == 120
    assert not command("verify", str(folder))


# ---- what verify sees


EDITS: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("weights of the blend", lambda own: own["whole"]["weights"].update(markov=0.1)),
    ("weights of the blend", lambda own: own["without"]["markov"]["weights"].update(popularity=0.1)),
    ("weights of the blend", lambda own: own["whole"]["held_out_loss"]["ranks"].update({"1": 1.0})),
    ("weights of the blend", lambda own: own["lists"].update(fitted=119)),
    ("weights of the blend", lambda own: own["parts"].pop("markov")),
    ("blended scores", lambda own: own["whole"].update(features="scores")),
    ("what each part adds", lambda own: own["without"]["markov"]["adds"]["MRR"].update(low=-0.5)),
    ("what each part adds", lambda own: own["without"]["markov"]["adds"]["MRR"].update(p_holm=0.0)),
    ("what each part adds", lambda own: own.update(metric="MRR")),
    ("the shape of metrics.json", lambda own: own.update(weights=[1, 2])),
]


@pytest.mark.parametrize(("check", "edit"), EDITS, ids=[check for check, _ in EDITS])
def test_an_edited_blend_is_found(
    made: Path, tmp_path: Path, check: str, edit: Callable[[dict[str, Any]], object], capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(made, tmp_path / "world"))
    [own] = runs_of("test", "blend-popularity-markov")
    facts = read_json(root / own / "metrics.json")
    edit(facts["blend"])
    write_json(root / own / "metrics.json", facts)
    vouch_again(root / own)
    assert command("verify", own, "--root", str(root)) == 1
    told = capsys.readouterr()
    assert f"{check}: " in told.out + told.err


@pytest.fixture(scope="module")
def made(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world with a blend of ranks."""
    root = Path(shutil.copytree(finished, tmp_path_factory.mktemp("made") / "world"))
    blended(root, "popularity", "markov", features="ranks")
    return root


def test_a_blend_whose_parts_were_ranked_anew_is_taken_on_trust(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(made, tmp_path / "world"))
    [markov], [own] = runs_of("valid", "markov"), runs_of("test", "blend-popularity-markov")
    shutil.rmtree(root / markov)
    assert not command("verify", own, "--root", str(root))
    assert "their rankings are no longer those it was made of" in " ".join(capsys.readouterr().out.split())


# ---- what is refused


def test_runs_given_wrongly_are_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ("--root", str(finished))
    [one], [other] = runs_of("test", "popularity"), runs_of("valid", "popularity")
    assert "two RUN folders or more" in refused(capsys, one, "--on", other, *root)
    assert "2 RUNs and 1 behind --on" in refused(capsys, *runs_of("test", *NAMES[:2]), "--on", other, *root)
    twice = refused(capsys, one, one, "--on", *runs_of("valid", *NAMES[:2]), *root)
    assert f"{one} was given twice" in twice
    assert "was given twice" in refused(capsys, *runs_of("test", *NAMES[:2]), "--on", one, other, *root)
    named = refused(capsys, *words_of(finished, "popularity", "markov"), "--name", "markov")
    assert "--name markov is that of a part" in named
    missing = refused(capsys, *words_of(finished, "popularity", "nothing"))
    assert "The RUN is missing" in missing


def test_the_splits_have_to_be_test_and_validation(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test, valid = runs_of("test", *NAMES[:2]), runs_of("valid", *NAMES[:2])
    told = refused(capsys, *valid, "--on", *test, "--root", str(finished))
    assert "stands before --on and ranked lists of the split valid. Expected test" in told
    others = runs_of("test", "markov")
    told = refused(capsys, *test, "--on", valid[0], *others, "--root", str(finished))
    assert "stands behind --on and ranked lists of the split test. Expected valid" in told


def test_other_recommenders_on_validation_are_refused(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test, valid = runs_of("test", *NAMES[:2]), runs_of("valid", *NAMES[:2])
    told = refused(capsys, *test, "--on", *valid[::-1], "--root", str(world))
    assert "aren't of the same recommender: the name is 'popularity' and 'recency'" in told
    plant(world, "grpo", noisy(1.0))
    [path] = runs_of("valid", "grpo")
    manifest = read_json(world / path / "manifest.json")
    write_json(world / path / "manifest.json", manifest | {"inputs": manifest["inputs"] | {"adapter": "another"}})
    assert "adapter was another" in refused(capsys, *words_of(world, "popularity", "grpo"))
    plant(world, "grpo", noisy(1.0), ["valid"], score="id")
    told = refused(capsys, *words_of(world, "popularity", "grpo")[:-3], f"{path}_id", "--root", str(world))
    assert "score is 'answer' and 'id'" in told


def test_written_answers_have_no_scores_to_blend(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(world, "grpo", lambda example, _: range(len(example.candidates)), method="generate")
    runs = [[f"{path}_generate" for path in runs_of(split, "grpo")] for split in ("test", "valid")]
    one, other = runs_of("test", "markov"), runs_of("valid", "markov")
    told = refused(capsys, *one, *runs[0], "--on", *other, *runs[1], "--root", str(world))
    assert "ranks by answers that the model wrote" in told
    assert "--method score" in told


def test_other_lists_windows_and_users_are_refused(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def baselines(split: str, *words: str) -> None:
        where = ("--dataset", DATASET, "--root", str(world), "--split", split)
        drawn = [word for word in words if word not in ("--limit", "60")]
        assert not command("candidates", *where, *drawn)
        assert not command("baselines", *where, "--names", "popularity,markov", "--history", "window", *words)
        capsys.readouterr()

    baselines("test", "--min-inter", "6")
    baselines("valid", "--min-inter", "6")
    baselines("valid", "--min-inter", "5", "--num-neg", "5")
    baselines("test", "--min-inter", "5", "--limit", "60")
    one, other = (runs_of(split, "popularity", "markov") for split in ("test", "valid"))
    six_test, six_valid = (runs_of(split, "popularity", "markov", lists="uni9_w6_s42") for split in ("test", "valid"))
    root = ("--root", str(world))
    assert "windows of 5 and" in refused(capsys, *one, "--on", *six_valid, *root)
    assert "ranked different candidate files" in refused(
        capsys, one[0], six_test[1], "--on", other[0], six_valid[1], *root
    )
    assert "lists of the protocol uni9 and" in refused(
        capsys, *one, "--on", *runs_of("valid", "popularity", "markov", lists="uni5_w5_s42"), *root
    )
    [sliced] = runs_of("test", "markov", lists=f"{LISTS}_limit60")
    assert "ranked 120 users and" in refused(capsys, one[0], sliced, "--on", *other, *root)


def test_a_candidate_file_that_is_gone_tells_no_split(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Workspace(world).dataset(DATASET).candidates("valid", "uni9", 5, 42).unlink()
    assert "ranked valid_uni9_w5_s42, which is gone" in refused(capsys, *words_of(world, "popularity", "markov"))


def test_rankings_of_the_whole_catalogue_are_no_whole_lists(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--dataset", DATASET, "--root", str(world), "--min-inter", "5", "--negatives", "all")
    for split in ("valid", "test"):
        assert not command("candidates", *where, "--split", split)
        asked = ("--split", split, "--names", "popularity,markov", "--history", "window")
        assert not command("baselines", *where, *asked)
    capsys.readouterr()
    runs = [runs_of(split, "popularity", "markov", lists="full_w5_s42") for split in ("test", "valid")]
    told = refused(capsys, *runs[0], "--on", *runs[1], "--root", str(world))
    assert "keeps the best" in told
