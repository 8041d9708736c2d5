"""What every importer shares: patterns of file names, the search for the files, and the catalogue of titles.

An `Importer` is two functions. `find` names the files by their role; `read` turns them into interactions and titles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from mllmrec.data.sequences import Catalogue
from mllmrec.errors import DataError
from mllmrec.progress import note
from mllmrec.records import Item
from mllmrec.settings.data import PrepareSettings

Files = Mapping[str, tuple[Path, ...]]
SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What raw files say: `rows` has the columns user, item, timestamp in file order.

    Where the source has no timestamps (`timed` false) the column numbers the rows, so that file order is time order.
    `left_out` counts, by reason, rows of the files that aren't among them.
    """

    rows: pl.DataFrame
    catalogue: Catalogue
    timed: bool = True
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Importer:
    """One family of sources: how its files are found by role and read."""

    find: Callable[[Path, PrepareSettings], Files]
    read: Callable[[Files, PrepareSettings], Imported]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A file that an importer needs: the patterns its name may follow, best first, and one (`without`) it may not.

    `many` allows several files in this role.
    """

    role: str
    patterns: tuple[str, ...]
    optional: bool = False
    many: bool = False
    without: str = ""


def locate(raw: Path, source: str, *layouts: Sequence[Wanted]) -> Files:
    """The files, by role, of the first layout that is complete in `raw` or in one of its folders.

    A layout is a set of files that belong together; a source that was published in two ways has two. Raises DataError,
    with a listing of the folder, where none is complete.
    """
    if not raw.is_dir():
        what = "is a file" if raw.exists() else "does not exist"
        raise DataError(
            f"--raw {raw} {what}. Expected the folder of the unpacked files of {source}: {_patterns_of(layouts)}. "
            "Point --raw at it."
        )
    for layout in layouts:
        matches = {wanted.role: _matches(raw, wanted) for wanted in layout}
        if all(matches[wanted.role] or wanted.optional for wanted in layout):
            return {role: paths for role, paths in matches.items() if paths}
    raise DataError(
        f"{raw} does not hold the files of --source {source}. Expected {_patterns_of(layouts)}; found {_listing(raw)}. "
        "Point --raw at the folder of the unpacked files, or choose another --source."
    )


def named_titles(settings: PrepareSettings) -> dict[str, tuple[Path, ...]]:
    """The file that --titles names, by its role; nothing without one."""
    if not settings.titles:
        return {}
    titles = Path(settings.titles).expanduser()
    if not titles.is_file():
        raise DataError(f"--titles {titles} is no file. Expected a table with an item and a title column.")
    return {"titles": (titles,)}


def catalogue_of(rows: Iterable[Item]) -> Catalogue:
    """The catalogue of `rows`; of several rows of an item the first with a title is taken, the others are counted.

    Rows without an id are left out, and a note says how many.
    """
    items: dict[str, Item] = {}
    num_rows, num_without_id = 0, 0
    for item in rows:
        if not item.item_id:
            num_without_id += 1
            continue
        num_rows += 1
        if item.item_id not in items or (item.title and not items[item.item_id].title):
            items[item.item_id] = item
    if num_without_id:
        note(f"{num_without_id:,} rows of titles have no item id and are left out.")
    return Catalogue(items.values(), num_rows - len(items))


def _matches(raw: Path, wanted: Wanted) -> tuple[Path, ...]:
    for pattern in wanted.patterns:
        for within in (pattern, f"*/{pattern}"):
            paths = tuple(
                sorted(path for path in raw.glob(within) if path.is_file() and not path.match(wanted.without or "/"))
            )
            if len(paths) > 1 and not wanted.many:
                names = ", ".join(str(path.relative_to(raw)) for path in paths[:SHOWN])
                raise DataError(
                    f"{raw} holds {len(paths)} files that could be the {wanted.role}: {names}. Expected one; move the "
                    "others away, or point --raw at the folder of one data set."
                )
            if paths:
                return paths
    return ()


def _patterns_of(layouts: Sequence[Sequence[Wanted]]) -> str:
    return "; or ".join(
        " and ".join(" / ".join(wanted.patterns) for wanted in layout if not wanted.optional) for layout in layouts
    )


def _listing(raw: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in raw.iterdir())
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "an empty folder"
