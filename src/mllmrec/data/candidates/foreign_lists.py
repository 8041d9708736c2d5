"""Lists that others made, fitted to a dataset: `candidates --import`.

Each list becomes one for the window that ends a line of its user, so that history, target and example id are the
dataset's. Its items are the file's, each once, in an order drawn anew from the seed, because files often have the
target at one position. A file rarely says whether a target belongs to its list:

    every list holds its target       the lists are complete
    no list holds it                  they are negatives, and the target joins each
    some do                           the user decides, with --import-targets
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from mllmrec.data.candidates.drawing import questions
from mllmrec.data.candidates.foreign_files import ForeignList, read_foreign_lists
from mllmrec.data.candidates.negatives import Draw, ordered
from mllmrec.data.raw_ids import RawIds
from mllmrec.data.sequences import Interactions
from mllmrec.errors import DataError
from mllmrec.records import RankingExample
from mllmrec.settings.data import CandidatesSettings
from mllmrec.storage.workspace import Workspace

Targets = Literal["listed", "added"]
MOSTLY = 0.5
"""The share of items, or of users, that may be unknown before a file counts as one in other ids."""


def foreign_examples(
    settings: CandidatesSettings, workspace: Workspace, interactions: Interactions
) -> tuple[list[RankingExample], dict[str, int]]:
    """The lists of --import as examples of a split, and counts of what was left out of them or is weak.

    Raises DataError where the file is in other ids, has other targets or histories than the dataset, or leaves open
    whether targets belong to its lists.
    """
    path, split = Path(settings.import_).expanduser(), settings.split
    asked, counts = questions(interactions.lines(split), split, settings.min_inter)
    lists = read_foreign_lists(path)
    if settings.import_first:
        lists = [replace(own, items=own.items[: settings.import_first]) for own in lists]
    lists = in_dataset_ids(lists, RawIds.read(workspace.dataset(settings.dataset).raw_ids))
    by_user: dict[str, list[RankingExample]] = {}
    for example in asked:
        by_user.setdefault(example.user_id, []).append(example)
    fitting = [own for own in lists if own.user in by_user]
    counts |= {"lists": len(lists), "without_line": len(lists) - len(fitting)}
    if len(fitting) < MOSTLY * len(lists):
        raise _other_ids(path, "users", next(own.user for own in lists if own.user not in by_user), min(by_user))
    pairs = [(own, _example(own, by_user[own.user])) for own in fitting]
    shortened, more = _known_items(pairs, interactions, path)
    counts |= more
    chosen = _targets(settings, shortened, path)
    counts["targets_added"] = sum(len(items) for _, items in chosen) - sum(len(own.items) for own, _ in shortened)
    examples: dict[str, RankingExample] = {}
    for example, items in chosen:
        order = ordered(items, Draw(settings.seed, f"import/{split}", example.example_id))
        examples.setdefault(example.example_id, replace(example, candidates=tuple(order)))
    counts |= {"repeated_lists": len(chosen) - len(examples)} | _weaknesses(list(examples.values()), interactions)
    return list(examples.values()), counts


def in_dataset_ids(lists: Sequence[ForeignList], raw: RawIds) -> list[ForeignList]:
    """The same lists in the ids of the dataset, where those differ from the raw ones of the file.

    An id that the dataset has as its own stays.
    """
    if not (raw.users or raw.items):
        return list(lists)
    users, items = _by_raw(raw.users), _by_raw(raw.items)
    return [
        replace(
            own,
            user=users.get(own.user, own.user),
            items=tuple(items.get(item, item) for item in own.items),
            target=None if own.target is None else items.get(own.target, own.target),
            history=None if own.history is None else tuple(items.get(item, item) for item in own.history),
        )
        for own in lists
    ]


def _by_raw(raw: Mapping[str, str]) -> dict[str, str]:
    return {name: own for own, name in raw.items()}


def _example(own: ForeignList, asked: Sequence[RankingExample]) -> RankingExample:
    """The user's example that a list belongs to. Raises DataError where none fits, or several."""
    fitting = [example for example in asked if own.target in (None, example.target_id)]
    if own.history is not None:
        fitting = [example for example in fitting if _ends_alike(own.history, example.history)]
    if len(fitting) == 1:
        return fitting[0]
    lines = ", ".join(f"{' '.join(example.history[-3:])} -> {example.target_id}" for example in asked[:3])
    stated = f"target {own.target}" if own.target is not None else "no target"
    stated += f" and a history ending in {' '.join(own.history[-3:])}" if own.history is not None else ""
    if not fitting:
        raise DataError(
            f"{own.where}: user {own.user} has {stated}; the dataset's lines have {lines}. Expected lists made on the "
            "same split. Import the data that the lists were made on, or choose the right --split."
        )
    raise DataError(
        f"{own.where}: user {own.user} has {len(fitting)} lines that fit ({lines}). Expected a list that tells its "
        "target or its history, to be told apart by."
    )


