"""The audit: a clean workspace passes, and each leak that is planted is told by its kind and by nothing else."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import audit_world
import pytest
from audit_world import (
    ITEMS,
    NAME,
    WINDOW,
    Rows,
    amiss,
    audit,
    change_lines,
    change_rows,
    drawn_otherwise,
    findings,
    make_world,
    reference_record,
    sequences,
    trace,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workspaces import tsv, write_dataset

from mllmrec import ArtifactError, Workspace
from mllmrec.data.auditing import findings as kinds
from mllmrec.data.candidates.drawing import candidate_rows, freeze
from mllmrec.data.candidates.stage import run as draw
from mllmrec.data.sequences import Interactions, is_held_out
from mllmrec.evaluation.retrieval.stage import run as retrieve
from mllmrec.records import example_id
from mllmrec.settings.data import CandidatesSettings, RetrieveSettings
from mllmrec.storage.manifests import manifest_path
from mllmrec.storage.workspace import read_json, read_jsonl, sha256, write_json, write_jsonl, write_text

CHOSEN = sequences()
LEGACY = {(kinds.CONSUMED, "warning"), (kinds.SHARED_LISTS, "warning")}
"""What the reference's draw is known for: it forbids the window alone and starts every file from one seed."""


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_world(tmp_path_factory.mktemp("clean"))


