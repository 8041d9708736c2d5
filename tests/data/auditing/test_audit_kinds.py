"""Kinds of leaks that lie in catalogues, captions, images and words: each is planted, and told by its name alone."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_world import (
    ITEMS,
    NAME,
    WINDOW,
    Rows,
    audit,
    change_lines,
    change_rows,
    findings,
    make_world,
    planted,
    sequences,
)
from workspaces import tsv, write_dataset

from mllmrec import Workspace
from mllmrec.data.auditing import findings as kinds
from mllmrec.data.auditing.texts import target_shares
from mllmrec.data.candidates.stage import run as draw
from mllmrec.settings.data import CandidatesSettings
from mllmrec.storage.workspace import read_json, write_json, write_text

CHOSEN = sequences()
EVERY = 10


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The shop of the audit with our lists of test alone, so that nothing is amiss."""
    workspace = make_world(tmp_path_factory.mktemp("clean"))
    for path in workspace.dataset(NAME).processed.iterdir():
        if not path.name.startswith("test_uni9"):
            path.unlink()
    return workspace


@pytest.fixture
def world(clean: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(clean.root, tmp_path / "world")
    return Workspace(tmp_path / "world")


def found(workspace: Workspace, check: str) -> list[str]:
    return [each["found"] for each in findings(audit(workspace)) if each["check"] == check]


# ---- twins


def add_twins(workspace: Workspace, users: list[str], *, target: bool) -> None:
    """Write a twin of the users' test targets, or of the items before them, to the front of all their lines."""
    at = -1 if target else -2
    with workspace.dataset(NAME).titles.open("a", encoding="utf-8") as file:
        file.writelines(f"twin-{user},{ITEMS[CHOSEN[user][at]].upper()}\n" for user in users)
    for split in ("train", "valid", "test"):

        def add(lines: list[str]) -> None:
            lines[:] = [
                line.replace("\t", f"\ttwin-{user} ") if (user := line.partition("\t")[0]) in users else line
                for line in lines
            ]

        change_lines(workspace.dataset(NAME).split(split), add)


def test_twins_of_targets_on_their_own_lines(world: Workspace) -> None:
    """At the front of nine items, where no window of four sees them."""
    add_twins(world, list(CHOSEN)[::EVERY], target=True)
    assert planted(world) == {(kinds.TWINS, "leak")}


def test_items_catalogued_twice_are_met_at_other_places_as_well(world: Workspace) -> None:
    """As many twins of the items before the targets: who meets an item twice isn't asked for it."""
    add_twins(world, list(CHOSEN)[::EVERY], target=False)
    titles = world.dataset(NAME).titles.read_text(encoding="utf-8")
    add_twins(world, list(CHOSEN)[1::EVERY], target=True)
    assert titles in world.dataset(NAME).titles.read_text(encoding="utf-8")
    (told,) = [each for each in findings(audit(world)) if each["check"] == kinds.TWINS and "test.tsv" in each["where"]]
    assert (told["verdict"], "at the last items before them" in told["found"]) == ("ok", True)


def write_images(workspace: Workspace, content: Callable[[str], str], items: list[str] | None = None) -> None:
    for item in items or list(ITEMS):
        write_text(workspace.dataset(NAME).images / f"{item}.jpg", content(item))


def test_images_of_target_and_history_with_the_same_bytes(world: Workspace) -> None:
    write_images(world, lambda item: f"picture of {item:>4}")
    assert planted(world) == set()
    pairs = {target: last for *_, last, target in (CHOSEN[user] for user in list(CHOSEN)[::EVERY])}
    write_images(world, lambda item: f"picture of {pairs.get(item, item):>4}")
    assert (kinds.TWINS, "leak") in planted(world)
    assert {check for check, _ in planted(world)} == {kinds.TWINS}


def test_an_image_that_leads_nowhere_is_no_twin(world: Workspace) -> None:
    write_images(world, lambda item: item)
    (world.dataset(NAME).images / "i1.jpg").unlink()
    (world.dataset(NAME).images / "i1.jpg").symlink_to(world.root / "gone.jpg")
    assert planted(world) == set()


def test_a_placeholder_image_makes_no_twins(world: Workspace) -> None:
    write_images(world, lambda item: "no image" if int(item[1:]) % 3 == 0 else item)
    assert planted(world) == set()


# ---- captions and words


@pytest.fixture
def wide(tmp_path: Path) -> Workspace:
    """200 users and 400 items, of which half are asked for; captions hold a random word of three."""
    rng = random.Random(5)
    items = [f"i{number}" for number in range(400)]
    lines = {f"u{user}": rng.sample(items, 8) for user in range(200)}
    parts = {"train": slice(-2), "valid": slice(-1), "test": slice(None)}
    files = {split: tsv({user: line[part] for user, line in lines.items()}) for split, part in parts.items()}
    titles = "item,title\n" + "".join(f"{item},Thing of {item}\n" for item in items)
    workspace = write_dataset(tmp_path, NAME, titles, **files)
    words = ("round", "flat", "tall")
    write_json(
        workspace.dataset(NAME).captions,
        {item: {"title": "", "caption": f"A {rng.choice(words)} object"} for item in items},
    )
    return workspace


def targets_of(workspace: Workspace) -> set[str]:
    lines = workspace.dataset(NAME).split("test").read_text(encoding="utf-8").splitlines()
    return {line.split(" ")[-1] for line in lines}


def edit_captions(workspace: Workspace, edit: Callable[[dict[str, dict[str, str]]], object]) -> None:
    rows = read_json(workspace.dataset(NAME).captions)
    edit(rows)
    write_json(workspace.dataset(NAME).captions, rows)


def test_captions_that_half_of_the_items_have_are_nothing(wide: Workspace) -> None:
    assert planted(wide) == set()
    edit_captions(wide, lambda rows: [rows.pop(item) for item in list(rows)[::2]])
    assert planted(wide) == set()


def test_captions_that_only_targets_have(wide: Workspace) -> None:
    targets = targets_of(wide)
    assert 140 < len(targets) < 180, "fewer than half of the items"
    edit_captions(wide, lambda rows: [rows.pop(item) for item in set(rows) - targets])
    assert planted(wide) == {(kinds.TARGETS_ALONE, "leak")}
    (told,) = found(wide, kinds.TARGETS_ALONE)[1:]
    assert f"a caption: {len(targets)} targets have it, 0 other items" in told


def test_a_word_that_only_targets_have(wide: Workspace) -> None:
    marked = sorted(targets_of(wide))[::3]
    edit_captions(wide, lambda rows: [rows[item].update(caption="A pristine object") for item in marked])
    assert planted(wide) == {(kinds.TARGETS_ALONE, "leak")}
    assert f"the word 'pristine': {len(marked)} targets have it, 0 other items" in found(wide, kinds.TARGETS_ALONE)[1]


def test_a_word_of_few_targets_may_be_chance(wide: Workspace) -> None:
    """Four of ten items are targets: six of them in a row are one in 250, and there are five words."""
    marked = sorted(targets_of(wide))[:6]
    edit_captions(wide, lambda rows: [rows[item].update(caption="A pristine object") for item in marked])
    assert planted(wide) == set()


def test_shares_of_targets_are_counted_among_items_of_like_popularity() -> None:
    items = [f"never{number}" for number in range(10)] + [f"rare{number}" for number in range(50)] + ["often"] * 1
    popularity = {item: 100 if item == "often" else 1 for item in items if not item.startswith("never")}
    shares = target_shares(items, popularity, {"never0", "often", *(f"rare{number}" for number in range(25))})
    assert (shares["never5"], shares["rare40"], shares["often"]) == (0.1, 0.5, 1.0)


def test_a_bare_id_of_the_target_in_a_trace(world: Workspace) -> None:
    def plant(rows: Rows) -> None:
        rows[2]["reasoning"] += f" Then {rows[2]['target_item']['item_id']} it is."

    change_rows(world.dataset(NAME).assessed_cot, plant)
    assert planted(world) == {(kinds.BARE_IDS, "leak")}
    change_rows(world.dataset(NAME).assessed_cot, lambda rows: rows[2].update(keep=False, reason="names its target"))
    assert planted(world) == set()


def test_a_bare_id_of_another_item_is_none_of_the_target(world: Workspace) -> None:
    def plant(rows: Rows) -> None:
        for row in rows[::EVERY]:
            row["reasoning"] += f" Not {row['history_items'][0]['item_id']} again."

    change_rows(world.dataset(NAME).assessed_cot, plant)
    assert planted(world) == set()


def test_a_bare_id_of_the_target_in_a_caption(world: Workspace) -> None:
    *_, last, target = CHOSEN["u8"]
    edit_captions(world, lambda rows: rows[last].update(caption=f"A tag that says {target}, on a table"))
    assert planted(world) == {(kinds.BARE_IDS, "leak")}


def numbered(workspace: Workspace) -> None:
    """Ids that are numbers from 1 on, in every file."""
    shutil.rmtree(workspace.dataset(NAME).processed)
    paths = [path for path in workspace.dataset(NAME).folder.iterdir() if path.is_file()]
    names = sorted(ITEMS, key=len, reverse=True)
    for path in paths:
        text = path.read_text(encoding="utf-8")
        for name in names:
            text = text.replace(name, str(int(name[1:]) + 1))
        write_text(path, text)
    for path in (workspace.dataset(NAME).pseudo_cot, workspace.dataset(NAME).refined_cot):
        path.unlink()
    from mllmrec.data.traces import read_content

    rows = read_json(workspace.dataset(NAME).assessed_cot)
    for row in rows:
        content = read_content(row)
        assert content is not None
        row["example_id"] = content.example_id
    write_json(workspace.dataset(NAME).assessed_cot, rows)


def test_numbers_in_traces_hit_targets_by_chance(world: Workspace) -> None:
    """`Step 1:` stands in every trace, and item 1 is the target of some."""
    numbered(world)
    assert planted(world) == set()
    assert "by chance" in found(world, kinds.BARE_IDS)[0]


def test_numbers_that_are_the_target_more_often_than_chance(world: Workspace) -> None:
    numbered(world)

    def plant(rows: Rows) -> None:
        for row in rows[::EVERY]:
            row["reasoning"] += f" Perhaps {row['target_item']['item_id']}."

    change_rows(world.dataset(NAME).assessed_cot, plant)
    assert planted(world) == {(kinds.BARE_IDS, "leak")}


# ---- the same negatives for all


@pytest.mark.parametrize("share", [0.8, 1.0])
def test_the_same_negatives_for_all(world: Workspace, share: float) -> None:
    """Nine items for everybody, but for what a user knows of them, in an order of their own."""
    rng = random.Random(1)
    shared = list(ITEMS)[:18]

    def plant(rows: Rows) -> None:
        for row in rows[: int(share * len(rows))]:
            unknown = [item for item in shared if item not in CHOSEN[row["user_id"]]]
            row["candidates"] = [row["target_id"], *unknown[:9]]
            rng.shuffle(row["candidates"])

    change_rows(world.dataset(NAME).candidates("test", "uni9", WINDOW, 42), plant)
    assert (kinds.SAME_NEGATIVES, "leak") in planted(world)


@pytest.mark.parametrize(("negatives", "num_neg"), [("uniform", 4), ("popularity", 9), ("popularity", 15)])
def test_negatives_drawn_from_few_items_differ(world: Workspace, negatives: str, num_neg: int) -> None:
    draw(
        CandidatesSettings(dataset=NAME, root=str(world.root), negatives=negatives, num_neg=num_neg, min_inter=WINDOW),
        world,
    )
    assert planted(world) == set()
