"""The files of one dataset: its paths, and hashes that are computed once as long as a file stays as it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mllmrec.storage.workspace import Workspace, sha256

SPLITS = ("train", "valid", "test")
SETTLED_SECONDS = 2.0
"""A file that was changed this recently may change again within the same time stamp, so its hash isn't kept."""
_known: dict[tuple[int, int, int, int, int], str] = {}


@dataclass(frozen=True)
class DatasetFiles:
    """The files of the dataset `name` in `workspace`; they may be missing."""

    workspace: Workspace
    name: str

    @classmethod
    def of(cls, path: Path) -> DatasetFiles | None:
        """The dataset of a file ROOT/data/NAME/processed/FILE or a RUN ROOT/result/NAME/MODEL/RUN; None elsewhere.

        A link is followed only where it doesn't lie in a workspace itself.

        >>> DatasetFiles.of(Path("/w/result/shop/grpo/test_uni9_w10_s42")).name
        'shop'
        >>> DatasetFiles.of(Path("/w/lists.jsonl")) is None
        True
        """
        for whole in (path.absolute(), path.resolve()):
            if len(whole.parents) > 3 and whole.parents[2].name in ("data", "result"):
                return cls(Workspace(whole.parents[3]), whole.parents[1].name)
        return None

    @property
    def titles(self) -> Path:
        """The titles file."""
        return self.workspace.titles(self.name)

    @property
    def ceiling(self) -> Path:
        """The best figures that any ranker could reach, where they are known."""
        return self.workspace.ceiling(self.name)

    @property
    def folder(self) -> Path:
        """The folder of the dataset."""
        return self.workspace.dataset(self.name)

    @property
    def pairs(self) -> Path:
        """The interactions with their times."""
        return self.workspace.pairs(self.name)

    @property
    def raw_ids(self) -> Path:
        """The map of raw ids; there is none where all ids stayed as they came."""
        return self.workspace.raw_ids(self.name)

    @property
    def captions(self) -> Path:
        """The captions of items."""
        return self.workspace.captions(self.name)

    @property
    def pseudo_cot(self) -> Path:
        """The drafts of traces."""
        return self.workspace.pseudo_cot(self.name)

    @property
    def refined_cot(self) -> Path:
        """The refined traces."""
        return self.workspace.refined_cot(self.name)

    @property
    def assessed_cot(self) -> Path:
        """The assessed traces."""
        return self.workspace.assessed_cot(self.name)

    @property
    def images(self) -> Path:
        """The folder of images."""
        return self.workspace.images(self.name)

    @property
    def card(self) -> Path:
        """The data card."""
        return self.workspace.card(self.name)

    def split(self, split: str) -> Path:
        """The lines of a split."""
        return self.workspace.split(self.name, split)

    def source_hashes(self, splits: Sequence[str] = SPLITS) -> dict[str, str]:
        """sha256 by role (`titles` and the names of splits) of the files that lists are made from and that exist."""
        files = {"titles": self.titles, **{split: self.split(split) for split in splits}}
        return {role: cached_sha256(path) for role, path in files.items() if path.exists()}


def cached_sha256(path: Path) -> str:
    """Hex digest of a file's bytes; this process reads a file again only after it was changed or replaced."""
    facts = path.stat()
    key = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    if key in _known:
        return _known[key]
    digest = sha256(path)
    if time.time() - max(facts.st_mtime, facts.st_ctime) > SETTLED_SECONDS:
        _known[key] = digest
    return digest
