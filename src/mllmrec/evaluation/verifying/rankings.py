"""Checks of rankings.jsonl: each line against its example in the candidate file, and against itself.

The position of a target is computed again by sorting the scores, whatever its line says.

thoughts.jsonl is checked too: every example has its thoughts, and they come to the sums that metrics.json tells.

A RUN over the whole catalogue keeps the best of each list and its length. The length, and that no item known of the
user is among the best, follow from the titles and the sequences, which are read here independently; where these changed
since, both are taken on trust.
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from mllmrec.evaluation.verifying.checks import Checks
from mllmrec.records import RankingExample
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import DatasetFiles


class ThoughtLine(BaseModel):
    """A line of thoughts.jsonl."""

    model_config = ConfigDict(strict=True, extra="forbid")

    example_id: str
    user_id: str
    number: int
    text: str
    tokens: int
    finished: bool


FIELDS = ("example_id", "user_id", "target_id", "candidates", "scores", "higher", "ties", "rank")

CHECK = "the whole catalogue but what is known"
SPLITS = {"train": ("train",), "valid": ("train", "valid"), "test": ("train", "valid", "test")}


class RankedTarget(NamedTuple):
    """One user's target: its possible positions (none where it was ranked nowhere), and the best of its list.

    `on_trust` says that the position follows from the line alone, because it is beyond what is kept of the list.
    """

    target_id: str
    positions: range
    num_candidates: int
    listed: bool
    answered: bool
    best: tuple[str, ...]
    on_trust: bool = False


class AllowedItems:
    """The items of the titles file and of the sequences until a split, and those of each user."""

    def __init__(self, files: DatasetFiles, split: str) -> None:
        with files.titles.open(encoding="utf-8-sig", newline="") as file:
            self.items = {row[0].strip() for row in list(csv.reader(file))[1:] if row}
        self.known: defaultdict[str, set[str]] = defaultdict(set)
        for name in SPLITS[split]:
            path = files.split(name)
            for line in path.read_text(encoding="utf-8-sig").splitlines() if path.exists() else ():
                user, _, items = line.partition("\t")
                self.known[user].update(items.split())
        self.items.update(*self.known.values())

    def check(self, checks: Checks, where: str, row: Mapping[str, Any], example: RankingExample) -> None:
        """The length that a line reports, and that its items are the target and others that may be in its list."""
        others = self.items - self.known[example.user_id] - set(example.history) - {example.target_id}
        checks.equal(CHECK, f"{where}: num_candidates", row["num_candidates"], len(others) + 1)
        wrong = [item for item in row["candidates"] if item not in others and item != example.target_id]
        checks.look(CHECK, not wrong, f"{where}: {', '.join(wrong[:3])} is known of user {example.user_id}, or no item")
        checks.look(CHECK, example.target_id in row["candidates"], f"{where}: the target is not among the items kept")


def check_rankings(
    checks: Checks,
    path: Path,
    examples: Mapping[str, RankingExample],
    *,
    generated: bool,
    keep: int,
    allowed: AllowedItems | None = None,
) -> list[RankedTarget]:
    """Check every line and return the users whose scores can be used, each with the first `keep` of its list.

    `allowed` says what lists of the whole catalogue may hold.
    """
    users, seen = [], set[str]()
    for where, row in _lines(checks, path):
        key = row["example_id"]
        if not checks.look("every example once", key not in seen, f"{where}: example {key} was there before"):
            continue
        seen.add(key)
        example = examples.get(key)
        foreign = f"{where}: example {key} of user {row['user_id']} is not in the candidate file"
        if example is not None:
            _check_list(checks, where, row, example)
            if allowed is not None and "num_candidates" in row:
                allowed.check(checks, where, row, example)
        else:
            checks.look("every example once", False, foreign)
        if _check_scores(checks, where, row):
            user = target_of_kept(row, keep) if "num_candidates" in row else target_of(row, generated, keep)
            _check_position(checks, where, row, user)
            users.append(user)
    for key in examples:
        if key not in seen:
            checks.look("every example once", False, f"example {key} of user {examples[key].user_id} is missing")
    return users


def check_thoughts(checks: Checks, path: Path, examples: Collection[str], figures: Mapping[str, Any] | None) -> None:
    """thoughts.jsonl against the figures of metrics.json: every example with its thoughts, in order, and their sums."""
    if figures is None:
        checks.look("thoughts", not path.exists(), f"{path.name} is there, and metrics.json tells of no thoughts")
        return
    if not checks.look("thoughts", path.exists(), f"{path.name} is missing"):
        return
    numbers = defaultdict[str, list[int]](list)
    tokens = unfinished = 0
    for where, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = ThoughtLine.model_validate_json(line)
        except ValidationError:
            checks.look("thoughts", False, f"line {where} of {path.name} holds no thought")
            continue
        numbers[row.example_id].append(row.number)
        tokens += row.tokens
        unfinished += not row.finished
    expected = list(range(1, figures["number"] + 1))
    for key in {*examples, *numbers}:
        own = f"the numbers of the thoughts of example {key}"
        checks.equal("thoughts", own, numbers.get(key, []), expected if key in examples else [])
    checks.equal("thoughts", "tokens of thoughts", figures["tokens"], tokens)
    checks.equal("thoughts", "unfinished thoughts", figures["unfinished"], unfinished)


def target_of(row: Mapping[str, Any], generated: bool, keep: int) -> RankedTarget:
    """The target's possible positions among the sorted scores. An answer that no text named has score 0.

    >>> row = {"target_id": "b", "candidates": ["a", "b", "c"], "scores": [2.0, 1.0, 1.0]}
    >>> target_of(row, False, 2).positions, target_of(row, False, 2).best
    (range(2, 4), ('a', 'b'))
    """
    named = sorted(zip(row["candidates"], row["scores"], strict=True), key=lambda pair: pair[1], reverse=True)
    if generated:
        named = [(item, score) for item, score in named if score != 0]
    positions = range(0)
    own = [score for item, score in named if item == row["target_id"]]
    if own:
        alike = [index for index, (_, score) in enumerate(named, 1) if score == own[0]]
        positions = range(alike[0], alike[-1] + 1)
    return RankedTarget(
        target_id=row["target_id"],
        positions=positions,
        num_candidates=len(row["candidates"]),
        listed=row["target_id"] in row["candidates"],
        answered=bool(named),
        best=tuple(item for item, _ in named[:keep]),
    )


def target_of_kept(row: Mapping[str, Any], keep: int) -> RankedTarget:
    """The same where the best of a list are kept, and the target, which comes last when it isn't among them.

    Every item above the lowest of the best is kept, so scores decide the position of a target above it. Any other
    position is taken from the line, as far as nothing that is kept contradicts it.

    >>> row = {"target_id": "c", "candidates": ["a", "b", "c"], "scores": [2.0, 2.0, 1.0], "num_candidates": 9}
    >>> target_of_kept(row | {"higher": 6, "ties": 1}, 2).positions
    range(7, 9)
    >>> target_of_kept(row | {"higher": 1, "ties": 0}, 2).positions
    range(3, 9)
    """
    whole = target_of(row, False, keep)
    scores, count = row["scores"], row["num_candidates"]
    if not whole.positions or count == len(scores):
        return whole._replace(num_candidates=count)
    at = row["candidates"].index(row["target_id"])
    own = scores[at]
    lowest = min(scores[:-1] if at == len(scores) - 1 else scores, default=own)
    if own > lowest:
        return whole._replace(num_candidates=count)
    above = sum(score > own for score in scores)
    reported = range(row["higher"] + 1, row["higher"] + row["ties"] + 2)
    fits = (
        reported.start > above
        if own < lowest
        else reported.start == above + 1 and len(reported) >= len(whole.positions)
    )
    possible = fits and 1 <= reported.start < reported.stop <= count + 1
    positions = reported if possible else range(above + 1, count)
    return whole._replace(num_candidates=count, positions=positions, on_trust=True)


def allowed_items(checks: Checks, candidates: Path, dataset: str, split: str) -> AllowedItems | None:
    """The items that each list may hold; None, with a note, where the dataset's files changed since."""
    beside, manifest = DatasetFiles.of(candidates), Manifest.read(candidates)
    files = beside.workspace.dataset(dataset) if beside is not None else None
    if files is None or manifest is None or files.source_hashes() != manifest.inputs:
        checks.on_trust.append("how long each list was, because the dataset's files aren't those it was made from")
        return None
    return AllowedItems(files, split)


