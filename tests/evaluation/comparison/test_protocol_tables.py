"""What a protocol asks goes with every figure: who chose the negatives, what was found, which users were asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from workspaces import tsv, write_dataset

from mllmrec.data.candidates.drawing import read_candidates
from mllmrec.errors import DataError, SettingsError
from mllmrec.evaluation.baselines import stage as baselines_stage
from mllmrec.evaluation.comparison.tables import results_table
from mllmrec.evaluation.ranking.runs import Run, read_run
from mllmrec.evaluation.reporting.ladder import ladder_section, measure
from mllmrec.evaluation.reporting.page import Sheet
from mllmrec.evaluation.reporting.runs import read_ladders
from mllmrec.evaluation.retrieval import stage as retrieval
from mllmrec.evaluation.verifying import stage as verification
from mllmrec.records import Summary
from mllmrec.settings.base import validated
from mllmrec.settings.data import RetrieveSettings
from mllmrec.settings.evaluation import BaselinesSettings, VerifySettings
from mllmrec.storage.workspace import Workspace, read_json

ITEMS = [f"i{number}" for number in range(12)]
TRAIN = [(f"t{copy}", ITEMS[: 12 - copy]) for copy in range(12)]
TEST = [("u", ["i0", "i3", "i2"]), ("w", ["i7", "i8", "i5"]), ("x", ["i0", "i1", "i3"]), ("y", ["i4", "i5", "i11"])]


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    """Items are the more popular the smaller their number."""
    return write_dataset(tmp_path, train=tsv(TRAIN), valid=tsv([("v", ["i0", "i1", "i2"])]), test=tsv(TEST))


def retrieve(shop: Workspace, **knobs: object) -> Summary:
    base = {"dataset": "shop", "root": str(shop.root), "retriever": "popularity", "min_inter": 3, "num": 3}
    return retrieval.run(validated(RetrieveSettings, base | knobs, "test"), shop)


def rank(shop: Workspace, **knobs: object) -> Summary:
    base = {"dataset": "shop", "root": str(shop.root), "retriever": "popularity", "min_inter": 3, "num_neg": 3}
    return baselines_stage.run(validated(BaselinesSettings, base | knobs, "test"), shop)


def run_of(shop: Workspace, name: str, stem: str) -> Run:
    return read_run(shop.dataset("shop").run(name, stem))


def verified(*runs: Run) -> bool:
    folders = tuple(str(run.folder) for run in runs)
    return verification.run(VerifySettings(runs=folders), Workspace(".")).passed


def test_who_chose_the_negatives_has_no_figures_on_them(shop: Workspace) -> None:
    retrieve(shop)
    [table] = rank(shop, negatives="hard", names="popularity,markov,random").tables
    assert table.columns[1] == "HR@1/hard3-popularity"
    assert [row[0] for row in table.rows] == ["markov", "random", "popularity", "chance"]
    assert set(table.rows[2][1:]) == {"n/a"}
    assert "n/a: popularity chose the negatives" in table.note
    assert not shop.dataset("shop").run("popularity", "test_hard3-popularity_w3_s42").exists()
    with pytest.raises(SettingsError, match="popularity chose the negatives of test_hard3-popularity_w3_s42"):
        rank(shop, negatives="hard", names="popularity")


def test_the_report_says_so_too(shop: Workspace) -> None:
    retrieve(shop)
    rank(shop, negatives="hard", names="markov,random")
    [ladder], _ = read_ladders(shop, "shop", "NDCG@3")
    section = ladder_section(measure(ladder, 42))
    sheet = next(block for block in section.blocks if isinstance(block, Sheet))
    assert [row[0] for row in sheet.foot] == ["popularity", "chance"]
    assert set(sheet.foot[0][1:]) == {"n/a"}
    assert "popularity chose the negatives" in sheet.table.note
    assert "3 other items that popularity, fitted on train alone, ranks highest" in section.lead


def test_a_missed_target_counts_zero_everywhere_and_the_ceiling_is_told(shop: Workspace) -> None:
    """By popularity: u's i2 is among i1, i2, i4; w's i5 not among i0, i1, i2; x's i3 among i2, i3, i4; y's i11 not."""
    summary = retrieve(shop, rerank=True)
    assert [each.target_id in each.candidates for each in read_candidates(summary.artifact or Path())] == [
        True,
        False,
        True,
        False,
    ]
    [table] = rank(shop, negatives="rerank", names="popularity,markov", top_k="1,2,3").tables
    run = run_of(shop, "popularity", "test_rr3-popularity_w3_s42")
    values = {name: bounds["value"] for name, bounds in run.facts["metrics"].items()}
    # u's target is second and x's is second: i1 and i2 are more popular.
    assert (values["HR@1"], values["HR@2"], values["HR@3"], values["MRR"]) == (0.0, 0.5, 0.5, 0.25)
    assert run.facts["chance"]["HR@1"] == pytest.approx(1 / 3 / 2)
    assert run.facts["num_listed"] == 2
    assert "HR@3/rr3-popularity" in table.columns
    assert "in the lists of 2 of 4 users: no metric can exceed 0.500." in table.note
    assert [ranking.rank for ranking in run.rankings()] == [2.0, None, 2.0, None]
    assert verified(run, run_of(shop, "markov", "test_rr3-popularity_w3_s42"))
    [ladder], _ = read_ladders(shop, "shop", "MRR")
    assert "no metric can exceed 0.500" in ladder_section(measure(ladder, 42)).lead


def test_a_slice_is_named_with_its_figures_and_mixes_with_no_other(shop: Workspace) -> None:
    retrieve(shop)
    rank(shop, negatives="hard", names="markov", limit=3)
    rank(shop, negatives="hard", names="markov", limit=2)
    rank(shop, negatives="hard", names="random")
    ladders, _ = read_ladders(shop, "shop", "MRR")
    assert [ladder.facts["num_users"] for ladder in ladders] == [4, 3, 2]
    leads = [ladder_section(measure(ladder, 42)).lead for ladder in ladders]
    assert "These are 3 of 4 users, drawn by hash." in leads[1]
    assert "drawn by hash" not in leads[0]
    facts = read_json(shop.dataset("shop").run("markov", "test_hard3-popularity_w3_s42_limit3") / "metrics.json")
    assert facts["slice"] == {"of": 4, "by": "users by hash of seed, split and user, seed 42"}
    assert facts["minimum_detectable"].keys() == facts["metrics"].keys()


def test_what_a_slice_can_show_is_what_suffices_for_each_of_its_runs(shop: Workspace) -> None:
    retrieve(shop)
    [table] = rank(shop, negatives="hard", names="markov,random", limit=3).tables
    runs = [run_of(shop, name, "test_hard3-popularity_w3_s42_limit3") for name in ("markov", "random")]
    told = [[run.facts["minimum_detectable"][name] for run in runs] for name in runs[0].facts["metrics"]]
    largest = [max((each for each in pair if each is not None), default=None) for pair in told]
    assert any(least is not None for least in largest)
    assert table.rows[-1] == ("detectable", *("" if least is None else f"{least:.3f}" for least in largest))


def test_two_protocols_never_share_a_table(shop: Workspace) -> None:
    retrieve(shop)
    retrieve(shop, retriever="markov")
    rank(shop, negatives="hard", names="random")
    rank(shop, negatives="hard", names="random", retriever="markov")
    runs = [run_of(shop, "random", f"test_hard3-{name}_w3_s42") for name in ("popularity", "markov")]
    with pytest.raises(DataError, match="ranked different candidate files"):
        results_table(runs)
