"""Tuning on validation alone, full histories, and the cache: what it holds, when it is read, when it is stale."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from mllmrec.data.candidates.stage import run as draw
from mllmrec.data.sequences import Interactions, Line, is_held_out
from mllmrec.errors import SettingsError
from mllmrec.evaluation.baselines import fitting as baselines_fitted
from mllmrec.evaluation.baselines import stage as baselines_stage
from mllmrec.evaluation.baselines.base import Baseline, with_full_history
from mllmrec.evaluation.baselines.counts import Popularity, Random, Recency
from mllmrec.evaluation.baselines.families import FAMILIES, Family, Fitting
from mllmrec.evaluation.baselines.fitting import make_judge, open_baseline, tune
from mllmrec.evaluation.ranking.runs import read_run
from mllmrec.records import RankingExample, example_id
from mllmrec.settings.base import validated
from mllmrec.settings.data import CandidatesSettings
from mllmrec.settings.evaluation import BASELINES, BaselinesSettings
from mllmrec.storage.record_log import RecordLog
from mllmrec.storage.workspace import Workspace, read_json, write_text

ITEMS = [f"i{index}" for index in range(40)]


@pytest.fixture
def ring(tmp_path: Path) -> Workspace:
    """120 users who walk along a ring of 40 items, test one step further than train; a tenth of them is validation."""
    workspace = Workspace(tmp_path)
    walks = {user: [ITEMS[(7 * user + step) % 40] for step in range(9)] for user in range(120)}
    for split, part in (("train", slice(0, 8)), ("test", slice(1, 9))):
        write_text(
            workspace.dataset("ring").split(split),
            "".join(f"{user}\t{' '.join(walk[part])}\n" for user, walk in walks.items()),
        )
    write_text(workspace.dataset("ring").titles, "item,title\n" + "".join(f"{item},Thing {item}\n" for item in ITEMS))
    return workspace


def fitting_of(workspace: Workspace, window: int = 5) -> Fitting:
    interactions = Interactions.load(workspace, "ring")
    return Fitting(workspace=workspace, dataset="ring", interactions=interactions, window=window)


@pytest.fixture
def judged(tmp_path: Path) -> Iterator[RecordLog]:
    with closing(RecordLog(tmp_path / "judged", {"settings": {}, "inputs": {}})) as log:
        yield log


@dataclass
class Watched:
    """Which half-lives late popularity was fitted with; it is interrupted at `stop`."""

    stop: int | None = None
    fitted: list[int] = field(default_factory=list)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    found = Watched()

    class Watching(Recency):
        def fit(self, lines: Sequence[Line]) -> Self:
            if self.half_life == found.stop:
                raise KeyboardInterrupt
            found.fitted.append(int(self.half_life))
            return super().fit(lines)

    family = replace(FAMILIES["recency"], make=lambda params, _fitting: Watching(params["half_life"]))
    monkeypatch.setitem(FAMILIES, "recency", family)
    return found


def settings_of(workspace: Workspace, **values: object) -> BaselinesSettings:
    base = {"dataset": "ring", "root": str(workspace.root), "num_neg": 9, "min_inter": 5}
    return validated(BaselinesSettings, base | values, "test")


def test_tuning_asks_validation_users_about_targets_that_were_not_counted(ring: Workspace) -> None:
    fitting = fitting_of(ring)
    judge = make_judge(fitting)
    assert judge is not None
    assert {example.user_id for example in judge.window} == {str(user) for user in range(120) if is_held_out(str(user))}
    last = {line.user_id: line.items for line in fitting.interactions.train}
    counted = {line.user_id: line.items for line in fitting.interactions.fit_lines()}
    for short, full in zip(judge.window, judge.full, strict=True):
        assert short.target_id == last[short.user_id][-1]
        assert full.history == counted[short.user_id] == last[short.user_id][:-1]
        assert short.history == full.history[-4:]
        assert not set(last[short.user_id][:-1]) & set(short.candidates)
    # 40 items, of which one user knows eight: 99 negatives can't be had.
    assert {len(example.candidates) for example in judge.window} == {33}


def test_the_best_point_on_validation_is_chosen_and_every_point_is_told(ring: Workspace, judged: RecordLog) -> None:
    class Planted(Popularity):
        """Knows the answer when its point is right, and nothing otherwise."""

        def __init__(self, knows: float) -> None:
            super().__init__()
            self.knows = knows

        def score(self, example: RankingExample) -> list[float]:
            return [self.knows * (item == example.target_id) for item in example.candidates]

    grid = tuple({"knows": value} for value in (0.0, 1.0, 2.0))
    family = Family(make=lambda params, _fitting: Planted(params["knows"]), grid=grid)
    best, tuning = tune("planted", family, fitting_of(ring), judged)
    assert tuning.point == {"knows": 1.0}, "the first of equal points"
    assert isinstance(best, Planted)
    assert best.knows == 1.0
    chance = np.mean([1 / np.log2(place + 1) if place <= 10 else 0.0 for place in range(1, 34)])
    assert [row["NDCG@10"] for row in tuning.grid] == pytest.approx([chance, 1.0, 1.0], abs=1e-6)
    assert tuning.by.startswith("NDCG@10/uni32 of")


@pytest.mark.parametrize("stopped_at", [1, 30])
def test_interrupted_tuning_goes_on_after_the_last_point_and_ends_as_if_it_had_not_been_stopped(
    ring: Workspace, watched: Watched, stopped_at: int
) -> None:
    folder = ring.dataset("ring").processed / "baselines"
    whole = open_baseline("recency", fitting_of(ring), "valid")
    points, watched.fitted = watched.fitted, []
    assert points == [10, 1, 3, 30]
    shutil.rmtree(folder)

    watched.stop = stopped_at
    with pytest.raises(KeyboardInterrupt):
        open_baseline("recency", fitting_of(ring), "valid")
    assert len(list(folder.glob("*/*.partial.jsonl"))) == 1
    before, watched.stop, watched.fitted = watched.fitted, None, []
    again = open_baseline("recency", fitting_of(ring), "valid")

    assert whole.tuning is not None
    assert again.tuning is not None
    assert (again.tuning.point, again.tuning.grid) == (whole.tuning.point, whole.tuning.grid)
    judge = make_judge(fitting_of(ring))
    assert judge is not None
    scores, expected = (list(map(list, each.baseline.score_lists(judge.window))) for each in (again, whole))
    assert scores == expected
    chosen = int(whole.tuning.point["half_life"])
    assert watched.fitted == [*points[len(before) :], *([chosen] if chosen in before else [])]
    assert not list(folder.glob("*/*.partial.jsonl"))


def test_points_that_were_judged_on_other_data_do_not_count(ring: Workspace, watched: Watched) -> None:
    watched.stop = 30
    with pytest.raises(KeyboardInterrupt):
        open_baseline("recency", fitting_of(ring), "valid")
    path = ring.dataset("ring").split("train")
    write_text(path, path.read_text(encoding="utf-8") + "900\ti1 i2 i3 i4 i5 i6\n")
    watched.stop, watched.fitted = None, []
    open_baseline("recency", fitting_of(ring), "valid")
    assert watched.fitted == [10, 1, 3, 30]
    assert not list(ring.dataset("ring").processed.glob("baselines/*/*.partial.jsonl"))


def test_without_validation_users_the_first_point_is_used_and_told(ring: Workspace, judged: RecordLog) -> None:
    tuning = tune("recency", FAMILIES["recency"], fitting_of(ring, window=9), judged)[1]
    assert tuning.point == FAMILIES["recency"].grid[0]
    assert "no validation users" in tuning.by


def test_a_line_of_two_windows_gives_its_longest_history() -> None:
    lines = [
        Line(user_id="1", items=tuple("abcd"), line_index=0),
        Line(user_id="1", items=tuple("xabcd"), line_index=1),
    ]
    mine = RankingExample(
        example_id=example_id("1", "d", ["b", "c"]),
        user_id="1",
        history=("b", "c"),
        candidates=("d", "e"),
        target_id="d",
        split="test",
    )
    foreign = RankingExample(**{**vars(mine), "example_id": "f", "user_id": "2"})
    assert [example.history for example in with_full_history([mine, foreign], lines)] == [tuple("xabc"), ("b", "c")]


def test_the_stage_ranks_with_window_and_full_history_and_the_cache_is_read(
    ring: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(CandidatesSettings(dataset="ring", root=str(ring.root), num_neg=9, min_inter=5), ring)
    summary = baselines_stage.run(settings_of(ring, names="textknn,popularity"), ring)
    assert [row[0] for row in summary.tables[0].rows] == ["textknn", "textknn-full", "popularity", "chance"]
    run = read_run(ring.dataset("ring").run("textknn-full", "test_uni9_w5_s42"))
    assert (run.facts["baseline"], run.facts["history"]) == ("textknn", "full")
    assert len(run.facts["tuning"]["grid"]) == len(FAMILIES["textknn"].grid)
    assert read_json(run.folder / "manifest.json")["details"]["tuning"] == run.facts["tuning"]

    draw(CandidatesSettings(dataset="ring", root=str(ring.root), num_neg=4, min_inter=5), ring)
    monkeypatch.setattr(baselines_fitted, "tune", None)
    capsys.readouterr()
    summary = baselines_stage.run(settings_of(ring, names="textknn", num_neg=4, history="window"), ring)
    assert [row[0] for row in summary.tables[0].rows] == ["textknn", "chance"]
    assert "textknn: fitted before, read from its cache" in capsys.readouterr().err


def test_no_second_row_where_no_line_is_longer_than_the_window(ring: Workspace) -> None:
    draw(CandidatesSettings(dataset="ring", root=str(ring.root), num_neg=9, min_inter=8), ring)
    summary = baselines_stage.run(settings_of(ring, names="textknn", min_inter=8), ring)
    assert [row[0] for row in summary.tables[0].rows] == ["textknn", "chance"]


@pytest.mark.parametrize("name", ["recency", "textknn", "itemknn"])
def test_a_cache_scores_the_same_and_goes_stale_with_its_data(
    ring: Workspace, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if FAMILIES[name].rectools:
        pytest.importorskip("rectools", reason="the extra `baselines` isn't installed")
    asked = [
        RankingExample(example_id="e", user_id="1", history=("i3", "i4"), candidates=(), target_id="", split="test")
    ]
    first = open_baseline(name, fitting_of(ring), "test")
    again = open_baseline(name, fitting_of(ring), "test")
    assert (first.cached, again.cached) == (False, True)
    assert (first.baseline.score_items(asked, ITEMS) == again.baseline.score_items(asked, ITEMS)).all()
    assert again.tuning == first.tuning

    text = ring.dataset("ring").split("train").read_text()
    write_text(ring.dataset("ring").split("train"), text.replace("i5", "i6"))
    capsys.readouterr()
    assert not open_baseline(name, fitting_of(ring), "test").cached
    assert "is stale: the input train has changed" in capsys.readouterr().err


def test_for_test_the_chosen_point_learns_from_all_lines_and_for_validation_not_from_its_targets(
    ring: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[Sequence[Line]] = []

    class Listening(Random):
        def fit(self, lines: Sequence[Line]) -> Listening:
            learned.append(lines)
            return self

    family = Family(make=lambda _params, _fitting: Listening(), grid=({"a": 1}, {"a": 2}))
    monkeypatch.setitem(FAMILIES, "recency", family)
    fitting = fitting_of(ring)
    open_baseline("recency", fitting, "valid")
    assert [list(lines) for lines in learned] == [fitting.interactions.fit_lines()] * 2
    learned.clear()
    open_baseline("recency", fitting, "test")
    assert list(learned[-1]) == fitting.interactions.train


def test_a_missing_library_is_told_with_the_command_that_installs_it(
    ring: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "rectools" else found(name))
    with pytest.raises(
        SettingsError, match=r"itemknn, sasrec need RecTools.*pip install -c requirements\.lock -e '\.\[baselines\]'"
    ):
        baselines_stage.run(settings_of(ring, names="popularity,itemknn,sasrec"), ring)


def test_all_means_every_baseline(ring: Workspace) -> None:
    assert settings_of(ring, names="all").names == BASELINES == tuple(FAMILIES)


@pytest.mark.parametrize("name", [name for name in BASELINES if name not in ("sasrec", "bert4rec")])
def test_lists_and_the_catalogue_are_scored_alike(ring: Workspace, name: str) -> None:
    if FAMILIES[name].rectools:
        pytest.importorskip("rectools", reason="the extra `baselines` isn't installed")
    baseline: Baseline = open_baseline(name, fitting_of(ring), "test").baseline
    asked = [
        RankingExample(
            example_id=f"e{start}",
            user_id="1",
            history=tuple(ITEMS[start : start + 3]),
            candidates=(ITEMS[start + 3], ITEMS[20], "new"),
            target_id="",
            split="test",
        )
        for start in range(5)
    ]
    items = [*ITEMS, "new"]
    table = baseline.score_items(asked, items)
    assert table.shape == (5, 41)
    for example, row, scores in zip(asked, table, baseline.score_lists(asked), strict=True):
        assert scores == pytest.approx([row[items.index(item)] for item in example.candidates])
        assert baseline.score(example) == pytest.approx(scores)
        if name != "random":
            assert row[-1] == row.min()