@pytest.fixture
def world(clean: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(clean.root, tmp_path / "world")
    return Workspace(tmp_path / "world")


def lists(workspace: Workspace, split: str = "test", protocol: str = "uni9") -> Path:
    return workspace.dataset(NAME).candidates(split, protocol, WINDOW, 42)


def planted(workspace: Workspace) -> set[tuple[str, str]]:
    """What is amiss beside the known warnings on legacy lists."""
    return audit_world.planted(workspace) - LEGACY


def test_a_clean_workspace_passes_and_the_reference_draw_warns(clean: Workspace) -> None:
    summary = audit(clean)
    assert amiss(summary) == LEGACY
    assert not drawn_otherwise(summary)
    assert summary.passed
    warned = {finding["where"] for finding in findings(summary) if finding["verdict"] == "warning"}
    assert all("legacy" in where for where in warned)
    table, rates = summary.tables
    assert {row[0] for row in rates.rows} == {path.name for path in clean.dataset(NAME).processed.glob("*.jsonl")}
    assert {row[0] for row in table.rows} == set(kinds.CHECKS)
    not_checked = {row[0] for row in table.rows if row[3] == "not checked"}
    assert not_checked == {kinds.FOREIGN_HINTS}
    assert "No leak was found." in summary.headline
    assert "a right answer may count as wrong" in table.note


def test_held_out_users_stand_in_for_a_missing_validation_file(tmp_path: Path) -> None:
    workspace = make_world(tmp_path, valid=False)
    later = [row for row in read_json(workspace.dataset(NAME).pseudo_cot) if is_held_out(row["user_id"])]
    assert later, "some users of the world are validation"
    assert (kinds.LATER_TRACES, "leak") in amiss(audit(workspace))
    for path in (
        workspace.dataset(NAME).pseudo_cot,
        workspace.dataset(NAME).refined_cot,
        workspace.dataset(NAME).assessed_cot,
    ):
        change_rows(path, lambda rows: drop(rows, lambda row: is_held_out(row["user_id"])))
    assert amiss(audit(workspace)) == LEGACY


def drop(rows: Rows, unwanted: Callable[[dict[str, Any]], bool]) -> None:
    rows[:] = [row for row in rows if not unwanted(row)]


# ---- splits


def test_a_training_line_with_the_test_target(world: Workspace) -> None:
    def plant(lines: list[str]) -> None:
        lines[4] = lines[4] + " " + CHOSEN["u4"][-1]

    change_lines(world.dataset(NAME).split("train"), plant)
    found = audit(world)
    assert (kinds.LATER_TARGETS, "leak") in amiss(found)
    assert amiss(found) - LEGACY <= {
        (kinds.LATER_TARGETS, "leak"),
        (kinds.CONTENT, "wrong"),
    }
    (leak,) = [each for each in findings(found) if each["verdict"] == "leak"]
    assert leak["found"].endswith(f"first: line 5 holds {CHOSEN['u4'][-1]}, the test target of user u4")


def test_a_later_target_in_the_midst_of_a_training_line(world: Workspace) -> None:
    """Only the whole line holds it, no last window does, so that no other file is touched."""

    def plant(lines: list[str]) -> None:
        lines[4] = lines[4].replace("\t", f"\t{CHOSEN['u4'][-1]} ")

    change_lines(world.dataset(NAME).split("train"), plant)
    assert planted(world) == {(kinds.LATER_TARGETS, "leak")}


def test_a_validation_line_with_the_test_target(world: Workspace) -> None:
    def plant(lines: list[str]) -> None:
        lines[4] = lines[4].replace("\t", f"\t{CHOSEN['u4'][-1]} ")

    change_lines(world.dataset(NAME).split("valid"), plant)
    assert planted(world) == {(kinds.LATER_TARGETS, "leak")}


def test_a_test_window_copied_into_training(world: Workspace) -> None:
    change_lines(
        world.dataset(NAME).split("train"), lambda lines: lines.append("u7\t" + " ".join(CHOSEN["u7"][-WINDOW:]))
    )
    found = planted(world)
    assert (kinds.DUPLICATES, "leak") in found
    # The window holds the validation target too, and may hold what is a negative elsewhere.
    assert found <= {(kinds.DUPLICATES, "leak"), (kinds.LATER_TARGETS, "leak"), (kinds.CONSUMED, "leak")}


def test_a_test_window_of_another_user_warns(world: Workspace) -> None:
    change_lines(world.dataset(NAME).split("train"), lambda lines: lines.append("new\t" + " ".join(CHOSEN["u7"])))
    assert planted(world) == {(kinds.DUPLICATES, "warning")}


def test_an_example_that_comes_twice_warns(world: Workspace) -> None:
    change_lines(world.dataset(NAME).split("train"), lambda lines: lines.append(lines[3]))
    assert planted(world) == {(kinds.DUPLICATES, "warning")}


def test_a_user_on_several_lines_is_legal(world: Workspace) -> None:
    others = [item for item in ITEMS if item not in CHOSEN["u3"]]
    change_lines(world.dataset(NAME).split("train"), lambda lines: lines.append("u3\t" + " ".join(others[:6])))
    draw(
        CandidatesSettings(dataset=NAME, root=str(world.root), min_inter=WINDOW, overwrite=True),
        world,
    )
    for protocol in ("uni9", "legacy-uni9"):
        lists(world, "train", protocol).unlink()
    assert planted(world) == set()


def repeat_target(workspace: Workspace, split: str, user: int) -> None:
    """Put the target of a line at its front, where no window of four sees it."""

    def plant(lines: list[str]) -> None:
        name, items = lines[user].split("\t")
        lines[user] = f"{name}\t{items.split()[-1]} {items}"

    change_lines(workspace.dataset(NAME).split(split), plant)


def test_a_target_in_its_history_where_nothing_else_repeats(world: Workspace) -> None:
    repeat_target(world, "test", 5)
    assert planted(world) == {(kinds.TARGET_IN_HISTORY, "leak")}


def test_a_target_in_its_history_warns_where_repeats_are_kept(world: Workspace) -> None:
    def come_back(lines: list[str]) -> None:
        lines[9] = lines[9].replace("\t", f"\t{CHOSEN['u9'][1]} ")

    repeat_target(world, "test", 5)
    change_lines(world.dataset(NAME).split("train"), come_back)
    assert planted(world) == {(kinds.TARGET_IN_HISTORY, "warning")}


@pytest.mark.parametrize(("dropped", "verdict"), [(True, "leak"), (False, "warning")])
def test_prepare_says_whether_repeats_are_kept(world: Workspace, dropped: bool, verdict: str) -> None:
    repeat_target(world, "test", 5)
    write_json(world.dataset(NAME).card, {})
    result = {"drop_repeats": dropped}
    manifest = {"verb": "prepare", "settings": result, "result_settings": result, "inputs": {}}
    write_json(world.dataset(NAME).card.with_name("card.json.manifest.json"), manifest)
    assert planted(world) == {(kinds.TARGET_IN_HISTORY, verdict)}


# ---- prompts and captions


def test_a_caption_in_the_history_that_names_the_target(world: Workspace) -> None:
    *_, last, target = CHOSEN["u8"]
    title = ITEMS[target].rpartition(" (")[0]
    change_captions(world, last, f"Beside it stands the {title}")
    assert planted(world) == {(kinds.TARGET_IN_PROMPT, "leak")}


def test_a_phrase_that_happens_to_be_a_title_warns(world: Workspace) -> None:
    """The same words in small letters: one caption is chance."""
    *_, last, target = CHOSEN["u8"]
    change_captions(world, last, f"a {ITEMS[target].rpartition(' (')[0].lower()} on a shelf")
    assert planted(world) == {(kinds.TARGET_IN_PROMPT, "warning")}


def test_phrases_that_name_targets_more_often_than_chance(world: Workspace) -> None:
    """Captions that go with the next item: every third user's last item is captioned in the words of the target."""
    for user in list(CHOSEN)[::3]:
        *_, last, target = CHOSEN[user]
        change_captions(world, last, f"a {ITEMS[target].rpartition(' (')[0].lower()} on a shelf")
    assert (kinds.TARGET_IN_PROMPT, "leak") in planted(world)


def test_a_caption_of_a_sequel_may_name_what_it_continues(world: Workspace) -> None:
    *_, last, target = CHOSEN["u8"]
    name = ITEMS[target].rpartition(" (")[0]
    text = (
        world.dataset(NAME)
        .titles.read_text(encoding="utf-8")
        .replace(f"{last},{ITEMS[last]}", f"{last},{name} 2 (1999)")
    )
    write_text(world.dataset(NAME).titles, text)
    change_captions(world, last, f"Another {name} among flowers")
    for path in (world.dataset(NAME).pseudo_cot, world.dataset(NAME).refined_cot, world.dataset(NAME).assessed_cot):
        path.unlink()
    assert planted(world) == set()


def test_the_id_of_the_target_in_a_caption(world: Workspace) -> None:
    *_, last, target = CHOSEN["u8"]
    change_captions(world, last, f"then comes [ITEM_{target}] as it seems")
    assert planted(world) == {(kinds.TARGET_IN_PROMPT, "leak")}


def test_two_items_of_one_title_warn(world: Workspace) -> None:
    """One user of three hundred met both."""
    *_, last, target = CHOSEN["u8"]
    text = (
        world.dataset(NAME)
        .titles.read_text(encoding="utf-8")
        .replace(f"{last},{ITEMS[last]}", f"{last},{ITEMS[target]}")
    )
    write_text(world.dataset(NAME).titles, text)
    for path in (world.dataset(NAME).pseudo_cot, world.dataset(NAME).refined_cot, world.dataset(NAME).assessed_cot):
        path.unlink()
    assert planted(world) == {(kinds.TWINS, "warning")}


def test_a_caption_that_names_its_own_title_warns(world: Workspace) -> None:
    change_captions(world, "i3", f"The cover says {ITEMS['i3']}")
    assert planted(world) == {(kinds.CAPTIONS, "warning")}


def test_a_trace_that_strayed_into_a_caption(world: Workspace) -> None:
    strayed = "Step 1: a user of few words and many cups.\nStep 2: more of the same."
    change_rows(world.dataset(NAME).pseudo_cot, lambda rows: rows[11].update(reasoning=strayed))
    change_captions(world, "i3", f"An image. {' '.join(strayed.split())}")
    assert planted(world) == {(kinds.LATER_HINTS, "leak")}


def change_captions(workspace: Workspace, item: str, caption: object) -> None:
    rows = read_json(workspace.dataset(NAME).captions)
    rows[item]["caption"] = caption
    write_json(workspace.dataset(NAME).captions, rows)


# ---- traces


@pytest.mark.parametrize(("part", "split"), [(slice(-WINDOW, None), "test"), (slice(-WINDOW - 1, -1), "valid")])
def test_a_trace_of_a_later_window(world: Workspace, part: slice, split: str) -> None:
    change_rows(world.dataset(NAME).pseudo_cot, lambda rows: rows.append(trace("u6", CHOSEN["u6"][part], 6)))
    assert planted(world) == {(kinds.LATER_TRACES, "leak")}
    (leak,) = [each for each in findings(audit(world)) if each["verdict"] == "leak"]
    assert leak["where"] == f"shop_pseudo-cot.json, {split}"
    assert leak["found"] == "1 (0.3%), first: record 301, user u6"


def test_a_trace_of_a_user_who_is_only_in_test(world: Workspace) -> None:
    items = list(ITEMS)[20:29]
    change_lines(world.dataset(NAME).split("test"), lambda lines: lines.append("late\t" + " ".join(items)))
    change_rows(world.dataset(NAME).refined_cot, lambda rows: rows.append(trace("late", items[:WINDOW], 300)))
    assert planted(world) == {(kinds.LATER_TRACES, "leak")}


def test_a_trace_that_fits_no_window(world: Workspace) -> None:
    """Training refuses a file of ours that holds one, and leaves out the reference's."""
    stale = trace("u6", CHOSEN["u5"][-2 - WINDOW : -2], 6)
    change_rows(world.dataset(NAME).assessed_cot, lambda rows: rows.append(stale))
    assert planted(world) == {(kinds.CONTENT, "wrong")}
    change_rows(
        world.dataset(NAME).assessed_cot, lambda rows: rows.__setitem__(slice(None), map(reference_record, rows))
    )
    assert planted(world) == {(kinds.CONTENT, "warning")}


def test_a_trace_whose_words_were_put_under_another_history(world: Workspace) -> None:
    change_rows(world.dataset(NAME).assessed_cot, lambda rows: rows[4].update(example_id=rows[5]["example_id"]))
    assert planted(world) == {(kinds.CONTENT, "wrong")}


@pytest.mark.parametrize("naming", ["[ITEM_{id}]", "the {title}", "the {lower}"])
def test_a_kept_trace_that_names_its_target(world: Workspace, naming: str) -> None:
    def plant(rows: Rows) -> None:
        target = rows[2]["target_item"]["item_id"]
        title = ITEMS[target].rpartition(" (")[0]
        rows[2]["reasoning"] += " It is " + naming.format(id=target, title=title, lower=title.lower())

    change_rows(world.dataset(NAME).assessed_cot, plant)
    assert planted(world) == {(kinds.NAMING_TRACES, "leak")}
    change_rows(world.dataset(NAME).assessed_cot, lambda rows: rows[2].update(keep=False, reason="names its target"))
    assert planted(world) == set()


def test_a_draft_that_names_its_target_warns_beside_an_assessed_file(world: Workspace) -> None:
    def plant(rows: Rows) -> None:
        rows[2]["reasoning"] += f" It is [ITEM_{rows[2]['target_item']['item_id']}]"

    change_rows(world.dataset(NAME).pseudo_cot, plant)
    assert planted(world) == {(kinds.NAMING_TRACES, "warning")}
    world.dataset(NAME).assessed_cot.unlink()
    world.dataset(NAME).refined_cot.unlink()
    assert planted(world) == {(kinds.NAMING_TRACES, "leak")}


def test_traces_written_with_the_answer_in_view_warn(world: Workspace) -> None:
    change_rows(world.dataset(NAME).refined_cot, lambda rows: rows[0].update(answer_conditioned=True))
    assert planted(world) == {(kinds.CONDITIONED_TRACES, "warning")}


def test_the_reference_refiner_is_known_to_see_the_answer(world: Workspace) -> None:
    def strip(rows: Rows) -> None:
        rows[:] = [reference_record(row) for row in rows]

    change_rows(world.dataset(NAME).refined_cot, strip)
    assert planted(world) == {(kinds.CONDITIONED_TRACES, "warning")}


# ---- candidate lists


def test_a_negative_that_the_user_consumed(world: Workspace) -> None:
    """The first of the user's items, which no window of four shows."""

    def plant(rows: Rows) -> None:
        row = next(row for row in rows if row["candidates"][0] != row["target_id"])
        row["candidates"][0] = CHOSEN[row["user_id"]][0]

    change_rows(lists(world), plant)
    assert planted(world) == {(kinds.CONSUMED, "leak")}


def test_targets_that_stand_first(world: Workspace) -> None:
    def plant(rows: Rows) -> None:
        for row in rows[::4]:
            row["candidates"].sort(key=lambda item: item != row["target_id"])

    change_rows(lists(world), plant)
    assert planted(world) == {(kinds.POSITION, "leak")}


def test_an_order_that_hangs_on_the_items(world: Workspace) -> None:
    """Each target has a place of its own: places are even, and a table of them opens the file."""

    def plant(rows: Rows) -> None:
        for row in rows:
            others = [item for item in row["candidates"] if item != row["target_id"]]
            others.insert(int(row["target_id"][1:]) % 10, row["target_id"])
            row["candidates"] = others

    change_rows(lists(world), plant)
    assert planted(world) == {(kinds.LOOKUP, "leak")}


def test_lists_that_training_has_shown_already(world: Workspace) -> None:
    """The test lists of ours with the negatives of the training lists, each in an order of its own."""
    shown = {}
    change_rows(lists(world, "train"), lambda rows: shown.update({row["user_id"]: row for row in rows}))
    rng = random.Random(3)

    def plant(rows: Rows) -> None:
        for row in rows:
            own = shown[row["user_id"]]
            negatives = [item for item in own["candidates"] if item not in CHOSEN[row["user_id"]]]
            kept = [item for item in row["candidates"] if item not in (row["target_id"], *negatives)]
            kept = kept[: 9 - len(negatives)]
            row["candidates"] = [row["target_id"], *negatives, *kept]
            rng.shuffle(row["candidates"])

    change_rows(lists(world), plant)
    assert planted(world) == {(kinds.SHARED_LISTS, "leak")}


def test_a_list_whose_history_was_given_the_target(world: Workspace) -> None:
    def plant(rows: Rows) -> None:
        rows[0]["history"][0] = rows[0]["target_id"]
        rows[0]["example_id"] = example_id(rows[0]["user_id"], rows[0]["target_id"], rows[0]["history"])

    change_rows(lists(world), plant)
    assert planted(world) == {(kinds.TARGET_IN_HISTORY, "leak"), (kinds.CONTENT, "wrong")}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda row: row["candidates"].remove(row["target_id"]),
        lambda row: row["candidates"].append(row["candidates"][0]),
        lambda row: row.update(example_id="0" * 16),
        lambda row: row.update(split="later"),
        lambda row: row.update(user_id="nobody"),
        lambda row: row.update(user_id="\ud800"),
        lambda row: row.update(history="i1 i2 i3"),
    ],
    ids=["no target", "twice", "id", "split", "user", "no id", "kind"],
)
@pytest.mark.parametrize("row", [0, 7])
def test_lists_that_are_no_lists_of_this_data(
    world: Workspace, spoil: Callable[[dict[str, Any]], None], row: int
) -> None:
    change_rows(lists(world), lambda rows: spoil(rows[row]))
    assert planted(world) == {(kinds.CONTENT, "wrong")}


