"""Copied users: later windows under other names are told from users who are merely alike."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from audit_world import NAME, amiss, change_lines, findings
from workspaces import tsv, write_dataset

from mllmrec import Workspace
from mllmrec.data.auditing import findings as kinds
from mllmrec.data.auditing.copies import one_change
from mllmrec.data.auditing.stage import run
from mllmrec.records import Summary
from mllmrec.settings.data import AuditSettings

LENGTH, NUM_USERS, COPIES = 14, 400, 40
Change = Callable[[list[str]], Sequence[str]]


def alike(seed: int = 0) -> dict[str, list[str]]:
    """Users who walk through the pages of a shop in their order, and leave out some of it."""
    rng = random.Random(seed)
    starts = [rng.randrange(300) for _ in range(NUM_USERS)]
    return {
        f"u{user}": [f"i{start + step}" for step in sorted(rng.sample(range(20), LENGTH))]
        for user, start in enumerate(starts)
    }


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    users = alike()
    parts = {"train": slice(-2), "valid": slice(-1), "test": slice(None)}
    files = {split: tsv({user: items[part] for user, items in users.items()}) for split, part in parts.items()}
    return write_dataset(tmp_path, NAME, **files)


def audited(workspace: Workspace, window: int = 10) -> Summary:
    return run(AuditSettings(dataset=NAME, root=str(workspace.root), min_inter=window), workspace)


def copy_users(workspace: Workspace, change: Change, count: int = COPIES) -> None:
    """Write the whole lines of some users into training, under other names."""
    users = list(alike().items())[:count]
    change_lines(
        workspace.dataset(NAME).split("train"),
        lambda lines: lines.extend(f"new{user}\t{' '.join(change(list(items)))}" for user, items in users),
    )


@pytest.mark.parametrize("window", [3, 5, 10])
def test_users_who_are_alike_are_no_copies(shop: Workspace, window: int) -> None:
    """Many windows of three stand on several lines; none of them was copied."""
    assert audited(shop, window).passed


CHANGES: dict[str, Change] = {
    "whole line": lambda items: items,
    "window": lambda items: items[-10:],
    "within a longer line": lambda items: ["x1", *items, "x2"],
    "one replaced early": lambda items: [*items[:-8], "x1", *items[-7:]],
    "one replaced late": lambda items: [*items[:-3], "x1", *items[-2:]],
    "one left out": lambda items: [*items[:-4], *items[-3:]],
    "one put in": lambda items: [*items[:-6], "x1", *items[-6:]],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_copied_users_are_a_leak(shop: Workspace, change: Change) -> None:
    write_items(shop, "x1", "x2")
    copy_users(shop, change)
    summary = audited(shop)
    assert not summary.passed
    assert amiss(summary) >= {(kinds.DUPLICATES, "leak")}
    (leak,) = [each for each in findings(summary) if each["verdict"] == "leak" and "test.tsv" in each["where"]]
    assert leak["where"] == "train.tsv against test.tsv, other users"
    assert int(leak["found"].split(" ")[0]) >= COPIES


def test_copies_without_the_answer_are_none(shop: Workspace) -> None:
    write_items(shop, "x1")
    copy_users(shop, lambda items: [*items[:-2], "x1", "x1"])
    leaks = [each for each in findings(audited(shop)) if each["verdict"] == "leak" and "test.tsv" in each["where"]]
    assert leaks == []


def test_copies_among_validation_users_warn(shop: Workspace) -> None:
    users = list(alike().items())[:COPIES]
    change_lines(
        shop.dataset(NAME).split("valid"),
        lambda lines: lines.extend(f"new{user}\t{' '.join(items)}" for user, items in users),
    )
    assert amiss(audited(shop)) == {(kinds.DUPLICATES, "warning")}


def write_items(workspace: Workspace, *items: str) -> None:
    with workspace.dataset(NAME).titles.open("a", encoding="utf-8") as file:
        file.writelines(f"{item},Another {item}\n" for item in items)


@pytest.mark.parametrize("seed", range(20))
def test_one_change_is_what_the_shortest_edit_says(seed: int) -> None:
    """Against the edit distance of the histories, worked out the long way."""

    def distance(one: Sequence[str], other: Sequence[str]) -> int:
        if not one or not other:
            return len(one) + len(other)
        changed = distance(one[1:], other[1:]) + (one[0] != other[0])
        return min(changed, distance(one[1:], other) + 1, distance(one, other[1:]) + 1)

    rng = random.Random(seed)
    for _ in range(30):
        one = tuple(rng.choices("ab", k=rng.randint(1, 5)))
        other = tuple(rng.choices("ab", k=rng.randint(1, 5)))
        assert one_change((*one, "t"), (*other, "t")) == (distance((*one, "t"), (*other, "t")) <= 1)


@pytest.mark.real_data
def test_people_of_movielens_are_no_copies(real_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "movielens"
    folder.mkdir(parents=True)
    for name in ("train.tsv", "test.tsv", "movielens_titles.csv"):
        shutil.copyfile(real_data / "movielens" / name, folder / name)
    settings = AuditSettings(dataset="movielens", root=str(tmp_path))
    assert amiss(run(settings, Workspace(tmp_path))) == set()
    lines = (folder / "test.tsv").read_text(encoding="utf-8").splitlines()[:400]
    with (folder / "train.tsv").open("a", encoding="utf-8") as file:
        file.writelines(f"copy{line}\n" for line in lines)
    found = amiss(run(settings, Workspace(tmp_path)))
    # A tenth of the copies are validation users, who hold test windows as well.
    assert found == {(kinds.DUPLICATES, "leak"), (kinds.DUPLICATES, "warning")}
