"""Candidate lists that others published come in, fitted to the dataset, with their weaknesses told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from workspaces import titles_csv, tsv, write_dataset

from mllmrec import ArtifactError, DataError, SettingsError, Workspace
from mllmrec.cli.main import main
from mllmrec.data.auditing.stage import run as audit
from mllmrec.data.candidates.drawing import read_candidates
from mllmrec.data.candidates.stage import run
from mllmrec.data.raw_ids import RawIds
from mllmrec.evaluation.baselines.stage import run as baselines
from mllmrec.evaluation.ranking.runs import read_run
from mllmrec.records import RankingExample, Summary, example_id
from mllmrec.settings.base import validated
from mllmrec.settings.data import AuditSettings, CandidatesSettings
from mllmrec.settings.evaluation import BaselinesSettings
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import write_text

ITEMS = [str(number) for number in range(1, 31)]
LINES = {"7": ["1", "2", "3", "4"], "8": ["5", "6", "7", "8"], "9": ["2", "9", "10", "11"]}
"""Test lines of three users: targets 4, 8 and 11 after the histories 2 3, 6 7 and 9 10."""
NEGATIVES = {"7": ["20", "21", "22"], "8": ["23", "24", "25"], "9": ["26", "27", "28"]}
TARGETS = {user: items[-1] for user, items in LINES.items()}


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    train = {user: items[:-1] for user, items in LINES.items()}
    return write_dataset(tmp_path, "shop", titles_csv(ITEMS), train=tsv(train), test=tsv(LINES))


def settings_of(workspace: Workspace, file: Path, **more: Any) -> CandidatesSettings:
    values = {"dataset": "shop", "root": str(workspace.root), "import_": str(file), "min_inter": 3, **more}
    return validated(CandidatesSettings, values, "test")


def imported(
    workspace: Workspace, text: str, name: str = "lists.txt", **more: Any
) -> tuple[list[RankingExample], Summary]:
    file = workspace.root / name
    file.write_text(text, encoding="utf-8")
    summary = run(settings_of(workspace, file, **more), workspace)
    assert summary.artifact is not None
    return read_candidates(summary.artifact), summary


def sets_of(examples: Sequence[RankingExample]) -> dict[str, set[str]]:
    return {example.user_id: set(example.candidates) for example in examples}


WITH_TARGETS = {user: {*items, TARGETS[user]} for user, items in NEGATIVES.items()}
ROWS = [(user, items, TARGETS[user]) for user, items in NEGATIVES.items()]
FORMS = {
    "S3-Rec": "".join(f"{user} {' '.join(items)}\n" for user, items, _ in ROWS),
    "LLMRank": "".join(f"{user}\t{' '.join([*items, target])}\n" for user, items, target in ROWS),
    "RecBole": "user_id:token\titem_id:token\tneg_items:token_seq\n"
    + "".join(f"{user}\t{target}\t{' '.join(items)}\n" for user, items, target in ROWS),
    "commas": "user,candidates,target\n"
    + "".join(f'{user},"{",".join([target, *items])}",{target}\n' for user, items, target in ROWS),
    "a row for each": "user_id\titem_id\tlabel\n"
    + "".join(f"{user}\t{item}\t{int(item == target)}\n" for user, items, target in ROWS for item in [target, *items]),
    "JSON lines": "".join(
        json.dumps({"user": int(user), "negatives": list(map(int, items)), "target": int(target)}) + "\n"
        for user, items, target in ROWS
    ),
    "JSON array": json.dumps(
        [
            {"user_id": user, "candidates": [*items, target], "history": LINES[user][:-1]}
            for user, items, target in ROWS
        ],
        indent=1,
    ),
    "Python lists": "".join(f"{user}\t{items}\n" for user, items, _ in ROWS),
    "JSON lists after a comma": "".join(f"{user},[{', '.join(items)}]\n" for user, items, _ in ROWS),
    "tuples": "user;negatives\n" + "".join(f"{user};({', '.join(items)})\n" for user, items, _ in ROWS),
    "both lists": "".join(
        json.dumps({"user": user, "candidates": [target, *items], "negatives": items}) + "\n"
        for user, items, target in ROWS
    ),
    "labels true and false": "".join(
        json.dumps({"user": user, "item": item, "label": item == target}) + "\n"
        for user, items, target in ROWS
        for item in [target, *items]
    ),
    "JSON object": json.dumps({user: list(map(int, items)) for user, items, _ in ROWS}, indent=1),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_lists(shop: Workspace, form: str) -> None:
    examples, summary = imported(shop, FORMS[form])
    assert sets_of(examples) == WITH_TARGETS
    for example in examples:
        *_, second, last, target = LINES[example.user_id]
        assert (example.history, example.target_id, example.split) == ((second, last), target, "test")
        assert example.example_id == example_id(example.user_id, target, example.history)
    assert not summary.warnings
    assert summary.artifact == shop.dataset("shop").candidates("test", "foreign-lists", 3, 42)


def test_the_order_hangs_on_the_seed_alone(shop: Workspace) -> None:
    first, _ = imported(shop, FORMS["S3-Rec"], "one.txt")
    turned = "".join(f"{user} {' '.join(reversed(items))}\n" for user, items, _ in reversed(ROWS))
    second, _ = imported(shop, FORMS["LLMRank"], "two.txt")
    third, _ = imported(shop, turned, "three.txt", seed=1)
    assert {tuple(sorted(each.candidates)) for each in first} == {tuple(sorted(each.candidates)) for each in third}
    places = [[each.candidates.index(each.target_id) for each in lists] for lists in (first, second, third)]
    assert any(place != [3, 3, 3] for place in places)
    again, _ = imported(shop, FORMS["S3-Rec"], "four.txt")
    assert again == first


def test_lists_of_a_retriever_may_lack_their_target(shop: Workspace) -> None:
    text = FORMS["LLMRank"].replace(" 8\n", " 29\n")
    with pytest.raises(
        DataError, match=r"2 of 3 lists hold their target.*--import-targets listed.*--import-targets added"
    ):
        imported(shop, text)
    examples, summary = imported(shop, text, import_targets="listed")
    assert sets_of(examples) == WITH_TARGETS | {"8": {"23", "24", "25", "29"}}
    assert summary.warnings == ("1 (33.3%) lists lack their target, which counts as missed.",)
    added, _ = imported(shop, text, "more.txt", import_targets="added")
    assert sets_of(added)["8"] == {"23", "24", "25", "29", "8"}


def test_what_is_weak_or_left_out_is_counted_and_told(shop: Workspace) -> None:
    text = "7 20 20 3 nowhere\n8 23 24 25\n9 26 27 28\n9 20 21 22\nstranger 1 2 3\n"
    examples, summary = imported(shop, text)
    assert sets_of(examples) == WITH_TARGETS | {"7": {"20", "3", "4"}}
    assert [warning.split(" ", 1)[0] for warning in summary.warnings] == ["1", "1", "1", "1", "1"]
    told = " ".join(summary.warnings)
    for words in (
        "users without a line",
        "has one already",
        "stood in their list twice",
        "neither titles nor",
        "(33.3%)",
    ):
        assert words in told
    counts = Manifest.read(shop.dataset("shop").candidates("test", "foreign-lists", 3, 42)).counts  # type: ignore[union-attr]
    assert counts["holding_known_items"] == counts["unknown_items"] == 1
    assert (counts["shortest"], counts["longest"]) == (3, 4)


def test_items_without_a_title_are_told(tmp_path: Path) -> None:
    lines = LINES | {"10": ["1", "2", "3", "99"]}
    train = {user: items[:-1] for user, items in lines.items()}
    workspace = write_dataset(tmp_path, "shop", titles_csv(ITEMS), train=tsv(train), test=tsv(lines))
    examples, summary = imported(workspace, FORMS["S3-Rec"].replace("25", "99"))
    assert "99" in sets_of(examples)["8"]
    assert "1 items have no title" in " ".join(summary.warnings)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("7,candidates\n", "no list"),
        ("7\n", "no list: '7'"),
        ("user,movies\n7,1 2\n", "no candidates, negatives or item among the columns"),
        ("user,candidates,target\n7,20 21,5\n", r":2: user 7 has target 5; the dataset's lines have 2 3 -> 4"),
        ('{"user": 7, "candidates": [20, 21], "history": [1, 9]}\n', "a history ending in 1 9"),
        ("x1 20 21\nx2 20 21\n7 20 21\n", "most of its users are unknown to the dataset, such as x1"),
        ("7 a b c\n8 d e f\n", "most of its items are unknown to the dataset, such as a"),
        ('{"user": 7, "candidates": 20}\n', "not a list of ids"),
        ('{"user": 7.5, "candidates": [20, 21]}\n', "7.5 is no id"),
        ("user,item,label\n7,20,1\n7,21,1\n", "user 7 has a second target, 21"),
        ("user,item,label\n7,20,1.0\n7,21,0.0\n", "user 7 has target 20"),
        ("user,item,label\n7,20,TRUE\n7,21,FALSE\n", "user 7 has target 20"),
        ("user,item,label\n7,20,0\n7,4,5\n", ":3: the label is '5'. Expected 1 for the target and 0"),
        ("user,item,target\n7,20,21\n7,21,21\n", "user 7 has target 21"),
        ("user,item,target\n7,20,0\n7,4,1\n", "second target, 1. .*call a column of 0 and 1 label"),
        ('7,"20 21 22"\n', ":1: the items are quoted or in brackets"),
        ("user;negatives\n7;{20, 21, 22}\n", ":2: the items are quoted or in brackets"),
        ("user,negatives\n7,[20 21 22]\n", ":2: not a list"),
        ("7\t1 2 3\t20 21 22\n", r":1: the items are separated in several ways \('\\t', ' '\), as columns are"),
        ("user|history|negatives\n7|1 2 3|20 21 22\n", ":1: 'user|history|negatives' looks like a header"),
        ("7 20 21\r8 23 24\r9 26 27\r", "its lines end in carriage returns alone"),
        ('{"user": 7, "items": [2, 3], "negatives": [20, 21]}\n', ":1: items lacks 20, which is one of negatives"),
        ('{"7": [20, 21], "8": [23, 24], "7": [26, 27]}', "user 7 has two lists"),
        ("{7: [20, 21], 8: [23, 24]}", ":1: not a JSON object"),
    ],
)
def test_what_does_not_fit_is_named(shop: Workspace, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        imported(shop, text)
    assert not shop.dataset("shop").processed.exists() or not list(shop.dataset("shop").processed.glob("*.jsonl"))


def test_settings_that_do_not_go_together(shop: Workspace) -> None:
    with pytest.raises(SettingsError, match="num_neg can only be set where lists are drawn"):
        settings_of(shop, Path("x"), num_neg=5)
    with pytest.raises(SettingsError, match="import_first can only be set with --import"):
        settings_of(shop, Path(), import_=None or "", import_first=3)
    with pytest.raises(SettingsError, match="small letters"):
        settings_of(shop, Path("x"), import_name="My Lists")
    with pytest.raises(ArtifactError, match="is no file"):
        run(settings_of(shop, shop.root / "absent"), shop)


def test_the_first_items_of_each_list(shop: Workspace) -> None:
    examples, _ = imported(shop, FORMS["S3-Rec"], import_first=2, import_name="llmrank20")
    assert sets_of(examples) == {user: {*items[:2], TARGETS[user]} for user, items in NEGATIVES.items()}
    assert shop.dataset("shop").candidates("test", "foreign-llmrank20", 3, 42).exists()


def test_raw_ids_are_mapped(shop: Workspace) -> None:
    RawIds(users={"7": "user/7"}, items={"20": "item 20!"}).write(shop.dataset("shop").raw_ids)
    rows = [
        {
            "user": "user/7" if user == "7" else user,
            "negatives": ["item 20!" if item == "20" else item for item in items],
        }
        for user, items, _ in ROWS
    ]
    examples, _ = imported(shop, "".join(json.dumps(row) + "\n" for row in rows))
    assert sets_of(examples) == WITH_TARGETS


def test_figures_on_imported_lists_bear_their_name_and_the_audit_passes(shop: Workspace) -> None:
    text = FORMS["S3-Rec"].replace("7 20", "7 3")
    _, summary = imported(shop, text, "S3_Rec.txt")
    assert [warning.split(" lists ")[0] for warning in summary.warnings] == ["1 (33.3%)"]
    path = shop.dataset("shop").candidates("test", "foreign-s3-rec", 3, 42)
    root = str(shop.root)
    baselines(
        BaselinesSettings(dataset="shop", root=root, candidates=str(path), names=("popularity",), min_inter=3), shop
    )
    facts = read_run(shop.dataset("shop").run("popularity", path.stem)).facts
    assert facts["protocol"] == "foreign-s3-rec"
    found = audit(AuditSettings(dataset="shop", root=root, min_inter=3), shop)
    assert found.passed
    consumed = [row for row in found.facts["findings"] if row["check"] == "negatives the user consumed"]
    assert [row["verdict"] for row in consumed] == ["warning"]


def test_on_the_command_line(shop: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    file = shop.root / "Beauty_sample.txt"
    write_text(file, FORMS["S3-Rec"])
    command = ["candidates", "--dataset", "shop", "--root", str(shop.root), "--min-inter", "3", "--import", str(file)]
    with pytest.raises(SystemExit, match="0"):
        main(command)
    told = capsys.readouterr().out
    assert "3 imported lists of 4 candidates (foreign-beauty-sample)" in told
    assert "3 targets were added, because the lists came without theirs" in " ".join(told.split())
    with pytest.raises(SystemExit, match="0"):
        main(command)
    assert "nothing to do" in capsys.readouterr().out


def test_a_changed_file_is_imported_anew_only_when_told_to(shop: Workspace) -> None:
    imported(shop, FORMS["S3-Rec"])
    with pytest.raises(ArtifactError, match="imported"):
        imported(shop, FORMS["S3-Rec"].replace("28", "29"))
    examples, _ = imported(shop, FORMS["S3-Rec"].replace("28", "29"), overwrite=True)
    assert "29" in sets_of(examples)["9"]
