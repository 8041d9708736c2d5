"""What a list of the whole catalogue had to hold, from the dataset's files, read here by themselves.

A RUN over the whole catalogue keeps the best of each list and says how long it was. The length, and that nothing known
of the user is among the best, follow from the titles and the sequences; where these changed since, they are on trust.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mllmrec.artifacts import Workspace
from mllmrec.evaluation.verifying.checks import Checks
from mllmrec.manifests import Manifest, hash_files
from mllmrec.records import RankingExample

CHECK = "the whole catalogue but what is known"
SPLITS = {"train": ("train",), "valid": ("train", "valid"), "test": ("train", "valid", "test")}


class Allowed:
    """The items of the titles file and of the sequences until a split, and those of each user."""

    def __init__(self, workspace: Workspace, dataset: str, split: str) -> None:
        with workspace.titles(dataset).open(encoding="utf-8-sig", newline="") as file:
            self.items = {row[0].strip() for row in list(csv.reader(file))[1:] if row}
        self.known: defaultdict[str, set[str]] = defaultdict(set)
        for name in SPLITS[split]:
            path = workspace.split(dataset, name)
            for line in path.read_text(encoding="utf-8-sig").splitlines() if path.exists() else ():
                user, _, items = line.partition("\t")
                self.known[user].update(items.split())
        self.items.update(*self.known.values())

    def check(self, checks: Checks, where: str, row: Mapping[str, Any], example: RankingExample) -> None:
        """The length that a line tells, and that its items are the target and others that may be there."""
        others = self.items - self.known[example.user_id] - set(example.history) - {example.target_id}
        checks.equal(CHECK, f"{where}: num_candidates", row["num_candidates"], len(others) + 1)
        wrong = [item for item in row["candidates"] if item not in others and item != example.target_id]
        checks.look(CHECK, not wrong, f"{where}: {', '.join(wrong[:3])} is known of user {example.user_id}, or no item")
        checks.look(CHECK, example.target_id in row["candidates"], f"{where}: the target is not among the items kept")


def allowed_items(checks: Checks, candidates: Path, dataset: str, split: str) -> Allowed | None:
    """What each list may hold; None where the dataset isn't what it was, which is noted."""
    workspace, manifest = Workspace(candidates.resolve().parents[3]), Manifest.read(candidates)
    files = {name: workspace.split(dataset, name) for name in SPLITS["test"]}
    now = hash_files(titles=workspace.titles(dataset), **files)
    if manifest is None or now != manifest.inputs:
        checks.on_trust.append("how long each list was, because the dataset's files aren't those it was made from")
        return None
    return Allowed(workspace, dataset, split)
