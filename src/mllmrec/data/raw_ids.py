"""Raw ids: which raw id each id of a dataset stands for, where it isn't the raw id itself.

Ids are words of lines and names of files. `prepare` keeps raw ids that can be both. The others get a spelling made of
what can be kept of them and a hash, so that the same raw id gets the same spelling in every import. The map is
data/<dataset>/<dataset>_ids.csv with the columns kind (user or item), raw and id; without the file no id was changed.
"""

from __future__ import annotations

import csv
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mllmrec.data.quoting import csv_rows, read_text
from mllmrec.errors import DataError
from mllmrec.storage.workspace import ID_PATTERN, replacing

Kind = Literal["user", "item"]
COLUMNS = ["kind", "raw", "id"]
KEPT_CHARACTERS, HASH_LENGTHS = 40, (12, 64)


@dataclass(frozen=True, kw_only=True)
class RawIds:
    """The raw ids of users and items by their ids in the dataset; what isn't in here is its own raw id."""

    users: Mapping[str, str] = field(default_factory=dict)
    items: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> RawIds:
        """The map of a dataset; an empty one where there is no file."""
        if not path.exists():
            return cls()
        rows = csv_rows(read_text(path), path)
        if (header := next(rows, (1, []))[1]) != COLUMNS:
            raise DataError(f"{path}:1: expected the columns {', '.join(COLUMNS)}; found {', '.join(header)}.")
        known: dict[str, dict[str, str]] = {"user": {}, "item": {}}
        for number, row in rows:
            if len(row) != len(COLUMNS) or row[0] not in known:
                raise DataError(f"{path}:{number}: expected user or item, a raw id and an id; found {row}.")
            known[row[0]][row[2]] = row[1]
        return cls(users=known["user"], items=known["item"])

    def user(self, user_id: str) -> str:
        """The raw id of a user."""
        return self.users.get(user_id, user_id)

    def item(self, item_id: str) -> str:
        """The raw id of an item."""
        return self.items.get(item_id, item_id)

    def write(self, path: Path) -> None:
        """Replace the file; there is none where no id was changed."""
        if not (self.users or self.items):
            path.unlink(missing_ok=True)
            return
        with replacing(path) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(("user", raw, user_id) for user_id, raw in self.users.items())
            writer.writerows(("item", raw, item_id) for item_id, raw in self.items.items())


def safe_ids(raw_ids: Iterable[str]) -> dict[str, str]:
    """raw id -> safe id, for those that can't stay as they are.

    >>> safe_ids(["i3", "cat/i3", "Crème brûlée"])
    {'Crème brûlée': 'Creme-brulee-364046a73655', 'cat/i3': 'cat-i3-a71e57a065b7'}
    """
    raw_ids = set(raw_ids)
    unsafe = sorted(raw for raw in raw_ids if not ID_PATTERN.fullmatch(raw))
    taken = raw_ids.difference(unsafe)
    for length in HASH_LENGTHS:
        spelt = {raw: _safe(raw, length) for raw in unsafe}
        if len({*spelt.values(), *taken}) == len(spelt) + len(taken):
            return spelt
    raise DataError("Two raw ids have one SHA-256. Expected different ids; rename one of them.")


def _safe(raw: str, length: int) -> str:
    plain = unicodedata.normalize("NFKD", raw).encode("ascii", "ignore").decode()
    kept = re.sub(r"[^A-Za-z0-9_.]+", "-", plain).strip("-.")[:KEPT_CHARACTERS].rstrip("-.")
    digest = hashlib.sha256(raw.encode()).hexdigest()[:length]
    return f"{kept}-{digest}" if kept else digest
