"""A ceiling stands beneath the results of its own candidate file and of no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from handmade import WriteRun

from mllmrec.evaluation.comparison.tables import NOTE, ceilings, results_table
from mllmrec.evaluation.ranking.runs import Run, read_run
from mllmrec.storage.workspace import Workspace, write_json

FIGURES = {"HR@1": {"value": 0.75, "low": 0.5, "high": 1.0}}


def told(run: Run, **changed: object) -> None:
    facts = {
        "candidates_sha256": run.facts["candidates_sha256"],
        "num_users": run.facts["num_users"],
        "rows": {"ceiling": FIGURES},
    }
    write_json(Workspace(run.folder.parents[3]).dataset(run.facts["dataset"]).ceiling, facts | changed)


def test_a_ceiling_stands_beneath_chance_with_the_metrics_it_has(make_run: WriteRun) -> None:
    run = make_run()
    assert ceilings(run) == {}
    told(run)
    table = results_table([run])
    column = [name.partition("/")[0] for name in table.columns].index("HR@1")
    assert table.rows[-2][0] == "chance"
    assert (table.rows[-1][0], table.rows[-1][column]) == ("ceiling", "0.750")
    assert sum(map(bool, table.rows[-1])) == 2
    assert table.note.endswith(NOTE)


def test_a_ceiling_of_other_lists_or_other_users_is_not_shown(make_run: WriteRun) -> None:
    run = make_run()
    for changed in ({"candidates_sha256": "another"}, {"num_users": 3}):
        told(run, **changed)
        assert ceilings(run) == {}
        assert results_table([run]).rows[-1][0] == "chance"


def test_a_run_named_from_within_its_folder_has_its_ceiling(
    make_run: WriteRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    told(run)
    monkeypatch.chdir(run.folder.parent)
    assert ceilings(read_run(Path(run.folder.name))) == ceilings(run) != {}
