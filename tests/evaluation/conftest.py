"""Workspaces with a made-up shop: one with candidates alone, one with sequences."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from handmade import SCORES, TARGETS, WriteRun, as_baseline, example_of, freeze_lists

from mllmrec.evaluation.ranking.rankings import ranking_of
from mllmrec.evaluation.ranking.runs import Run, candidate_file, run_folder, write_run
from mllmrec.settings.evaluation import RunSettings
from mllmrec.storage.workspace import Workspace, sha256, write_text


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    """A workspace with a candidate file of four users and the four candidates a, b, c, d."""
    workspace = Workspace(tmp_path)
    freeze_lists(workspace, [example_of(user, target) for user, target in TARGETS.items()])
    return workspace


@pytest.fixture
def shop_settings(shop: Workspace) -> RunSettings:
    return RunSettings(dataset="shop", root=str(shop.root), num_neg=3, min_inter=3)


@pytest.fixture
def make_run(shop: Workspace, shop_settings: RunSettings) -> WriteRun:
    """Writes a RUN of the shop from the scores of each user."""

    def write(
        name: str = "hand", scores: dict[str, tuple[float, ...]] = SCORES, settings: RunSettings = shop_settings
    ) -> Run:
        candidates = candidate_file(settings, shop)
        return write_run(
            run_folder(settings, shop, name, candidates),
            [ranking_of(example_of(user, TARGETS[user]), values) for user, values in scores.items()],
            as_baseline(settings),
            name=name,
            candidates=candidates,
            inputs={"candidates": sha256(candidates)},
            started=time.monotonic(),
            seconds=2.0,
            num_lists=len(TARGETS),
        )

    return write


@pytest.fixture
def sequences(tmp_path: Path) -> Workspace:
    """A dataset whose counts are easy: a is popular, b follows a, and `new` is in no training line."""
    workspace = Workspace(tmp_path)
    write_text(workspace.dataset("shop").split("train"), "1\ta b a b\n2\ta a c\n3\td a b\n")
    write_text(workspace.dataset("shop").split("valid"), "1\ta b a b c\n2\ta a c b\n3\td a b a\n")
    write_text(workspace.dataset("shop").split("test"), "1\tb a b c\n2\ta c b new\n3\ta b a d\n")
    titles = "".join(f"{item},Thing {item}\n" for item in ("a", "b", "c", "d", "e", "f", "g", "h", "new"))
    write_text(workspace.dataset("shop").titles, "item,title\n" + titles)
    return workspace
