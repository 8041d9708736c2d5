"""The data card: what a dataset folder holds, counted from its files alone.

It reads train.tsv, valid.tsv and test.tsv (the last two may be absent) and the titles, so a folder that was never
made by `prepare` has a card too. `prepare` adds a section `import` with what only it can know.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Collection, Iterable, Sequence, Set
from typing import Any

from mllmrec.artifacts import Workspace, require
from mllmrec.data.images_folder import image_names
from mllmrec.data.sequences import PREPARE, Line, by_user, read_catalogue, read_lines

SPLITS = ("train", "valid", "test")


def card(workspace: Workspace, dataset: str, *, window: int = 10) -> dict[str, Any]:
    """Counts and shares of a dataset, as plain JSON values. `window` is the min_inter at which windows are compared."""
    require(workspace.split(dataset, "train"), "The training file", PREPARE)
    lines = {
        split: read_lines(workspace.split(dataset, split))
        for split in SPLITS
        if workspace.split(dataset, split).exists()
    }
    catalogue = read_catalogue(require(workspace.titles(dataset), "The titles file", PREPARE))
    sequences = user_sequences(itertools.chain.from_iterable(lines.values()))
    seen = set(itertools.chain.from_iterable(sequences.values()))
    trained = set(itertools.chain.from_iterable(line.items for line in lines["train"]))
    every = seen.union(catalogue)
    titles = [item.title for item in catalogue.values() if item.title]
    num_interactions = sum(map(len, sequences.values()))
    num_repeats = num_interactions - sum(len(set(items)) for items in sequences.values())
    return {
        "dataset": dataset,
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
        **image_facts(workspace, dataset, every),
    }


def user_sequences(lines: Iterable[Line]) -> dict[str, list[str]]:
    """What is known of each user, oldest first: the lines of all splits, laid over one another where they overlap."""
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
    """Targets that are none of the items on train lines: how many items, and on how many lines."""
    unseen = [line.items[-1] for line in lines if line.items[-1] not in trained]
    return {"items": len(set(unseen)), "lines": _share(len(unseen), len(lines))}


def image_facts(workspace: Workspace, dataset: str, items: Collection[str]) -> dict[str, Any]:
    """Items for which images/ has no picture by their id, and pictures there that are of no item."""
    names, known = image_names(workspace.images(dataset)), set(items)
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
