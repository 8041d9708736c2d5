"""--raw-ids: rankings and the report in the ids that the raw files had."""

from __future__ import annotations

from pathlib import Path

from report_world import DATASET as REPORTED
from report_world import make_report_world
from small_models import DATASET, WINDOW

from mllmrec.data.raw_ids import RawIds
from mllmrec.data.sequences import Interactions
from mllmrec.evaluation.baselines import stage as baselines
from mllmrec.evaluation.ranking import stage as ranking
from mllmrec.evaluation.reporting.stage import run as report
from mllmrec.evaluation.verifying import stage as verification
from mllmrec.settings.evaluation import BaselinesSettings, EvaluateSettings, ReportSettings, VerifySettings
from mllmrec.storage.workspace import Workspace, read_jsonl


def map_all(workspace: Workspace, dataset: str) -> None:
    """Raw ids for every user and item of a dataset: the id with a blank before it."""
    loaded = Interactions.load(workspace, dataset)
    users = {line.user_id: f"user {line.user_id}" for line in loaded.test}
    items = {item: f"raw/{item}" for line in loaded.test for item in line.items} | {
        item: f"raw/{item}" for item in loaded.catalogue
    }
    RawIds(users=users, items=items).write(workspace.dataset(dataset).raw_ids)


def check_raw(folder: Path) -> None:
    own, raw = (list(read_jsonl(folder / name)) for name in ("rankings.jsonl", "rankings.raw-ids.jsonl"))
    assert len(own) == len(raw) > 0
    for row, named in zip(own, raw, strict=True):
        assert named == row | {
            "user_id": f"user {row['user_id']}",
            "target_id": f"raw/{row['target_id']}",
            "candidates": [f"raw/{item}" for item in row["candidates"]],
        }


def test_evaluate_writes_raw_ids_when_asked_also_of_a_finished_run(toy_copy: Workspace) -> None:
    map_all(toy_copy, DATASET)
    knobs = {"dataset": DATASET, "root": str(toy_copy.root), "device": "cpu", "backbone": "tiny", "limit": 2}
    summary = ranking.run(EvaluateSettings(**knobs, min_inter=WINDOW), toy_copy)
    folder = summary.artifact
    assert folder is not None
    assert not (folder / "rankings.raw-ids.jsonl").exists()
    again = ranking.run(EvaluateSettings(**knobs, min_inter=WINDOW, raw_ids=True), toy_copy)
    assert "nothing to do" in again.headline
    check_raw(folder)
    ranking.run(EvaluateSettings(**knobs, min_inter=WINDOW, raw_ids=True, overwrite=True), toy_copy)
    check_raw(folder)
    assert "nothing to do" in ranking.run(EvaluateSettings(**knobs, min_inter=WINDOW), toy_copy).headline


def test_baselines_write_raw_ids_and_verify_doesnt_mind(toy_copy: Workspace) -> None:
    map_all(toy_copy, DATASET)
    settings = BaselinesSettings(
        dataset=DATASET, root=str(toy_copy.root), min_inter=WINDOW, names=("popularity",), raw_ids=True
    )
    folders = [Path(folder) for folder in baselines.run(settings, toy_copy).facts["runs"]]
    for folder in folders:
        check_raw(folder)
    checked = verification.run(VerifySettings(runs=tuple(map(str, folders)), root=str(toy_copy.root)), toy_copy)
    assert checked.passed


def test_the_report_names_users_by_raw_ids(tmp_path: Path) -> None:
    workspace = make_report_world(tmp_path)
    map_all(workspace, REPORTED)
    html = workspace.dataset(REPORTED).results / "report.html"
    report(ReportSettings(dataset=REPORTED, root=str(tmp_path), cases=2, audit=False), workspace)
    assert "User user " not in html.read_text(encoding="utf-8")
    report(ReportSettings(dataset=REPORTED, root=str(tmp_path), cases=2, audit=False, raw_ids=True), workspace)
    assert html.read_text(encoding="utf-8").count('<span class="who">User user ') == 2
