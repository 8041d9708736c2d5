"""What every importer is: a way to find its files and a way to read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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

    Where the source has no timestamps (`timed` false) the column counts rows, so that file order is time order.
    """

    rows: pl.DataFrame
    catalogue: Catalogue
    timed: bool = True


@dataclass(frozen=True, kw_only=True)
class Importer:
    """One source family. `find` names the files by role, `read` turns them into interactions and titles."""

    find: Callable[[Path, PrepareSettings], Files]
    read: Callable[[Files, PrepareSettings], Imported]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A file an importer needs: the patterns its name may follow, best first, and one that it may not."""

    role: str
    patterns: tuple[str, ...]
    optional: bool = False
    many: bool = False
    without: str = ""


def locate(raw: Path, source: str, *forms: Sequence[Wanted]) -> Files:
    """The files of the first form that is complete in `raw` or in one of its folders; a DataError lists what is there.

    A form is a set of files that belong together; a source that was published in two ways has two.
    """
    if not raw.is_dir():
        what = "is a file" if raw.exists() else "does not exist"
        raise DataError(
            f"--raw {raw} {what}. Expected the folder of the unpacked files of {source}: {_spelt(forms)}. "
            "Point --raw at it."
        )
    for form in forms:
        found = {wanted.role: _matches(raw, wanted) for wanted in form}
        if all(found[wanted.role] or wanted.optional for wanted in form):
            return {role: paths for role, paths in found.items() if paths}
    raise DataError(
        f"{raw} does not hold the files of --source {source}. Expected {_spelt(forms)}; found {_listing(raw)}. "
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
    """A catalogue in which the first row of an item that has a title counts; further rows of it are only counted.

    Rows without an id are left out, and a note says how many.
    """
    items: dict[str, Item] = {}
    num_rows, num_nameless = 0, 0
    for item in rows:
        if not item.item_id:
            num_nameless += 1
            continue
        num_rows += 1
        if item.item_id not in items or (item.title and not items[item.item_id].title):
            items[item.item_id] = item
    if num_nameless:
        note(f"{num_nameless:,} rows of titles have no item id and are left out.")
    return Catalogue(items.values(), num_rows - len(items))


def _matches(raw: Path, wanted: Wanted) -> tuple[Path, ...]:
    for pattern in wanted.patterns:
        for place in (pattern, f"*/{pattern}"):
            paths = tuple(
                sorted(path for path in raw.glob(place) if path.is_file() and not path.match(wanted.without or "/"))
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


def _spelt(forms: Sequence[Sequence[Wanted]]) -> str:
    return "; or ".join(
        " and ".join(" / ".join(wanted.patterns) for wanted in form if not wanted.optional) for form in forms
    )


def _listing(raw: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in raw.iterdir())
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "an empty folder"
