"""The report, the command and the ladder call the same RUNs the same, by one rule: Holm's corrected p-value."""

from __future__ import annotations

import time

import pytest
from handmade import example_of, freeze_lists

from mllmrec.evaluation.comparison.stage import compare
from mllmrec.evaluation.comparison.steps import steps_table
from mllmrec.evaluation.ranking.rankings import ranking_of
from mllmrec.evaluation.ranking.runs import Run, candidate_file, run_folder, write_run
from mllmrec.evaluation.reporting.ladder import ladder_section, measure, verdict
from mllmrec.evaluation.reporting.page import Sheet
from mllmrec.evaluation.reporting.runs import read_ladders
from mllmrec.settings.evaluation import EvaluateSettings
from mllmrec.storage.workspace import Workspace, sha256

USERS = 200
FIRST, SECOND = (1.0, 0.0, -1.0, -2.0), (0.5, 1.0, -1.0, -2.0)
"""Scores that put the target a at position 1 and at position 2."""


def run_of(shop: Workspace, name: str, firsts: range) -> Run:
    """A model's RUN that ranks the target first for the users of `firsts` and second for all others."""
    settings = EvaluateSettings(dataset="shop", root=str(shop.root), num_neg=3, min_inter=3, top_k=(3,), tag=name)
    path = shop.candidates("shop", "test", "uni3", 3, 42)
    examples = [example_of(str(user), "a") for user in range(USERS)]
    if not path.exists() or len(path.read_text().splitlines()) != USERS:
        freeze_lists(shop, examples)
    candidates = candidate_file(settings, shop)
    return write_run(
        run_folder(settings, shop, name, candidates),
        [ranking_of(each, FIRST if int(each.user_id) in firsts else SECOND) for each in examples],
        settings,
        name=name,
        candidates=candidates,
        inputs={"candidates": sha256(candidates)},
        started=time.monotonic(),
        seconds=1.0,
    )


@pytest.mark.parametrize(
    ("gained", "word", "worth"),
    [
        # 13 users gain and 3 lose: p = 0.021 alone. Corrected for two comparisons it is 0.043, a find.
        (13, "better", "yes"),
        # 12 users gain and 3 lose: p = 0.035 alone, and the interval leaves zero out; 0.070 corrected, no find.
        (12, "not found", "not found"),
    ],
)
def test_three_places_say_the_same(shop: Workspace, gained: int, word: str, worth: str) -> None:
    runs = [
        run_of(shop, "first", range(100, 150)),
        run_of(shop, "second", range(103, 150 + gained)),
        run_of(shop, "third", range(104, 151 + gained)),
    ]
    [[alone]] = compare(runs[:2], metrics=["HR@1"])
    assert alone.p_value < 0.05
    assert alone.difference.low > 0

    in_compare, _ = compare(runs, metrics=["NDCG@3"])
    assert in_compare[0].found == (word == "better")

    table = steps_table(runs)
    assert table is not None
    assert table.rows[0][-1] == worth

    [ladder], _ = read_ladders(shop, "shop", "NDCG@3")
    assert [rung.label for rung in ladder.rungs] == ["first", "second", "third"]
    measured = measure(ladder, 42)
    assert measured.steps[0].verdict("NDCG@3") == word
    sheet = next(
        block
        for block in ladder_section(measured).blocks
        if isinstance(block, Sheet) and "row above" in block.table.title
    )
    assert {row for row, _ in sheet.strong} == ({0} if word == "better" else set())
    assert "no difference found" in verdict(measured)[-1]
