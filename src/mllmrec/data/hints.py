"""Which training examples carry a hint, and what it says.

A hint is a trace from the dataset's reasoning files, shown in the user's turn. Traces join by example id; records of
the reference implementation hold a line number instead, which is resolved to the physical line and verified by user,
history and target. What doesn't fit is counted and never used.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mllmrec.artifacts import Workspace, read_json
from mllmrec.data.draws import uniform
from mllmrec.data.sequences import Catalogue, Line, windows
from mllmrec.errors import ArtifactError, DataError
from mllmrec.records import RankingExample, example_id


def draw_hints(
    examples: Sequence[RankingExample], traces: Mapping[str, str], share: float, seed: int
) -> dict[str, str]:
    """example_id -> reasoning for round(share x all examples) of them, the same in every epoch.

    They are the ones with the smallest hash among those that have a trace; there are fewer when traces are short.
    """
    wanted = round(share * len(examples))
    eligible = [example.example_id for example in examples if example.example_id in traces]
    chosen = sorted(eligible, key=lambda key: uniform(seed, "hint", key))[:wanted]
    return {key: traces[key] for key in chosen}


def read_traces(
    workspace: Workspace, dataset: str, train: Sequence[Line], catalogue: Catalogue, window: int
) -> tuple[dict[str, str], dict[str, int], Path]:
    """Usable traces by example id, the count of each reason for leaving one out, and the file they came from.

    The assessed file is preferred (kept traces only), then the refined one, then the first draft.
    """
    for path in (workspace.assessed_cot(dataset), workspace.refined_cot(dataset), workspace.pseudo_cot(dataset)):
        if path.exists():
            traces, counts = join_traces(read_json(path), path, train, catalogue, window)
            return traces, counts, path
    raise ArtifactError(
        f"--use-cot needs reasoning traces, and {workspace.refined_cot(dataset)} does not exist. Write them with "
        "`mllmrec pseudo-cot` and `mllmrec refine`, or leave --use-cot out."
    )


def join_traces(
    records: Any, path: Path, train: Sequence[Line], catalogue: Catalogue, window: int
) -> tuple[dict[str, str], dict[str, int]]:
    """Traces that belong to a window of `train`, by example id, and counts of those that don't, by reason.

    A trace that spells its own target (the reference's refiner was shown it) is `leaking` and never used.
    """
    if not isinstance(records, list):
        raise DataError(f"{path}: expected a JSON list of records, found {type(records).__name__}.")
    physical, by_user = {line.line_index: line for line in train}, defaultdict[str, list[Line]](list)
    for line in train:
        by_user[line.user_id].append(line)
    traces: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for record in records:
        key = _own_key(record, physical, by_user, window) if isinstance(record, dict) else None
        reasoning = str(record.get("reasoning") or "").strip() if key is not None else ""
        if key is None:
            counts["mismatched"] += 1
        elif not reasoning:
            counts["empty"] += 1
        elif record.get("keep") is False:
            counts["rejected"] += 1
        elif _spells(reasoning, _ids([record["target_item"]])[0], catalogue):
            counts["leaking"] += 1
        elif key in traces:
            counts["repeated"] += 1
        else:
            counts["joined"] += 1
            traces[key] = reasoning
    return traces, dict(counts)


def _spells(reasoning: str, target_id: str, catalogue: Catalogue) -> bool:
    """Whether a trace names its target, by `[ITEM_<id>]` or by its title (a year in brackets put aside)."""
    title = re.sub(r"\s*\(\d{4}\)$", "", catalogue.title(target_id)).casefold()
    return f"[ITEM_{target_id}]" in reasoning or (
        re.search(rf"(?<!\w){re.escape(title)}(?!\w)", reasoning.casefold()) is not None
    )


def _own_key(
    record: Mapping[str, Any], physical: Mapping[int, Line], by_user: Mapping[str, Sequence[Line]], window: int
) -> str | None:
    """The example id of the train window a record was written for; None when it fits none.

    A record with an example id of its own may fit any line of its user, one without only the line it names.
    """
    user_id, number = str(record.get("user_id")), record.get("line_idx")
    history, target = _ids(record.get("history_items")), _ids([record.get("target_item")])
    if len(target) != 1:
        return None
    span, key = (*history, *target), example_id(user_id, target[0], history)
    if "example_id" in record:
        lines = by_user.get(user_id, ()) if record["example_id"] == key else ()
    else:
        line = physical.get(number) if isinstance(number, int) else None
        lines = [line] if line is not None and line.user_id == user_id else []
    return key if any(span in windows(line.items, window, "all") for line in lines) else None


def _ids(items: Any) -> tuple[str, ...]:
    """Item ids of the reference's {item_id, ...} objects, or of plain ids."""
    return tuple(
        str(item["item_id"] if isinstance(item, dict) and "item_id" in item else item)
        for item in (items if isinstance(items, list) else [])
        if item is not None
    )
