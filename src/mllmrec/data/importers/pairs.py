"""Any table with a user and an item column: a header, or columns by number; the delimiter looked up or given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from mllmrec.data.importers.source import Files, Imported, Importer, Wanted, catalogue_of, locate
from mllmrec.data.importers.table import interactions, numbered_lines, read_table, require_columns
from mllmrec.data.sequences import Catalogue
from mllmrec.errors import DataError
from mllmrec.records import Item
from mllmrec.settings.prepare import PrepareSettings, Quoting

DELIMITERS = ("\t", "::", ",", ";", "|")
SPELT = {"tab": "\t", "\\t": "\t", "comma": ",", "space": " "}
NO_TIME = "none"


def find(raw: Path, settings: PrepareSettings) -> Files:
    """The pairs file (--raw itself, or the one table in it) and the titles file when one is named."""
    names = ("*pairs.csv", "*pairs.tsv", "interactions.csv", "interactions.tsv", "ratings.csv", "*.csv", "*.tsv")
    pairs = Wanted(role="pairs", patterns=names)
    files = {"pairs": (raw,)} if raw.is_file() else dict(locate(raw, settings.source, (pairs,)))
    if settings.titles:
        titles = Path(settings.titles).expanduser()
        if not titles.is_file():
            raise DataError(f"--titles {titles} is no file. Expected a table with an item and a title column.")
        files["titles"] = (titles,)
    return files


def read(files: Files, settings: PrepareSettings) -> Imported:
    """The user, item and time columns, and titles from --titles or from the pairs file itself."""
    path = files["pairs"][0]
    user, item = settings.user_column, settings.item_column
    time = None if settings.time_column == NO_TIME else settings.time_column
    table = _table(path, settings.delimiter, [name for name in (user, item, time) if name], settings.quoting)
    rows = interactions(table, path, settings, user=user, item=item, time=time)
    if "titles" in files:
        catalogue = _titles(files["titles"][0], settings)
    elif settings.title_column in table.columns:
        titled = table.unique(subset=item, keep="first", maintain_order=True).select(item, settings.title_column)
        catalogue = catalogue_of(Item(item_id=name, title=title) for name, title in titled.iter_rows())
    else:
        catalogue = Catalogue(())
    return Imported(rows=rows, catalogue=catalogue, timed=time is not None)


def _titles(path: Path, settings: PrepareSettings) -> Catalogue:
    item, title = settings.item_column, settings.title_column
    table = _table(path, "auto", [item, title], settings.quoting)
    require_columns(table, path, (item, title))
    others = [name for name in table.columns if name not in ("line", item, title)]
    return catalogue_of(
        Item(item_id=row[item], title=row[title], attributes=tuple((name, row[name]) for name in others))
        for row in table.iter_rows(named=True)
    )


def _table(path: Path, delimiter: str, names: Sequence[str], quoting: Quoting) -> pl.DataFrame:
    """The table; when every name is a number the file has no header and its columns are called 1, 2, 3 ..."""
    first = str(numbered_lines(path)["text"][0])
    separator = _separator(first, delimiter, names)
    columns = None
    if all(name.isdigit() for name in names):
        columns = [str(number) for number in range(1, first.count(separator) + 2)]
    return read_table(path, separator=separator, columns=columns, quoting=quoting)


def _separator(first: str, delimiter: str, names: Sequence[str]) -> str:
    """The delimiter given, else the one that shows most of the wanted columns in the first line, else most fields."""
    if delimiter != "auto":
        return SPELT.get(delimiter, delimiter)

    def shown(separator: str) -> tuple[int, int]:
        fields = [field.strip().strip('"') for field in first.split(separator)]
        return sum(name in fields for name in names), len(fields)

    return max(DELIMITERS, key=shown)


PAIRS = Importer(find=find, read=read)
