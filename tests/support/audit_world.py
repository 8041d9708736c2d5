"""A clean little shop with everything an audit reads, into which tests plant one leak at a time."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workspaces import tsv, write_dataset

from mllmrec import Workspace
from mllmrec.data.auditing import findings as kinds
from mllmrec.data.auditing.stage import run
from mllmrec.data.candidates.stage import run as draw
from mllmrec.records import Summary, example_id
from mllmrec.settings.data import AuditSettings, CandidatesSettings
from mllmrec.storage.workspace import read_json, read_jsonl, write_json, write_text

NAME, WINDOW, NUM_USERS, NUM_ITEMS = "shop", 4, 300, 90
ADJECTIVES = ("Copper", "Silent", "Crooked", "Marble", "Paper", "Velvet", "Hollow", "Amber", "Winding", "Frozen")
NOUNS = ("Kettle", "Harbour", "Ladder", "Compass", "Orchard", "Lantern", "Anvil", "Teapot", "Violin")
ITEMS = {
    f"i{number}": f"{ADJECTIVES[number % 10]} {NOUNS[number // 10]} ({1950 + number})" for number in range(NUM_ITEMS)
}

Rows = list[dict[str, Any]]


def sequences(seed: int = 0) -> dict[str, list[str]]:
    """Nine items of each user, none twice."""
    rng = random.Random(seed)
    return {f"u{number}": rng.sample(list(ITEMS), 9) for number in range(NUM_USERS)}


def make_world(root: Path, *, valid: bool = True) -> Workspace:
    """Leave-one-out splits, captions, three reasoning files, and candidates of train and test, ours and legacy."""
    chosen = sequences()
    parts = {"train": slice(-2), "test": slice(None)} | ({"valid": slice(-1)} if valid else {})
    titles = "item,title\n" + "".join(f"{item},{title}\n" for item, title in ITEMS.items())
    files = {split: tsv({user: items[part] for user, items in chosen.items()}) for split, part in parts.items()}
    workspace = write_dataset(root, NAME, titles, **files)
    write_json(
        workspace.dataset(NAME).captions,
        {
            item: {"title": title, "caption": f"A blue thing with {number % 7} round handles on a table"}
            for number, (item, title) in enumerate(ITEMS.items())
        },
    )
    traces = [trace(user, items[-2 - WINDOW : -2], number) for number, (user, items) in enumerate(chosen.items())]
    write_json(workspace.dataset(NAME).pseudo_cot, traces)
    write_json(workspace.dataset(NAME).refined_cot, traces)
    write_json(workspace.dataset(NAME).assessed_cot, [{**row, "keep": True, "confidence": 0.5} for row in traces])
    for split in ("train", "test"):
        for legacy in (False, True):
            settings = CandidatesSettings(
                dataset=NAME, root=str(root), split=split, num_neg=9, min_inter=WINDOW, legacy=legacy
            )
            draw(settings, workspace)
    return workspace


def trace(user: str, window: list[str], line: int, reasoning: str = "", **more: Any) -> dict[str, Any]:
    """A record as `pseudo-cot` writes it; its words name the history alone."""
    *history, target = window
    named = " and ".join(ITEMS[item] for item in history[-2:])
    return {
        "line_idx": line,
        "user_id": user,
        "history_items": [{"item_id": item, "title": ITEMS[item]} for item in history],
        "target_item": {"item_id": target, "title": ITEMS[target]},
        "reasoning": reasoning
        or f"Step 1: the user {user} came back from {named}.\nStep 2: old things made by hand.\n"
        "Step 3: look for metal, wood and glass.\nStep 4: something sturdy.",
        "example_id": example_id(user, target, history),
        "writer": "profile",
        "answer_conditioned": False,
        **more,
    }


def reference_record(record: dict[str, Any]) -> dict[str, Any]:
    """The same record without our keys."""
    return {key: record[key] for key in ("line_idx", "user_id", "history_items", "target_item", "reasoning")}


def audit(workspace: Workspace) -> Summary:
    return run(AuditSettings(dataset=NAME, root=str(workspace.root), min_inter=WINDOW), workspace)


def amiss(summary: Summary) -> set[tuple[str, str]]:
    """(check, verdict) of everything that isn't in order, but for lists that aren't those of their draw.

    Whatever is planted in splits or lists changes what would be drawn; tests of that ask `drawn_otherwise`.
    """
    return {
        (finding["check"], finding["verdict"])
        for finding in findings(summary)
        if finding["verdict"] not in ("ok", "not checked") and finding["check"] != kinds.DRAW
    }


def planted(workspace: Workspace) -> set[tuple[str, str]]:
    """What is amiss in a workspace; the summary says whether that is a failure."""
    summary = audit(workspace)
    found = amiss(summary)
    failing = any(verdict in ("leak", "wrong") for _, verdict in found) or drawn_otherwise(summary)
    assert summary.passed == (not failing)
    return found


def drawn_otherwise(summary: Summary) -> dict[str, str]:
    """What was found on each file whose lists aren't those of its draw."""
    return {
        finding["where"]: finding["found"]
        for finding in findings(summary)
        if finding["check"] == kinds.DRAW and finding["verdict"] == "wrong"
    }


def findings(summary: Summary) -> list[dict[str, Any]]:
    found = summary.facts["findings"]
    assert isinstance(found, list)
    return found


def change_lines(path: Path, change: Callable[[list[str]], None]) -> None:
    """Edit the lines of a split file in place."""
    lines = path.read_text(encoding="utf-8").splitlines()
    change(lines)
    write_text(path, "\n".join(lines) + "\n")


def change_rows(path: Path, change: Callable[[Rows], None]) -> None:
    """Edit the rows of a candidate file or of a reasoning file in place; its manifest goes."""
    rows = list(read_jsonl(path)) if path.suffix == ".jsonl" else read_json(path)
    change(rows)
    write_text(path, "".join(f"{json.dumps(row)}\n" for row in rows) if path.suffix == ".jsonl" else json.dumps(rows))
    path.with_name(f"{path.name}.manifest.json").unlink(missing_ok=True)