def _ends_alike(history: Sequence[str], own: Sequence[str]) -> bool:
    common = min(len(history), len(own))
    return common == 0 or tuple(history[-common:]) == tuple(own[-common:])


def _known_items(
    pairs: Sequence[tuple[ForeignList, RankingExample]], interactions: Interactions, path: Path
) -> tuple[list[tuple[ForeignList, RankingExample]], dict[str, int]]:
    """The lists without repeated items and without those that neither titles nor sequences have; and their counts."""
    pool, repeated, unknown = frozenset(interactions.pool("test")), 0, Counter[str]()
    kept, total = [], 0
    for own, example in pairs:
        distinct = dict.fromkeys(own.items)
        repeated += len(own.items) - len(distinct)
        total += len(distinct)
        if strangers := distinct.keys() - pool:
            unknown.update(strangers)
        if len(distinct) < len(own.items) or strangers:
            own = replace(own, items=tuple(item for item in distinct if item not in strangers))
        kept.append((own, example))
    if unknown.total() > MOSTLY * total:
        raise _other_ids(path, "items", min(unknown), min(pool))
    untitled = {item for own, _ in kept for item in own.items if item in interactions.untitled}
    counts = {"repeated_items": repeated, "unknown_items": unknown.total(), "untitled_items": len(untitled)}
    return kept, counts


def _targets(
    settings: CandidatesSettings, pairs: Sequence[tuple[ForeignList, RankingExample]], path: Path
) -> list[tuple[RankingExample, tuple[str, ...]]]:
    """The items of each list, its target among them where it belongs there."""
    holding = sum(example.target_id in own.items for own, example in pairs)
    rule = settings.import_targets
    if rule == "auto":
        called = all(own.negatives for own, _ in pairs)
        if holding not in (0, len(pairs)) and not called:
            raise DataError(
                f"{path}: {holding:,} of {len(pairs):,} lists hold their target and the others don't. Are they what a "
                "retriever found, so that an absent target counts as missed? Then say --import-targets listed. Are "
                "they negatives beside which the target belongs? Then say --import-targets added."
            )
        rule = "added" if called or not holding else "listed"
    if rule == "added":
        pairs = [(_with_target(own, example.target_id), example) for own, example in pairs]
    if (short := next((own for own, _ in pairs if len(own.items) < 2), None)) is not None:
        raise DataError(
            f"{short.where}: {len(short.items)} items are left in the list of user {short.user}. Expected two or more "
            "that the dataset knows. Mend the list, or leave it out."
        )
    return [(example, own.items) for own, example in pairs]


def _with_target(own: ForeignList, target: str) -> ForeignList:
    return own if target in own.items else replace(own, items=(*own.items, target))


def _weaknesses(examples: Sequence[RankingExample], interactions: Interactions) -> dict[str, int]:
    """Counts of what weakens figures on these lists."""
    known, nobody = interactions.known(examples[0].split), frozenset[str]()
    consumed = sum(
        not known.get(example.user_id, nobody).isdisjoint({*example.candidates} - {example.target_id})
        for example in examples
    )
    lengths = [len(example.candidates) for example in examples]
    return {
        "without_target": sum(example.target_id not in example.candidates for example in examples),
        "holding_known_items": consumed,
        "shortest": min(lengths),
        "longest": max(lengths),
    }


def _other_ids(path: Path, what: str, theirs: str, ours: str) -> DataError:
    return DataError(
        f"{path}: most of its {what} are unknown to the dataset, such as {theirs}; the dataset has such as {ours}. "
        "Expected the ids that the raw files had. Import the data set that the lists were made on, or map their ids."
    )