def test_a_frozen_file_that_was_changed_is_wrong_though_its_lists_are_those_of_its_draw(world: Workspace) -> None:
    path = lists(world)
    write_text(path, "".join(reversed(path.read_text(encoding="utf-8").splitlines(keepends=True))))
    assert planted(world) == {(kinds.CONTENT, "wrong")}
    assert not drawn_otherwise(audit(world))


def swap_negative(rows: Rows) -> None:
    """One negative for an item that the user never met, the least that can be changed."""
    row = rows[3]
    unmet = next(item for item in ITEMS if item not in CHOSEN[row["user_id"]] and item not in row["candidates"])
    row["candidates"][row["candidates"].index(row["target_id"]) - 1] = unmet


def rarest_negatives(rows: Rows) -> None:
    """Negatives that few have chosen, so that popularity alone finds the targets."""
    counts = Counter(item for items in CHOSEN.values() for item in items)
    for row in rows:
        free = sorted(set(ITEMS) - set(CHOSEN[row["user_id"]]), key=lambda item: (counts[item], item))
        place = row["candidates"].index(row["target_id"])
        row["candidates"] = [*free[:place], row["target_id"], *free[place:9]]


TAMPERING: list[Callable[[Rows], Any]] = [
    swap_negative,
    rarest_negatives,
    lambda rows: rows[3]["candidates"].reverse(),
    lambda rows: rows[3]["candidates"].pop(0 if rows[3]["candidates"][0] != rows[3]["target_id"] else 1),
    lambda rows: rows[3]["candidates"].append(next(item for item in ITEMS if item not in rows[3]["candidates"])),
    lambda rows: rows.pop(3),
    lambda rows: rows.__delitem__(slice(10, None)),
    lambda rows: rows.append(rows[3]),
    lambda rows: rows[3].update(candidates=rows[4]["candidates"]),
    lambda rows: rows[3].update(history=rows[3]["history"][1:]),
    lambda rows: rows[3].update(split="valid"),
]


