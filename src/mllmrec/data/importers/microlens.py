"""MicroLens: pairs with timestamps (csv) or sequences already in order (tsv), and titles full of commas."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mllmrec.data.importers.source import Files, Imported, Importer, Wanted, catalogue_of, locate
from mllmrec.data.importers.table import interactions, numbered_lines, read_table
from mllmrec.data.sequences import Catalogue
from mllmrec.errors import DataError
from mllmrec.records import Item
from mllmrec.settings.data import PrepareSettings

COLUMNS = ("user", "item", "timestamp")


def find(raw: Path, settings: PrepareSettings) -> Files:
    """Pairs and titles; the csv of the pairs is preferred because it has the timestamps."""
    pairs = Wanted(role="pairs", patterns=("*pairs.csv", "*pairs.tsv"))
    titles = Wanted(role="titles", patterns=("*titles.csv", "*title_en.csv", "*title.csv"))
    return locate(raw, settings.source, (pairs, titles))


def read(files: Files, settings: PrepareSettings) -> Imported:
    """Pairs or sequences, whichever is there, with titles cut at their first comma."""
    path = files["pairs"][0]
    catalogue = read_titles(files["titles"][0])
    if path.suffix == ".tsv":
        return Imported(rows=read_sequences(path, settings), catalogue=catalogue, timed=False)
    first = str(numbered_lines(path)["text"][0])
    has_header = not first.rpartition(",")[2].strip().isdigit()
    table = read_table(path, separator=",", columns=None if has_header else COLUMNS)
    if len(table.columns) != len(COLUMNS) + 1:
        raise DataError(
            f"{path}:1: {len(table.columns) - 1} columns. Expected three, user,item,timestamp; for another table use "
            "--source pairs and name its columns."
        )
    return Imported(
        rows=interactions(table.rename(dict(zip(table.columns[1:], COLUMNS, strict=True))), path, settings),
        catalogue=catalogue,
    )


def read_sequences(path: Path, settings: PrepareSettings) -> pl.DataFrame:
    """`user<TAB>item item ...` as one row an item; the row number stands for the time."""
    lines = read_table(path, separator="\t", columns=("user", "items"))
    table = lines.with_columns(pl.col("items").str.split(" ").alias("item")).explode("item")
    return interactions(table.filter(pl.col("item") != ""), path, settings, time=None)


def read_titles(path: Path) -> Catalogue:
    """Titles cut at the first comma only, because they hold commas and are not always quoted."""
    lines = numbered_lines(path)
    bad = lines.filter(~pl.col("text").str.contains(",", literal=True)).head(1)
    if bad.height:
        raise DataError(
            f"{path}:{bad['line'][0]}: no comma in {bad['text'][0][:80]!r}. Expected `item,title`. Mend this line."
        )
    table = lines.select("line", pl.col("text").str.splitn(",", 2).struct.rename_fields(["item", "title"])).unnest(
        "text"
    )
    table = table.with_columns(pl.col("item", "title").str.strip_chars())
    if not str(table["item"][0]).isdigit():
        table = table.slice(1)
    if table.is_empty():
        raise DataError(f"{path} has a header but no rows. Expected `item,title` rows; download it again.")
    return catalogue_of(Item(item_id=item, title=_unquoted(title)) for _, item, title in table.iter_rows())


def _unquoted(title: str) -> str:
    if len(title) >= 2 and title[0] == title[-1] == '"':
        return title[1:-1].replace('""', '"').strip()
    return title


MICROLENS = Importer(find=find, read=read)
