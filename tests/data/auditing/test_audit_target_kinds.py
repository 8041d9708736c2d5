"""Targets that differ in kind from their negatives: each kind planted, and nothing of what popularity explains."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_world import NAME, Rows, amiss, change_rows, findings
from workspaces import tsv, write_dataset

from mllmrec import Workspace
from mllmrec.data.auditing import findings as kinds
from mllmrec.data.auditing.material import load, read_candidate_file
from mllmrec.data.auditing.stage import run
from mllmrec.data.auditing.target_kinds import TargetKinds
from mllmrec.data.candidates.stage import run as draw
from mllmrec.records import RankingExample, Summary
from mllmrec.settings.data import AuditSettings, CandidatesSettings
from mllmrec.storage.workspace import write_json, write_text

WINDOW, NUM_USERS, NUM_ITEMS = 5, 500, 300
ITEMS = [f"i{number}" for number in range(NUM_ITEMS)]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Users choose by popularity, which falls with the number of an item; popular items have images and captions."""
    rng = random.Random(4)
    weights = [1 / (5 + number) for number in range(NUM_ITEMS)]
    lines = {f"u{user}": list(dict.fromkeys(rng.choices(ITEMS, weights, k=16)))[:8] for user in range(NUM_USERS)}
    parts = {"train": slice(-2), "valid": slice(-1), "test": slice(None)}
    files = {split: tsv({user: line[part] for user, line in lines.items()}) for split, part in parts.items()}
    titles = "item,title\n" + "".join(f"{item},{'Thing ' * rng.randint(1, 6)}{item}\n" for item in ITEMS)
    workspace = write_dataset(tmp_path_factory.mktemp("clean"), NAME, titles, **files)
    for item in ITEMS[:150]:
        write_text(workspace.dataset(NAME).images / f"{item}.jpg", item)
    captions = {item: {"title": "", "caption": "An object"} for item in ITEMS[:150]}
    write_json(workspace.dataset(NAME).captions, captions)
    draw_lists(workspace)
    return workspace


