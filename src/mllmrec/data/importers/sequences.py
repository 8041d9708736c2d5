"""Sequence files: a line for each user, `user item item ...`, oldest first, as S3-Rec and its heirs publish them."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mllmrec.data.importers.lines import item_words, user_and_items
from mllmrec.data.importers.pairs import titles_table
from mllmrec.data.importers.source import Files, Imported, Importer, Wanted, locate, named_titles
from mllmrec.data.importers.table import numbered_lines
from mllmrec.data.sequences import Catalogue
from mllmrec.errors import DataError
from mllmrec.settings.prepare import PrepareSettings

PATTERNS = ("*sequences.txt", "*sequential_data.txt", "*.txt", "*.txt.gz", "*.tsv", "*.seq")


def find(raw: Path, settings: PrepareSettings) -> Files:
    """The sequence file (--raw itself, or the one in it) and the titles file when one is named."""
    wanted = Wanted(role="sequences", patterns=PATTERNS, without="*_sample*")
    files = {"sequences": (raw,)} if raw.is_file() else dict(locate(raw, settings.source, (wanted,)))
    return files | named_titles(settings)


def read(files: Files, settings: PrepareSettings) -> Imported:
    """One interaction for each item of a line, in the order of the line; titles from --titles."""
    path = files["sequences"][0]
    users, items = list[str](), list[str]()
    lines: dict[str, int] = {}
    for number, text in numbered_lines(path).iter_rows():
        user, rest = user_and_items(text, f"{path}:{number}")
        sequence = item_words(rest, f"{path}:{number}")
        if not sequence:
            raise DataError(f"{path}:{number}: one word alone: {text.strip()[:60]!r}. Expected a user and its items.")
        if user in lines:
            raise DataError(
                f"{path}:{number}: user {user} has a line already, line {lines[user]}. Expected one line a user, all "
                "its items in the order of time; a file with a row for each interaction is read with --source pairs."
            )
        lines[user] = number
        users += [user] * len(sequence)
        items += sequence
    if len(items) == len(lines):
        raise DataError(
            f"{path} has one item in each line. Expected whole sequences, `user item item ...`; a file with a row for "
            "each interaction is read with --source pairs."
        )
    rows = pl.DataFrame({"user": users, "item": items}).with_row_index("timestamp").select("user", "item", "timestamp")
    catalogue = titles_table(files["titles"][0], settings) if "titles" in files else Catalogue(())
    return Imported(rows=rows.with_columns(pl.col("timestamp").cast(pl.Int64)), catalogue=catalogue, timed=False)


SEQUENCES = Importer(find=find, read=read)
