"""Reading a dataset: sequence lines, the catalogue of titles, and what is known of each user at which split.

A line is `user<TAB>item item ...`, oldest first, its target last. A user may have several lines; what is known of
the user is their union. Where there is no valid.tsv, a tenth of the users (by hash) are validation: the last item
of their train line is the target, and none of their windows is trained on.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mllmrec.data.quoting import csv_rows, read_text
from mllmrec.errors import DataError
from mllmrec.progress import note
from mllmrec.records import Item, Split
from mllmrec.storage.workspace import ID_PATTERN, Workspace, require

Windows = Literal["last", "all"]
VALIDATION_SHARE = 0.1
PREPARE = "Make it with `mllmrec prepare`, or see `mllmrec doctor`."


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a split file; `line_index` is its 0-based physical line."""

    user_id: str
    items: tuple[str, ...]
    line_index: int


class Catalogue(Mapping[str, Item]):
    """The items of a titles file, in file order, which is the order that the reference's draw relies on.

    An item that occurs in sequences but has no row is named by its id: `title("9")` is then "Item 9".
    """

    def __init__(self, items: Iterable[Item], num_duplicates: int = 0) -> None:
        self._items = {item.item_id: item for item in items}
        self.num_duplicates = num_duplicates

    def __getitem__(self, item_id: str) -> Item:
        return self._items[item_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def ids(self) -> list[str]:
        return list(self._items)

    def title(self, item_id: str) -> str:
        item = self._items.get(item_id)
        return item.title if item is not None and item.title else f"Item {item_id}"


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """The interactions and the catalogue of a dataset, from its files."""

    train: list[Line]
    valid: list[Line]
    test: list[Line]
    catalogue: Catalogue
    held_out: bool
    untitled: frozenset[str] = field(default=frozenset())

    @classmethod
    def load(cls, workspace: Workspace, dataset: str) -> Interactions:
        """Read the dataset's files; valid.tsv and test.tsv may be absent."""
        require_dataset(workspace, dataset)
        files = workspace.dataset(dataset)
        train = read_lines(require(files.split("train"), "The training file", PREPARE))
        valid_path, test_path = files.split("valid"), workspace.dataset(dataset).split("test")
        held_out = not valid_path.exists()
        valid = [line for line in train if is_held_out(line.user_id)] if held_out else read_lines(valid_path)
        test = read_lines(test_path) if test_path.exists() else []
        catalogue = read_catalogue(require(files.titles, "The titles file", PREPARE))
        seen = {item for line in (*train, *valid, *test) for item in line.items}
        untitled = frozenset(item for item in seen if item not in catalogue or not catalogue[item].title)
        if untitled:
            note(
                f"{files.titles}: {len(untitled)} of {len(seen)} items in the sequences have no title "
                f"(such as {min(untitled)}); they are kept and named by their id."
            )
        return cls(train=train, valid=valid, test=test, catalogue=catalogue, held_out=held_out, untitled=untitled)

    def lines(self, split: Split) -> list[Line]:
        return {"train": self.train, "valid": self.valid, "test": self.test}[split]

    def training_lines(self) -> list[Line]:
        """The lines whose windows may be trained on: those of users who aren't held out for validation."""
        return [line for line in self.train if not (self.held_out and is_held_out(line.user_id))]

    def fit_lines(self) -> list[Line]:
        """Train lines without validation targets: what tuning may count."""
        if not self.held_out:
            return self.train
        return [
            Line(user_id=line.user_id, items=line.items[:-1], line_index=line.line_index)
            if is_held_out(line.user_id)
            else line
            for line in self.train
        ]

    def lines_until(self, split: Split) -> Iterator[Line]:
        """The lines that are known at `split`: train, train + valid, or everything."""
        parts = {"train": (self.train,), "valid": (self.train, self.valid)}
        yield from itertools.chain.from_iterable(parts.get(split, (self.train, self.valid, self.test)))

    def pool(self, split: Split) -> list[str]:
        """What may be recommended at `split`, sorted by id: the catalogue and all that occurs until then.

        An item that has no row in the titles file would be the answer by construction if it were a target only.
        """
        occurring = itertools.chain.from_iterable(line.items for line in self.lines_until(split))
        return sorted({*self.catalogue, *occurring})

    def known(self, split: Split) -> dict[str, frozenset[str]]:
        """All items known of each user at `split`."""
        known: dict[str, set[str]] = defaultdict(set)
        for line in self.lines_until(split):
            known[line.user_id].update(line.items)
        return {user: frozenset(items) for user, items in known.items()}


def by_user(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """The lines of each user, in their order."""
    users: dict[str, list[Line]] = {}
    for line in lines:
        users.setdefault(line.user_id, []).append(line)
    return users


def is_held_out(user_id: str) -> bool:
    """Whether a user is validation where there is no valid.tsv: a tenth of all users, by sha256 of the id.

    >>> 0.09 < sum(is_held_out(str(user)) for user in range(10_000)) / 10_000 < 0.11
    True
    """
    return int(hashlib.sha256(user_id.encode()).hexdigest()[:8], 16) < VALIDATION_SHARE * (1 << 32)


def windows(items: tuple[str, ...], length: int, mode: Windows) -> list[tuple[str, ...]]:
    """Windows of `length` items (history and target) of one sequence; none when it is shorter.

    >>> windows(("a", "b", "c", "d"), 3, "all")
    [('a', 'b', 'c'), ('b', 'c', 'd')]
    >>> windows(("a", "b", "c", "d"), 3, "last")
    [('b', 'c', 'd')]
    """
    first = 0 if mode == "all" else len(items) - length
    return [items[start : start + length] for start in range(first, len(items) - length + 1) if start >= 0]


def read_lines(path: Path) -> list[Line]:
    """The lines of a split file. Blank lines are skipped; raises DataError, with file:line, for any other fault."""
    lines, checked = [], set[str]()
    for number, text in enumerate(io.StringIO(read_text(path), newline=None)):
        if not text.strip():
            continue
        user_id, tab, rest = text.rstrip("\n").partition("\t")
        items = tuple(map(sys.intern, rest.split()))
        where = f"{path}:{number + 1}"
        if not tab:
            raise DataError(
                f"{where}: no tab. Expected `user<TAB>item item ...`, found {user_id[:60]!r}. Mend this line."
            )
        if not items:
            raise DataError(f"{where}: user {user_id!r} has no items. Expected at least one; remove the line.")
        _check_ids((user_id, *items), checked, where)
        lines.append(Line(user_id=user_id, items=items, line_index=number))
    if not lines:
        raise DataError(f"{path} is empty. Expected lines of `user<TAB>item item ...`. {PREPARE}")
    return lines


def require_dataset(workspace: Workspace, dataset: str) -> Path:
    """The dataset's folder; raises ArtifactError that says which command makes it when there is none."""
    return require(workspace.dataset(dataset).folder, f"The dataset {dataset}", PREPARE)


def read_catalogue(path: Path) -> Catalogue:
    """The items of a titles file: header, then item, title and any attributes.

    Of several rows of an item the first that has a title counts. Raises DataError, with file:line, for a bad row.
    """
    rows = csv_rows(read_text(path), path)
    _, header = next(rows, (1, []))
    if len(header) < 2:
        raise DataError(f"{path}:1: expected a header with at least two columns, item,title; found {header}.")
    items: dict[str, Item] = {}
    checked, num_duplicates = set[str](), 0
    for number, row in rows:
        if not row:
            continue
        where = f"{path}:{number}"
        if len(row) < 2:
            raise DataError(f"{where}: expected item,title and found {row}. Mend this line.")
        item_id, title = row[0].strip(), row[1].strip()
        _check_ids((item_id,), checked, where)
        num_duplicates += item_id in items
        attributes = tuple(zip((name.strip() for name in header[2:]), row[2:], strict=False))
        if item_id not in items or (title and not items[item_id].title):
            items[item_id] = Item(item_id=item_id, title=title, attributes=attributes)
    if not items:
        raise DataError(f"{path} has a header but no items. {PREPARE}")
    if num_duplicates:
        note(f"{path}: {num_duplicates} rows repeat an item id; the first of each that has a title counts.")
    return Catalogue(items.values(), num_duplicates)


def _check_ids(ids: Iterable[str], checked: set[str], where: str) -> None:
    for value in ids:
        if value not in checked:
            if not ID_PATTERN.fullmatch(value):
                raise DataError(
                    f"{where}: the id {value!r} can't be used. Expected letters, digits, '.', '_' and '-', not "
                    "starting with a dot. Rename it in all files, or let `mllmrec prepare` map raw ids to such."
                )
            checked.add(value)
