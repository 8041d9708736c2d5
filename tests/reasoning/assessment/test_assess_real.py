"""On real titles: traces that can't know their target are let through, and planted leaks are found."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from mllmrec.data.sequences import Interactions
from mllmrec.data.traces import TraceJoin
from mllmrec.models.embedding import TfidfEmbedder
from mllmrec.reasoning.assessment.examination import LeakageJudge
from mllmrec.reasoning.assessment.modality import ModalityJudge
from mllmrec.reasoning.writing import pseudo_cot
from mllmrec.records import Trace
from mllmrec.settings.texts import PseudoCotSettings
from mllmrec.storage.workspace import Workspace

COUNT = 1500


@pytest.mark.slow
@pytest.mark.real_data
def test_blind_traces_pass_and_planted_leaks_do_not(real_data: Path, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.dataset("movielens").folder.mkdir(parents=True)
    for name in ("train.tsv", "test.tsv", "movielens_titles.csv"):
        shutil.copy(real_data / "movielens" / name, workspace.dataset("movielens").folder)
    pseudo_cot.run(PseudoCotSettings(dataset="movielens", root=str(tmp_path), limit=COUNT), workspace)
    interactions = Interactions.load(workspace, "movielens")
    blind = [trace for trace, _ in TraceJoin(workspace.dataset("movielens").pseudo_cot, interactions)]
    judge = LeakageJudge(interactions.catalogue, {}, TfidfEmbedder(), 42)

    def reasons(ending: Callable[[Trace], str]) -> Counter[str | None]:
        written = [replace(each, reasoning=f"{each.reasoning} {ending(each)}") for each in blind]
        return Counter(found.reason for found in judge.judge(written))

    def title(each: Trace) -> str:
        return re.sub(r"\s*\(\d{4}\)$", "", interactions.catalogue.title(each.target_id))

    assert reasons(lambda _: "")[None] >= 0.998 * COUNT
    assert reasons(lambda each: f"Perhaps {title(each)}.")["names the target's title"] >= 0.985 * COUNT
    assert reasons(lambda each: f"Perhaps {title(each).lower()}.")[None] <= 0.1 * COUNT
    assert reasons(lambda each: f"[ITEM_{each.target_id}]")["names the target's id"] == COUNT
    scores = [found.score for found in ModalityJudge(interactions, {}, TfidfEmbedder(), 42).judge(blind)]
    assert sum(scores) / len(scores) > 0.95
    swapped = [replace(each, reasoning=other.reasoning) for each, other in pairwise(blind)]
    others = [found.score for found in ModalityJudge(interactions, {}, TfidfEmbedder(), 42).judge(swapped)]
    assert sum(others) / len(others) == pytest.approx(0.5, abs=0.05)