def _lines(checks: Checks, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines that hold a ranking; whatever else there is counts as a difference."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                checks.look("every example once", False, f"{where} is no JSON ({error})")
                continue
            lacking = [name for name in FIELDS if not isinstance(row, dict) or name not in row]
            if lacking or not _is_list_of_ids(row) or not isinstance(row["scores"], list):
                fault = f"lacks {', '.join(lacking)}" if lacking else "holds no lists of candidates and scores"
                checks.look("every example once", False, f"{where} {fault}")
                continue
            counts = [row[name] for name in ("num_candidates", "higher", "ties") if "num_candidates" in row]
            if not all(type(count) is int for count in counts):
                checks.look("every example once", False, f"{where} holds no whole numbers for {counts}")
                continue
            yield where, row


def _is_list_of_ids(row: Mapping[str, Any]) -> bool:
    candidates = row["candidates"]
    return isinstance(candidates, list) and all(isinstance(item, str) for item in (row["example_id"], *candidates))


def _check_list(checks: Checks, where: str, row: Mapping[str, Any], example: RankingExample) -> None:
    wrong = [name for name in ("user_id", "target_id") if row[name] != getattr(example, name)]
    spelt = "num_candidates" not in row or bool(example.candidates)
    wrong += ["candidates"] if spelt and row["candidates"] != list(example.candidates) else []
    if wrong == ["candidates"] and sorted(row["candidates"]) == sorted(example.candidates):
        wrong = ["order of candidates"]
    difference = f"{where}: the {', '.join(wrong)} of example {example.example_id} differs from the candidate file"
    checks.look("same lists as the candidate file", not wrong, difference)


def _check_scores(checks: Checks, where: str, row: Mapping[str, Any]) -> bool:
    """Whether each candidate, named once, has one finite score."""
    name, candidates, scores = "one finite score a candidate", row["candidates"], row["scores"]
    numbers = [isinstance(score, (int, float)) and not isinstance(score, bool) for score in scores]
    bad = next((i for i, score in enumerate(scores) if not (numbers[i] and math.isfinite(score))), None)
    if len(scores) != len(candidates):
        return checks.look(name, False, f"{where}: {len(candidates)} candidates and {len(scores)} scores")
    if len(set(candidates)) != len(candidates):
        return checks.look(name, False, f"{where}: a candidate is listed twice")
    return checks.look(name, bad is None, f"{where}: candidate {(bad or 0) + 1} of {len(scores)} has no finite score")


def _check_position(checks: Checks, where: str, row: Mapping[str, Any], user: RankedTarget) -> None:
    """The line's position of its target; a target ranked nowhere has all candidates above it, and no rank."""
    reported = row["higher"], row["ties"], row["rank"]
    expected: tuple[int, int, float | None] = user.num_candidates, 0, None
    if user.positions:
        first, last = user.positions[0], user.positions[-1]
        expected = first - 1, last - first, (first + last) / 2
    checks.equal("higher, ties and rank", f"{where}: (higher, ties, rank)", reported, expected)
