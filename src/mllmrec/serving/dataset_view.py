"""A dataset as a server shows it: items with images and captions, users with their frozen lists, and its RUNs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mllmrec.data.auditing.stage import run as audit
from mllmrec.data.candidates.drawing import read_candidates
from mllmrec.data.candidates.protocols import ListsName
from mllmrec.data.item_files import image_names, read_captions
from mllmrec.errors import DataError
from mllmrec.records import RankingExample
from mllmrec.serving.items import ItemNames
from mllmrec.serving.recommender import Recommender
from mllmrec.settings.data import AuditSettings
from mllmrec.storage.workspace import DatasetFiles, Workspace, read_json, read_jsonl


@dataclass(frozen=True, kw_only=True)
class DatasetView:
    """What was read when the server began; only RUNs and the report are read anew when they are asked for.

    `images` holds the file name of each item's image: a request can name none that isn't in it.
    """

    files: DatasetFiles
    names: ItemNames
    users: Sequence[str]
    images: Mapping[str, str]
    captions: Mapping[str, str]
    lists: Mapping[str, RankingExample]

    @classmethod
    def of(cls, recommender: Recommender, dataset: str) -> DatasetView:
        """The dataset of a model; users have the lists that fit the model's window, where there are any."""
        workspace = Workspace(recommender.settings.root)
        files = workspace.dataset(dataset)
        return cls(
            files=files,
            names=recommender.names,
            users=recommender.users,
            images=image_names(files.images),
            captions=read_captions(workspace, dataset, "auto"),
            lists=_frozen_lists(files, recommender.window),
        )

    @cached_property
    def known_users(self) -> frozenset[str]:
        """The users, to look one up."""
        return frozenset(self.users)

    def item(self, item_id: str, title: str | None = None) -> dict[str, Any]:
        """An item as answers hold it; `title` is that of an item of the client's own."""
        known = item_id in self.names
        return {
            "item_id": item_id,
            "raw_id": self.names.raw(item_id),
            "title": self.names.catalogue.title(item_id) if known or title is None else title,
            "image": f"/images/{item_id}" if known and item_id in self.images else None,
            "caption": self.captions.get(item_id) if known else None,
        }

    def described(self, item_id: str) -> dict[str, Any]:
        """An item of the catalogue with its attributes."""
        item = self.names.catalogue.get(item_id)
        return self.item(item_id) | {"attributes": dict(item.attributes) if item is not None else {}}

    def image(self, item_id: str) -> Path | None:
        """The file of an item's image; None where there is none."""
        path = self.files.images / self.images[item_id] if item_id in self.images else None
        return path if path is not None and path.is_file() else None

    def audited(self, window: int) -> dict[str, Any]:
        """What the audit of the dataset's files found: a headline, whether it passed, and what is wrong or doubtful."""
        settings = AuditSettings(dataset=self.files.name, root=str(self.files.workspace.root), min_inter=window)
        summary = audit(settings, self.files.workspace)
        findings: Any = summary.facts["findings"]
        return {
            "headline": summary.headline,
            "passed": summary.passed,
            "findings": [finding for finding in findings if finding["verdict"] not in ("ok", "not checked")],
        }

    def results(self, audited: Mapping[str, Any] | None) -> dict[str, Any]:
        """The figures of all RUNs of the dataset, the curves of its trainings, and the audit once it is done."""
        rows = []
        for path in sorted(self.files.results.glob("*/*/metrics.json")):
            facts = read_json(path)
            named = ("name", "candidates", "num_users", "metrics")
            rows.append({name: facts.get(name) for name in named})
        logs = sorted(self.files.workspace.checkpoint(self.files.name, "any").parent.glob("*/training.jsonl"))
        shown: dict[str, Any] = finite(
            {
                "dataset": self.files.name,
                "report": self.report is not None,
                "runs": rows,
                "audit": audited,
                "curves": {path.parent.name: _steps(path) for path in logs},
            }
        )
        return shown

    @property
    def report(self) -> Path | None:
        """The dataset's report, where one was made."""
        path = self.files.results / "report.html"
        return path if path.is_file() else None


def finite(value: Any) -> Any:
    """The same value with null for every number that JSON can't hold.

    >>> finite({"a": [1.0, float("nan")], "b": -float("inf")})
    {'a': [1.0, None], 'b': None}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(own) for key, own in value.items()}
    return [finite(own) for own in value] if isinstance(value, (list, tuple)) else value


def _steps(path: Path) -> list[dict[str, Any]]:
    """The rows of a training's log, up to one that can't be read: a training may be writing it."""
    rows: list[dict[str, Any]] = []
    with suppress(DataError):
        for row in read_jsonl(path):
            rows += [row]
    return rows


def _frozen_lists(files: DatasetFiles, window: int) -> dict[str, RankingExample]:
    """Each user's test list of the smallest uniform file for a window; of several lines the last counts."""
    found = []
    for path in files.processed.glob("test_*.jsonl"):
        name = ListsName.parse(path)
        if name is not None and name.window == window and name.protocol.kind == "uniform" and not name.protocol.legacy:
            found.append((name.protocol.num, name.seed, path))
    return {example.user_id: example for example in read_candidates(min(found)[2])} if found else {}
