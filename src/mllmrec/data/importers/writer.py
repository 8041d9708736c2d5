"""The files of a dataset folder, each replaced whole."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import polars as pl

from mllmrec.artifacts import Workspace, replacing
from mllmrec.data.importers.splitting import Division
from mllmrec.data.raw_ids import RawIds
from mllmrec.data.sequences import Catalogue
from mllmrec.records import Item

BREAKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


def write_dataset(
    workspace: Workspace, dataset: str, division: Division, catalogue: Catalogue, raw_ids: RawIds
) -> None:
    """train.tsv, valid.tsv, test.tsv, titles, pairs and, where ids were changed, raw ids of one dataset."""
    folder = workspace.dataset(dataset)
    for split, lines in division.lines.items():
        write_lines(workspace.split(dataset, split), lines)
    write_pairs(folder / f"{dataset}_pairs.csv", division.rows)
    write_titles(folder / f"{dataset}_titles.csv", items_on_lines(division.rows, catalogue))
    raw_ids.write(folder / f"{dataset}_ids.csv")


def items_on_lines(rows: pl.DataFrame, catalogue: Catalogue) -> list[Item]:
    """The items that occur, titled ones in the order of the catalogue, then the others with an empty title.

    Items nobody met are left out: as negatives they would be told apart by never having been chosen.
    """
    met = set(rows["item"].unique())
    titled = [item for item_id, item in catalogue.items() if item_id in met]
    others = met.difference(catalogue)
    by_number = all(name.isdecimal() for name in others)
    return titled + [
        Item(item_id=name, title="") for name in sorted(others, key=lambda name: (by_number and int(name), name))
    ]


def write_lines(path: Path, lines: pl.DataFrame) -> None:
    """`user<TAB>item item ...`, oldest first, without a header."""
    with replacing(path, "wb") as file:
        joined = lines.select("user", pl.col("items").list.join(" "))
        joined.write_csv(file, separator="\t", include_header=False, quote_style="never")


def write_pairs(path: Path, rows: pl.DataFrame) -> None:
    """user,item,timestamp in the order of the lines."""
    with replacing(path, "wb") as file:
        rows.select("user", "item", "timestamp").write_csv(file)


def write_titles(path: Path, items: list[Item]) -> None:
    """item,title and a column for each attribute; control characters and runs of blanks become one space."""
    names = list(dict.fromkeys(name for item in items for name, _ in item.attributes))
    with replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["item", "title", *names])
        for item in items:
            attributes = dict(item.attributes)
            fields = (item.title, *(attributes.get(name, "") for name in names))
            writer.writerow([item.item_id, *(BREAKS.sub(" ", field).strip() for field in fields)])
