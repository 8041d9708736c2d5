"""The command, the ladder of `run` and the report say the same of the same RUNs, by one rule: Holm's corrected p."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence

import pytest
from handmade import example_of, freeze_lists

from mllmrec.evaluation.comparison import stage as compare
from mllmrec.evaluation.ranking.rankings import ranking_of
from mllmrec.evaluation.ranking.runs import Run, candidate_file, run_folder, write_run
from mllmrec.evaluation.reporting import stage as report
from mllmrec.pipeline.stage import run_stages
from mllmrec.records import Summary, Table
from mllmrec.settings.base import StageSettings, validated
from mllmrec.settings.evaluation import CompareSettings, EvaluateSettings, ReportSettings
from mllmrec.storage.workspace import Workspace, sha256, write_text

USERS = 200
FIRST, SECOND = (1.0, 0.0, -1.0, -2.0), (0.5, 1.0, -1.0, -2.0)
"""Scores that put the target a at position 1 and at position 2."""


def run_of(shop: Workspace, name: str, firsts: range) -> Run:
    """A model's RUN that ranks the target first for the users of `firsts` and second for all others."""
    settings = settings_of(shop, name)
    path = shop.dataset("shop").candidates("test", "uni3", 3, 42)
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


def settings_of(shop: Workspace, name: str) -> EvaluateSettings:
    return EvaluateSettings(dataset="shop", root=str(shop.root), num_neg=3, min_inter=3, top_k=(3,), tag=name)


def by_compare(shop: Workspace, runs: Sequence[Run], metrics: str = "NDCG@3") -> list[Table]:
    """The tables of `mllmrec compare`."""
    given = {"runs": [str(run.folder) for run in runs], "metrics": metrics}
    return list(compare.run(validated(CompareSettings, given, "test"), shop).tables)


def by_run(shop: Workspace, runs: Sequence[Run]) -> Table:
    """The table of steps with which `mllmrec run` ends, whose evaluations are all there."""
    folders = {run.facts["name"]: run.folder for run in runs}

    def entry(_verb: str) -> object:
        def there(settings: StageSettings, _workspace: Workspace) -> Summary:
            assert isinstance(settings, EvaluateSettings)
            return Summary(headline="there", artifact=folders[settings.tag])

        return there

    stages: list[StageSettings] = [settings_of(shop, name) for name in folders]
    [steps] = [
        own for own in run_stages(stages, "mllmrec run shop", entry=entry).tables if own.columns[-1] == "worth it?"
    ]
    return steps


def by_report(shop: Workspace) -> str:
    """The text of the page."""
    write_text(shop.dataset("shop").titles, "item,title\n" + "".join(f"{item},Thing {item}\n" for item in "abcdxy"))
    for split in ("train", "valid", "test"):
        write_text(shop.dataset("shop").split(split), "1\tx y a\n")
    settings = ReportSettings(dataset="shop", root=str(shop.root), audit=False, cases=0)
    return (report.run(settings, shop).artifact or shop.root).with_suffix(".md").read_text(encoding="utf-8")


def row_of(page: str, upper: str, lower: str) -> list[str]:
    """The cells of a step in the report's table of steps."""
    [row] = re.findall(rf"^\| {upper}<br>− {lower} \|(.*)\|$", page, flags=re.MULTILINE)
    return [cell.strip() for cell in row.split("|")]


def excludes_zero(interval: str) -> bool:
    """Whether both bounds of `+0.045 [+0.010, +0.085]` are above zero."""
    low, high = re.findall(r"[-+]\d\.\d+", interval)[1:]
    return float(low) > 0 and float(high) > 0


VERDICTS: Mapping[str, tuple[str, str, bool]] = {"found": ("yes", "*", True), "not found": ("not found", "", False)}
"""What the ladder says, what stands behind compare's corrected p-value, and whether the report's cell is bold."""


@pytest.mark.parametrize(
    ("gained", "verdict"),
    [
        # 13 users gain and 3 lose: p = 0.021 alone. Corrected for two comparisons it is 0.043, a find.
        (13, "found"),
        # 12 users gain and 3 lose: p = 0.035 alone, and the interval leaves zero out; 0.070 corrected, no find.
        (12, "not found"),
    ],
)
def test_command_ladder_and_report_say_the_same(shop: Workspace, gained: int, verdict: str) -> None:
    worth, star, bold = VERDICTS[verdict]
    runs = [
        run_of(shop, "first", range(100, 150)),
        run_of(shop, "second", range(103, 150 + gained)),
        run_of(shop, "third", range(104, 151 + gained)),
    ]
    [alone] = by_compare(shop, runs[:2])
    assert excludes_zero(alone.rows[0][3])
    assert float(alone.rows[0][4]) < 0.05

    in_compare, _ = by_compare(shop, runs)
    assert excludes_zero(in_compare.rows[0][3])
    p_holm = in_compare.rows[0][5].strip()
    assert p_holm.endswith("*") == bool(star)
    assert (float(p_holm.rstrip("*")) < 0.05) == bold

    steps = by_run(shop, runs)
    assert [row[0] for row in steps.rows] == ["second\n- first", "third\n- second"]
    assert steps.rows[0][-3] == p_holm.rstrip("*")
    assert steps.rows[0][-1] == worth

    page = by_report(shop)
    cells = row_of(page, "second", "first")
    assert any(cell.startswith("**") for cell in cells) == bold
    assert cells[-2] == f"{float(p_holm.rstrip('*')):.3f}"
    assert "no difference found" in page.split("\n## ")[0], "third is no better than second"


@pytest.mark.parametrize(
    ("gained", "verdict", "words"),
    [
        (13, "found", "Against the model below it, `first`: better by "),
        (9, "not found", "Against the model below it, `first`: no difference found "),
    ],
)
def test_of_two_runs_the_verdict_in_words_is_that_of_the_tables(
    shop: Workspace, gained: int, verdict: str, words: str
) -> None:
    worth, star, bold = VERDICTS[verdict]
    runs = [run_of(shop, "first", range(100, 150)), run_of(shop, "second", range(103, 150 + gained))]
    [table] = by_compare(shop, runs)
    assert table.rows[0][5].strip().endswith("*") == bool(star)
    assert by_run(shop, runs).rows[0][-1] == worth
    page = by_report(shop)
    assert words in page
    assert any(cell.startswith("**") for cell in row_of(page, "second", "first")) == bold