@pytest.mark.parametrize("protocol", ["uni9", "legacy-uni9"])
@pytest.mark.parametrize("tamper", TAMPERING)
def test_lists_that_bear_one_of_our_names_are_those_of_its_draw(
    world: Workspace, tamper: Callable[[Rows], Any], protocol: str
) -> None:
    path = lists(world, protocol=protocol)
    change_rows(path, lambda rows: rows.reverse())
    assert not drawn_otherwise(audit(world)), "the order of rows means nothing, and no manifest is needed"
    change_rows(path, tamper)
    summary = audit(world)
    assert drawn_otherwise(summary).keys() == {path.name}
    assert not summary.passed


@pytest.mark.parametrize(("version", "told"), [(1, None), (1, "gone"), (1, 1), (2, 2), (2, "gone")])
def test_lists_are_those_of_the_version_that_their_manifest_tells(
    world: Workspace, version: int, told: int | str | None
) -> None:
    """Manifests of version 0.1 tell of no version, which is the first; without any manifest either will do."""
    path = lists(world)
    interactions = Interactions.load(world, NAME)
    drawn, _ = freeze(interactions, "test", window=WINDOW, num_neg=9, seed=42, version=version)
    write_jsonl(path, candidate_rows(drawn))
    manifest = read_json(manifest_path(path))
    del manifest["outputs"], manifest["details"]["draws"]
    manifest["details"] |= {"sha256": sha256(path)} | ({"draws": told} if isinstance(told, int) else {})
    write_json(manifest_path(path), manifest)
    if told == "gone":
        manifest_path(path).unlink()
    assert planted(world) == set()
    assert not drawn_otherwise(audit(world))
    if told != "gone":
        for other in (3 - version, 7, None, [1]):
            manifest["details"]["draws"] = other
            write_json(manifest_path(path), manifest)
            assert not audit(world).passed


