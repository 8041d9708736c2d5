"""The data card as a table for a reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mllmrec.records import Table


def table(facts: Mapping[str, Any]) -> Table:
    """The card for a reader."""
    rows = [
        ("users", _count(facts["users"])),
        ("items on lines / in the titles file", f"{_count(facts['items'])} / {_count(facts['catalogue'])}"),
        ("interactions", _count(facts["interactions"])),
        ("sequence length", _spread(facts["lengths"])),
        ("repeats", _part(facts["repeats"])),
    ]
    for split, figures in facts["splits"].items():
        rows.append((f"{split} lines", f"{_count(figures['lines'])}, length {_spread(figures['lengths'])}"))
    for pair, shared in facts["overlap"].items():
        text = f"{_count(shared['users'])} users, {_count(shared['windows'])} windows of {facts['window']}"
        rows.append((f"shared by {pair}", f"{text}, {_count(shared['known_targets'])} targets known before"))
    for split, unseen in facts["unseen_targets"].items():
        text = f"{_count(unseen['items'])} items on {_part(unseen['lines'])} lines"
        rows.append((f"{split} targets unseen in train", text))
    rows.append(("items without title", _part(facts["without_title"])))
    rows.append(("titles shared by several items", _count(facts["shared_titles"])))
    rows.append(("items without image", _part(facts["without_image"])))
    if facts.get("images_of_no_item"):
        rows.append(("image files of no item", _count(facts["images_of_no_item"])))
    rows += _import_rows(facts["import"]) if "import" in facts else []
    return Table(
        title=f"Data card of {facts['dataset']}", columns=("figure", "value"), rows=tuple(rows), justify="left"
    )


def _import_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    core, ties = facts.get("k_core"), facts["ties"]
    rows = [
        ("source", f"{facts['source']}: {', '.join(facts['files'])}"),
        ("split", f"{facts['split']}: {facts['rule']}"),
        ("rows read", _count(facts["rows_read"])),
        *((f"rows left out: {reason}", _count(count)) for reason, count in facts.get("left_out", {}).items()),
        ("exact duplicates removed", _count(facts["duplicates_removed"])),
        ("repeats dropped", _count(facts["repeats_dropped"])),
        ("duplicate title rows", _count(facts["duplicate_title_rows"])),
    ]
    if core:
        removed = f"{_count(core['users_removed'])} users, {_count(core['items_removed'])} items"
        rows.append((f"{core['k']}-core removed", f"{removed}, {_count(core['interactions_removed'])} interactions"))
    for reason, count in facts["dropped_users"].items():
        rows.append(("users dropped", f"{_count(count)}: {reason}"))
    if facts["interactions_after_last_target"]:
        rows.append(("interactions after a user's last target", _count(facts["interactions_after_last_target"])))
    if ties is None:
        rows.append(("tied timestamps", "unknown: the source gives an order and no timestamps"))
    else:
        rows.append(("interactions at a tied timestamp", _part(ties["interactions"])))
        rows.append(("users whose last timestamp is tied", _part(ties["users_last"])))
    return rows


def _count(value: int) -> str:
    return f"{value:,}"


def _part(part: Mapping[str, Any]) -> str:
    return f"{part['count']:,} ({part['share']:.1%})"


def _spread(lengths: Mapping[str, float]) -> str:
    return " / ".join(f"{lengths[name]:,g}" for name in ("min", "median", "mean", "max")) + " (min/median/mean/max)"