@pytest.fixture
def world(clean: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(clean.root, tmp_path / "world")
    return Workspace(tmp_path / "world")


def draw_lists(workspace: Workspace, **knobs: object) -> Path:
    chosen = {"num_neg": 9, "min_inter": WINDOW, "overwrite": True} | knobs
    summary = draw(CandidatesSettings(dataset=NAME, root=str(workspace.root), **chosen), workspace)
    assert summary.artifact is not None
    return summary.artifact


def audit(workspace: Workspace) -> Summary:
    return run(AuditSettings(dataset=NAME, root=str(workspace.root), min_inter=WINDOW), workspace)


def lists(workspace: Workspace) -> Path:
    return workspace.dataset(NAME).candidates("test", "uni9", WINDOW, 42)


def told(workspace: Workspace) -> list[str]:
    """The features that are leaks."""
    found = [each for each in findings(audit(workspace)) if each["check"] == kinds.TARGET_KINDS]
    return [each["where"].rpartition(", ")[2] for each in found if each["verdict"] == "leak"]


@pytest.mark.parametrize(
    "knobs", [{}, {"split": "valid"}, {"split": "train"}, {"negatives": "popularity"}, {"legacy": True}]
)
def test_what_goes_with_popularity_is_no_finding(world: Workspace, knobs: dict[str, object]) -> None:
    """Images and captions of popular items alone: ranking by them beats chance, and popularity explains it."""
    path = draw_lists(world, **knobs)
    summary = audit(world)
    assert amiss(summary) <= {(kinds.CONSUMED, "warning"), (kinds.SHARED_LISTS, "warning")}
    rates = summary.facts["hit_rates"]
    assert isinstance(rates, dict)
    if not knobs:
        assert rates[path.name]["image"] > 1.3 * rates[path.name]["chance"]
        assert rates[path.name]["popularity"] > rates[path.name]["image"]


def test_hit_rates_by_hand(world: Workspace) -> None:
    """Two lists of three, worked out with a pencil."""

    def example(user: str, target: str, candidates: tuple[str, ...]) -> RankingExample:
        return RankingExample(
            example_id=user, user_id=user, history=(), candidates=candidates, target_id=target, split="test"
        )

    kept = TargetKinds(load(world, NAME, WINDOW))
    list(kept.check("two", [example("a", "i0", ("i0", "i200", "i201")), example("b", "i10", ("i9", "i8", "i10"))]))
    rates = kept.rates["two"]
    # Of the first list only the target has an image; of the second all have one.
    assert rates["image"] == pytest.approx((1 + 1 / 3) / 2)
    assert rates["chance"] == pytest.approx(1 / 3)
    assert rates["title"] == pytest.approx(1 / 3)
    # i0 is the least id of the first, i10 the greatest of the second (as a number): one of two, either way.
    assert rates["id order"] == 0.5


def test_targets_without_titles(world: Workspace) -> None:
    """A third of the targets has no row in the titles file, and no negative: they are the answer by construction."""
    gone = set(ITEMS[::3])
    for path in (world.dataset(NAME).titles,):
        rows = path.read_text(encoding="utf-8").splitlines()
        write_text(path, "\n".join(row for row in rows if row.partition(",")[0] not in gone) + "\n")

    def plant(rows: Rows) -> None:
        rng = random.Random(2)
        for row in rows:
            known = set(row["candidates"]) | set(row["history"])
            titled = [item for item in ITEMS if item not in gone | known and int(item[1:]) > 100]
            row["candidates"] = [
                item if item == row["target_id"] or item not in gone else titled.pop(rng.randrange(len(titled)))
                for item in row["candidates"]
            ]

    change_rows(lists(world), plant)
    summary = audit(world)
    leaks = [each for each in findings(summary) if each["check"] == kinds.TARGET_KINDS and each["verdict"] == "leak"]
    assert next(each["where"] for each in leaks if "title" in each["where"]) == "test_uni9_w5_s42.jsonl, title"
    rates = summary.facts["hit_rates"]["test_uni9_w5_s42.jsonl"]  # type: ignore[index]
    assert rates["title"] > 0.3


def negatives(wanted: Callable[[str], bool]) -> Callable[[Rows], None]:
    """Draw the negatives of each list anew among the items of some kind."""

    def plant(rows: Rows) -> None:
        rng = random.Random(8)
        known = {row["user_id"]: {*row["history"], row["target_id"]} for row in rows}
        for row in rows:
            pool = [item for item in ITEMS if item not in known[row["user_id"]] and wanted(item)]
            row["candidates"] = [row["target_id"], *rng.sample(pool, 9)]
            rng.shuffle(row["candidates"])

    return plant


@pytest.mark.parametrize("kind", ["caption", "image"])
def test_a_kind_that_all_targets_share_and_no_negative(world: Workspace, kind: str) -> None:
    """Captions, or images, are there for targets alone; each target is nobody's negative."""
    rows = [line.split() for line in world.dataset(NAME).split("test").read_text(encoding="utf-8").splitlines()]
    targets = {row[-1] for row in rows}
    change_rows(lists(world), negatives(lambda item: item not in targets))
    if kind == "image":
        write_json(world.dataset(NAME).captions, {})
        for path in world.dataset(NAME).images.iterdir():
            path.unlink()
        for item in targets:
            write_text(world.dataset(NAME).images / f"{item}.jpg", item)
    else:
        write_json(world.dataset(NAME).captions, {item: {"title": "", "caption": f"Object {item}"} for item in targets})
    assert kind in told(world)


def test_the_reverse_kind(world: Workspace) -> None:
    """No target has an image, and every negative has one."""
    rows = [line.split() for line in world.dataset(NAME).split("test").read_text(encoding="utf-8").splitlines()]
    targets = {row[-1] for row in rows}
    change_rows(lists(world), negatives(lambda item: item not in targets))
    for path in world.dataset(NAME).images.iterdir():
        path.unlink()
    for item in set(ITEMS) - targets:
        write_text(world.dataset(NAME).images / f"{item}.jpg", item)
    assert "image" in told(world)


@pytest.mark.parametrize(("every", "verdict"), [(5, "ok"), (2, "leak")])
def test_images_of_targets_and_of_few_negatives(world: Workspace, every: int, verdict: str) -> None:
    """Each is far from chance. With a fifth of the targets HR@1 is .27 by images and .39 by popularity, which is only
    shown; with half of them it is .5 by images."""
    rng = random.Random(9)
    change_rows(lists(world), negatives(lambda item: int(item[1:]) % every > 0 or rng.random() < 0.03))
    for path in world.dataset(NAME).images.iterdir():
        path.unlink()
    for item in ITEMS[::every]:
        write_text(world.dataset(NAME).images / f"{item}.jpg", item)
    summary = audit(world)
    (found,) = [each for each in findings(summary) if each["where"] == "test_uni9_w5_s42.jsonl, image"]
    rates = summary.facts["hit_rates"]["test_uni9_w5_s42.jsonl"]  # type: ignore[index]
    assert found["probability"] < 1e-4
    assert (rates["image"] > rates["popularity"]) == (verdict == "leak")
    assert found["verdict"] == verdict


def test_titles_of_targets_that_are_longer(world: Workspace) -> None:
    """Negatives are drawn among the short titles."""
    titles = dict(line.split(",") for line in world.dataset(NAME).titles.read_text(encoding="utf-8").splitlines()[1:])
    change_rows(lists(world), negatives(lambda item: len(titles[item]) < 14))
    assert "title length" in told(world)


def test_few_lists_are_chance(world: Workspace) -> None:
    """Three lists whose targets alone have images are one in a thousand, and files are many."""
    rows = read_candidate_file(lists(world)).examples
    kept = TargetKinds(load(world, NAME, WINDOW))
    without = ITEMS[150:]
    few = [
        RankingExample(**{**vars(each), "target_id": "i0", "candidates": ("i0", *without[9 * at : 9 * at + 9])})
        for at, each in enumerate(rows[:4])
    ]
    assert [each.verdict for each in kept.check("few", few[:3])] == ["ok"] * 4
    assert "leak" in [each.verdict for each in kept.check("more", few)]


def test_ids_that_are_nowhere_else_end_no_audit(world: Workspace) -> None:
    change_rows(lists(world), lambda rows: rows[3]["candidates"].__setitem__(0, "stray"))
    assert audit(world).tables


@pytest.mark.slow
@pytest.mark.real_data
def test_real_lists_of_all_protocols_have_no_finding(real_data: Path, tmp_path: Path) -> None:
    """MovieLens in the reference's layout; ids go with time there, and popularity with everything."""
    folder = tmp_path / "data" / "movielens"
    folder.mkdir(parents=True)
    for name in ("train.tsv", "test.tsv", "movielens_titles.csv"):
        shutil.copyfile(real_data / "movielens" / name, folder / name)
    (folder / "images").symlink_to(real_data / "movielens" / "images")
    workspace = Workspace(tmp_path)
    for knobs in ({}, {"num_neg": 99}, {"negatives": "popularity"}, {"legacy": True}, {"split": "train"}):
        draw(CandidatesSettings(dataset="movielens", root=str(tmp_path), **knobs), workspace)
    summary = run(AuditSettings(dataset="movielens", root=str(tmp_path)), workspace)
    assert summary.passed
    rates = summary.facts["hit_rates"]["test_uni9_w10_s42.jsonl"]  # type: ignore[index]
    assert rates["popularity"] == pytest.approx(0.375, abs=0.02)