@pytest.mark.parametrize("other", ["test_pop9_w4_s42", "test_uni9_w4_s43", "train_uni9_w4_s42", "test_uni9_w5_s42"])
def test_a_copy_under_the_name_of_another_draw(world: Workspace, other: str) -> None:
    path = lists(world).with_name(f"{other}.jsonl")
    shutil.copy(lists(world), path)
    assert drawn_otherwise(audit(world)).keys() == {path.name}


@pytest.mark.parametrize("protocol", ["hard3", "rr4", "rr4-popularity"])
def test_lists_of_a_retriever_are_held_against_their_rules(world: Workspace, protocol: str) -> None:
    settings: dict[str, Any] = {"dataset": NAME, "root": str(world.root), "min_inter": WINDOW}
    settings |= {"num": int(protocol.removeprefix("hard").removeprefix("rr")[0]), "rerank": protocol.startswith("rr")}
    retrieve(RetrieveSettings(**settings, retriever=protocol.partition("-")[2] or "itemknn"), world)
    path = lists(world, protocol=protocol)
    assert not drawn_otherwise(audit(world))

    def more(rows: Rows) -> None:
        free = set(ITEMS) - set(CHOSEN[rows[0]["user_id"]]) - set(rows[0]["candidates"])
        rows[0]["candidates"].append(min(free))

    def known(rows: Rows) -> None:
        place = next(at for at, item in enumerate(rows[1]["candidates"]) if item != rows[1]["target_id"])
        rows[1]["candidates"][place] = CHOSEN[rows[1]["user_id"]][0]

    before = path.read_bytes()
    for plant in (more, known, lambda rows: rows.pop()):
        path.write_bytes(before)
        change_rows(path, plant)
        assert drawn_otherwise(audit(world)).keys() == {path.name}


