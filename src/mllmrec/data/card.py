"""The data card: counts and shares of a dataset folder, from its files alone, and their table.

It reads train.tsv, valid.tsv and test.tsv (the last two may be absent) and the titles, so a folder that was never
made by `prepare` has a card too. `prepare` adds a section `import` with what only it can know.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import Any

from mllmrec.data.item_files import image_names
from mllmrec.data.sequences import PREPARE, Line, by_user, read_catalogue, read_lines
from mllmrec.records import Table
from mllmrec.storage.workspace import DatasetFiles, require

SPLITS = ("train", "valid", "test")


def card(files: DatasetFiles, *, window: int = 10) -> dict[str, Any]:
    """Counts and shares of a dataset, as plain JSON values. `window` is the min_inter at which windows are compared."""
    require(files.split("train"), "The training file", PREPARE)
    lines = {split: read_lines(files.split(split)) for split in SPLITS if files.split(split).exists()}
    catalogue = read_catalogue(require(files.titles, "The titles file", PREPARE))
    sequences = user_sequences(itertools.chain.from_iterable(lines.values()))
    seen = set(itertools.chain.from_iterable(sequences.values()))
    trained = set(itertools.chain.from_iterable(line.items for line in lines["train"]))
    every = seen.union(catalogue)
    titles = [item.title for item in catalogue.values() if item.title]
    num_interactions = sum(map(len, sequences.values()))
    num_repeats = num_interactions - sum(len(set(items)) for items in sequences.values())
    return {
        "dataset": files.name,
        "users": len(sequences),
        "items": len(seen),
        "catalogue": len(catalogue),
        "interactions": num_interactions,
        "lengths": lengths([len(items) for items in sequences.values()]),
        "repeats": _share(num_repeats, num_interactions),
        "splits": {split: _split_facts(rows) for split, rows in lines.items()},
        "window": window,
        "overlap": {
            f"{first}-{second}": overlap(lines[first], lines[second], window)
            for first, second in itertools.combinations(lines, 2)
        },
        "unseen_targets": {split: unseen_targets(rows, trained) for split, rows in lines.items() if split != "train"},
        "without_title": _share(len(every) - len(titles), len(every)),
        "shared_titles": len(titles) - len(set(titles)),
        **image_facts(files, every),
    }


def user_sequences(lines: Iterable[Line]) -> dict[str, list[str]]:
    """The items of each user, oldest first: the lines of all splits, joined where they overlap."""
    sequences: dict[str, list[str]] = {}
    for line in lines:
        sequences[line.user_id] = overlaid(sequences.get(line.user_id, []), line.items)
    return sequences


def overlaid(earlier: list[str], later: Sequence[str]) -> list[str]:
    """`earlier` continued by `later`, of which the part that `earlier` ends with counts once.

    >>> overlaid(["a", "b", "c"], ["a", "b", "c", "d"])
    ['a', 'b', 'c', 'd']
    >>> overlaid(["a", "b", "c"], ["b", "c", "d"])
    ['a', 'b', 'c', 'd']
    >>> overlaid(["a"], ["b"])
    ['a', 'b']
    """
    later = list(later)
    for start in range(max(0, len(earlier) - len(later)), len(earlier)):
        if earlier[start] == later[0] and earlier[start:] == later[: len(earlier) - start]:
            return earlier[:start] + later
    return earlier + later


def overlap(first: Sequence[Line], second: Sequence[Line], window: int) -> dict[str, int]:
    """What two splits share: users, equal last windows, and targets of `second` that the user's `first` lines hold."""
    users = by_user(first)
    windows = {(line.user_id, line.items[-window:]) for line in first if len(line.items) >= window}
    return {
        "users": len(users.keys() & {line.user_id for line in second}),
        "windows": len(windows.intersection((line.user_id, line.items[-window:]) for line in second)),
        "known_targets": sum(
            any(line.items[-1] in earlier.items for earlier in users.get(line.user_id, ())) for line in second
        ),
    }


def unseen_targets(lines: Sequence[Line], trained: Set[str]) -> dict[str, Any]:
    """Targets that no train line holds: how many items, and on how many lines."""
    unseen = [line.items[-1] for line in lines if line.items[-1] not in trained]
    return {"items": len(set(unseen)), "lines": _share(len(unseen), len(lines))}


def image_facts(files: DatasetFiles, items: Collection[str]) -> dict[str, Any]:
    """Items for which images/ has no picture by their id, and pictures there that are of no item."""
    names, known = image_names(files.images), set(items)
    of_items = {name for item, name in names.items() if item in known}
    return {
        "without_image": _share(len(known.difference(names)), len(known)),
        "images_of_no_item": len(set(names.values()) - of_items),
    }


def lengths(values: Sequence[int]) -> dict[str, float]:
    """Shortest, median, mean and longest."""
    return {
        "min": min(values),
        "median": statistics.median(values),
        "mean": round(statistics.fmean(values), 2),
        "max": max(values),
    }


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


def _split_facts(lines: Sequence[Line]) -> dict[str, Any]:
    return {
        "lines": len(lines),
        "users": len({line.user_id for line in lines}),
        "lengths": lengths([len(line.items) for line in lines]),
    }


def _share(count: int, total: int) -> dict[str, Any]:
    return {"count": count, "share": _rounded(count, total)}


def _rounded(count: int, total: int) -> float:
    return round(count / total, 6) if total else 0.0


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
