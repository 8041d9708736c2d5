"""Drafts: whose they are, which can be used, and that their texts are read in passes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from shelves import DATASET, WINDOW, lines, make_shop

from mllmrec.data.sequences import Interactions, is_held_out
from mllmrec.errors import DataError
from mllmrec.reasoning.writing.pseudo_cot import run
from mllmrec.reasoning.writing.refine import Drafts
from mllmrec.settings.texts import PseudoCotSettings
from mllmrec.storage.workspace import Workspace, write_json

TRAIN = lines()


def reference_record(number: int, **changes: Any) -> dict[str, Any]:
    """A record as the reference implementation writes it: no example id, the physical line by number."""
    user, basket = list(TRAIN.items())[number]
    record = {
        "line_idx": number,
        "user_id": user,
        "target_item": {"item_id": basket[-1], "title": "t", "image_path": "images/x.jpg"},
        "history_items": [{"item_id": item, "title": "t"} for item in basket[-WINDOW:-1]],
        "reasoning": f"Draft of {user}.",
    }
    return record | changes


def drafts_of(workspace: Workspace, records: list[dict[str, Any]]) -> Drafts:
    path = workspace.dataset(DATASET).pseudo_cot
    write_json(path, records, indent=1)
    return Drafts(path, Interactions.load(workspace, DATASET))


def test_reference_records_are_joined_by_line_and_verified(tmp_path: Path) -> None:
    other = list(TRAIN)[2]
    drafts = drafts_of(
        make_shop(tmp_path),
        [
            reference_record(4),
            reference_record(1, line_idx=2),
            reference_record(1, user_id=other),
            reference_record(1, target_item={"item_id": "100"}),
            reference_record(3, reasoning=" "),
            reference_record(3, reasoning=None, error="timeout"),
            reference_record(4),
            reference_record(0),
        ],
    )
    assert [window.user_id for window in drafts.windows.values()] == [list(TRAIN)[4], next(iter(TRAIN))]
    assert [window.line_index for window in drafts.windows.values()] == [4, 0]
    assert drafts.counts == {"joined": 3, "mismatched": 3, "repeated": 2, "empty": 1}


def test_drafts_about_validation_users_are_left_out(tmp_path: Path) -> None:
    held_out = next(f"v{number}" for number in range(100) if is_held_out(f"v{number}"))
    workspace = make_shop(tmp_path, {**TRAIN, held_out: next(iter(TRAIN.values()))})
    drafts = drafts_of(workspace, [reference_record(0), reference_record(0, user_id=held_out, line_idx=24)])
    assert len(drafts.windows) == 1
    assert drafts.counts["of validation users"] == 1


def test_own_drafts_that_no_longer_fit_are_refused(tmp_path: Path) -> None:
    workspace = make_shop(tmp_path)
    run(PseudoCotSettings(dataset=DATASET, root=str(tmp_path), min_inter=WINDOW), workspace)
    path = workspace.dataset(DATASET).split("train")
    path.write_text(re.sub(r" \d+\n", " 407\n", path.read_text(encoding="utf-8"), count=3), encoding="utf-8")
    with pytest.raises(DataError, match=r"of its traces can't be joined to train.tsv"):
        Drafts(workspace.dataset(DATASET).pseudo_cot, Interactions.load(workspace, DATASET))


@pytest.mark.parametrize("records", [[], [reference_record(1, line_idx=2)], [reference_record(1, reasoning="")]])
def test_a_file_without_any_usable_draft_is_an_error(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    with pytest.raises(DataError, match="no draft in it can be used"):
        drafts_of(make_shop(tmp_path), records)


def test_texts_are_found_in_any_order_and_read_once_in_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mllmrec.data import traces

    drafts = drafts_of(make_shop(tmp_path), [reference_record(number) for number in range(12)])
    keys, passes = list(drafts.windows), 0
    real = traces.read_list

    def counted(path: Path) -> Any:
        nonlocal passes
        passes += 1
        return real(path)

    monkeypatch.setattr(traces, "read_list", counted)
    users = [drafts.windows[key].user_id for key in keys]
    assert [drafts.text(key) for key in keys] == [f"Draft of {user}." for user in users]
    assert passes == 1
    assert [drafts.text(key) for key in reversed(keys)] == [f"Draft of {user}." for user in reversed(users)]
    assert drafts.text(keys[5]) == drafts.text(keys[5])
    with pytest.raises(KeyError):
        drafts.text("unknown")