def test_lists_that_others_made_are_only_told(world: Workspace) -> None:
    """Consumed negatives, and targets that a retriever missed; none of our names is claimed."""
    rows = list(read_jsonl(lists(world)))
    for row in rows[::3]:
        negative = next(item for item in row["candidates"] if item != row["target_id"])
        row["candidates"][row["candidates"].index(negative)] = CHOSEN[row["user_id"]][0]
    rows[1]["candidates"].remove(rows[1]["target_id"])
    path = world.dataset(NAME).processed / "test_foreign-llmrank_w4_s42.jsonl"
    write_jsonl(path, rows)
    found = audit(world)
    assert found.passed
    assert amiss(found) - LEGACY <= {(kinds.CONSUMED, "warning")}
    (told,) = [each for each in findings(found) if each["where"] == path.name and each["verdict"] == "warning"]
    assert told["found"].startswith("100 (33.3%), first: list 1, user u0: ")


@pytest.mark.parametrize(
    ("targets", "last", "expected"),
    [(4, 0, set()), (3, 0, set()), (5, 1, {"leak"}), (5, 2, set()), (30, 10, set()), (31, 10, {"leak"})],
)
def test_targets_that_histories_repeat_far_more_often_than_they_repeat_anything(
    tmp_path: Path, targets: int, last: int, expected: set[str]
) -> None:
    """Of 450 lists 1 % are 4.5; where last history items come back too, three times as many targets are usual."""
    lines = {f"u{user}": [f"i{(user + step) % 60}" for step in range(4)] for user in range(450)}
    for number, items in enumerate(lines.values()):
        if number < targets:
            items[-1] = items[0]
        elif number < targets + last:
            items[-2] = items[0]
    train = {user: items[:1] for user, items in lines.items()}
    workspace = write_dataset(tmp_path, NAME, train=tsv(train), test=tsv(lines))
    draw(CandidatesSettings(dataset=NAME, root=str(tmp_path), min_inter=WINDOW, num_neg=3), workspace)
    shares = [each for each in findings(audit(workspace)) if each["where"] == "test_uni3_w4_s42.jsonl, share"]
    assert {each["verdict"] for each in shares} == (expected or {"ok"})


# ---- what can be read and is something else


LONG_NUMBER = "9" * 5000
WRONG = ["{", "[1, 2]", "[]", "{}", '"x"', "", "\x00", "[" * 3000, '{"a": 1}\n', "user item", LONG_NUMBER]
WRONG += [f'{{"a": {LONG_NUMBER}}}', f'[{{"a": {LONG_NUMBER}}}]', '{"a": ' * 3000, '[{"a": ' * 3000]
EMPTY = {
    "shop_captions.json": "{}",
    "shop_pseudo-cot.json": "[]",
    "shop_assessed_cot.json": "[]",
    "processed/test_generate_seed42_neg9.json": "[]",
    "processed/train_train_seed42_neg9_cot_0.1_int_4.json": "[]",
}
"""What such a file may well hold when there is nothing yet."""


@pytest.mark.parametrize("text", WRONG, ids=lambda text: repr(text[:12]))
@pytest.mark.parametrize(
    "name",
    [
        "train.tsv",
        "valid.tsv",
        "test.tsv",
        "shop_titles.csv",
        "shop_captions.json",
        "shop_pseudo-cot.json",
        "shop_assessed_cot.json",
        "card.json.manifest.json",
        "processed/test_uni9_w4_s42.jsonl",
        "processed/test_uni9_w4_s42.jsonl.manifest.json",
        "processed/test_generate_seed42_neg9.json",
        "processed/train_train_seed42_neg9_cot_0.1_int_4.json",
    ],
)
def test_wrong_content_is_a_finding(small: Workspace, name: str, text: str) -> None:
    path = small.dataset(NAME).folder / name
    before = path.read_bytes() if path.exists() else None
    write_text(path, text)
    try:
        assert ((kinds.CONTENT, "wrong") in amiss(audit(small))) != (text == EMPTY.get(name))
    finally:
        path.write_bytes(before) if before is not None else path.unlink()


@pytest.fixture(scope="module")
def small(clean: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The clean world cut to twelve users."""
    root = tmp_path_factory.mktemp("small") / "world"
    shutil.copytree(clean.root, root)
    workspace = Workspace(root)
    for split in ("train", "valid", "test"):
        change_lines(workspace.dataset(NAME).split(split), lambda lines: lines.__delitem__(slice(12, None)))
    for path in (
        workspace.dataset(NAME).pseudo_cot,
        workspace.dataset(NAME).refined_cot,
        workspace.dataset(NAME).assessed_cot,
    ):
        change_rows(path, lambda rows: rows.__delitem__(slice(12, None)))
    for split in ("train", "test"):
        change_rows(lists(workspace, split), lambda rows: rows.__delitem__(slice(12, None)))
        lists(workspace, split, "legacy-uni9").unlink()
    write_json(workspace.dataset(NAME).card, {})
    return workspace


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False)
    | st.sampled_from(["i1", "u1", "", "\ud800"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


KEYS = [
    "user_id",
    "target_item",
    "history_items",
    "reasoning",
    "line_idx",
    "keep",
    "example_id",
    "prompt",
    "messages",
    "candidates",
    "target_id",
    "history",
    "split",
]


@given(
    key=st.sampled_from([*KEYS, "candidates", "target_id"]),
    value=JSON,
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_record_holds_the_audit_ends(small: Workspace, key: str, value: Any) -> None:
    dataset = small.dataset(NAME).folder
    cached = {"prompt": "x", "target_id": "i1", "candidates": ["i1"]}
    original = read_json(small.dataset(NAME).assessed_cot)
    write_text(dataset / "processed" / "test_generate_seed42_neg9.json", json.dumps([{**cached, key: value}]))
    write_text(dataset / "shop_captions.json", json.dumps({"i1": value}))
    write_text(small.dataset(NAME).refined_cot, json.dumps([{**original[0], key: value}]))
    drawn = [{**row, key: value} for row in itertools.islice(read_jsonl(lists(small)), 1)]
    write_text(dataset / "processed" / "test_uni9_w4_s7.jsonl", "".join(f"{json.dumps(row)}\n" for row in drawn))
    assert audit(small).tables


def test_a_dataset_that_is_not_there_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="The dataset shop is missing"):
        audit(Workspace(tmp_path))


# ---- no false alarms


@pytest.mark.parametrize("seed", range(5))
def test_a_prepared_world_of_few_items_passes(tmp_path: Path, seed: int) -> None:
    """Nine negatives of 48 items: lists have much in common, as they must, and people of one taste are alike."""
    from small_models import DATASET, make_workspace
    from small_models import WINDOW as SHORT

    from mllmrec.data.auditing.stage import run
    from mllmrec.settings.data import AuditSettings

    workspace = make_workspace(tmp_path)
    for split in ("train", "valid", "test"):
        for num_neg in (4, 9):
            draw(
                CandidatesSettings(
                    dataset=DATASET, root=str(tmp_path), split=split, num_neg=num_neg, min_inter=SHORT, seed=seed
                ),
                workspace,
            )
    summary = run(AuditSettings(dataset=DATASET, root=str(tmp_path), min_inter=SHORT), workspace)
    assert summary.passed
    assert amiss(summary) <= {(kinds.CONSUMED, "warning"), (kinds.DUPLICATES, "warning")}


@pytest.mark.slow
@pytest.mark.real_data
def test_real_lists_pass_and_the_reference_draw_is_seen_through(real_data: Path, tmp_path: Path) -> None:
    """Most test lists of the reference's draw hold only negatives of the user's training list."""
    from mllmrec.data.auditing.stage import run
    from mllmrec.settings.data import AuditSettings

    folder = tmp_path / "data" / "movielens"
    folder.mkdir(parents=True)
    for name in ("train.tsv", "test.tsv", "movielens_titles.csv"):
        shutil.copyfile(real_data / "movielens" / name, folder / name)
    workspace = Workspace(tmp_path)
    for split in ("train", "test"):
        for num_neg, legacy in ((9, False), (99, False), (9, True)):
            knobs = {"split": split, "num_neg": num_neg, "legacy": legacy}
            draw(CandidatesSettings(dataset="movielens", root=str(tmp_path), **knobs), workspace)
    summary = run(AuditSettings(dataset="movielens", root=str(tmp_path)), workspace)
    assert summary.passed
    assert amiss(summary) == LEGACY
    shared = [
        each for each in findings(summary) if each["check"] == kinds.SHARED_LISTS and each["verdict"] == "warning"
    ]
    assert [each["found"].split(",")[0] for each in shared] == ["4", "4"]
    assert "4,516 (74.8%) users meet negatives of their training list alone" in shared[0]["found"]
