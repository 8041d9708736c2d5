"""Any table with a user and an item column, and sequence files.

A table has a header, or columns by number; its delimiter is given or detected. A sequence file has a line for each
user, `user item item ...`, oldest first, as S3-Rec and its successors publish them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from mllmrec.data.importers.contents import holds_objects, is_parquet, object_table, parquet_table
from mllmrec.data.importers.lines import item_words, user_and_items
from mllmrec.data.importers.source import Files, Imported, Importer, Wanted, catalogue_of, locate, named_titles
from mllmrec.data.importers.table import MISSING, interactions, numbered_lines, read_table, require_columns
from mllmrec.data.sequences import Catalogue
from mllmrec.errors import DataError, SettingsError
from mllmrec.progress import note
from mllmrec.records import Item
from mllmrec.settings.data import PrepareSettings, Quoting

DELIMITERS = ("\t", "::", ",", ";", "|")
NAMED_DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "space": " "}
NO_TIME = "none"
TABLES = ("*.inter", "*.csv", "*.tsv", "*.jsonl", "*.json")
OTHER_TABLES = ("*.inter", *(f"{name}.gz" for name in TABLES), "*.jsonl", "*.parquet", "*.json", "*.zip")
TYPE = re.compile(r":(token|float)(_seq)?$")
RECBOLE = {
    "user": ("user_id",),
    "item": ("item_id",),
    "title": ("movie_title", "item_title", "product_title", "item_name", "name"),
}
"""The names in RecBole's tables of columns that a setting names by default."""
SEQUENCE_FILES = ("*sequences.txt", "*sequential_data.txt", "*.txt", "*.txt.gz", "*.tsv", "*.seq")


def find(raw: Path, settings: PrepareSettings) -> Files:
    """The pairs file (--raw itself, or the one table in it) and the titles file when one is named."""
    names = (
        "*pairs.csv",
        "*pairs.tsv",
        "interactions.csv",
        "interactions.tsv",
        "ratings.csv",
        "*.csv",
        "*.tsv",
        *OTHER_TABLES,
    )
    pairs = Wanted(role="pairs", patterns=names)
    files = {"pairs": (raw,)} if raw.is_file() else dict(locate(raw, settings.source, (pairs,)))
    if (named := named_titles(settings)) or (beside := _items_beside(files["pairs"][0])) is None:
        return files | named
    return files | {"titles": (beside,)}


def read(files: Files, settings: PrepareSettings) -> Imported:
    """The user, item and time columns, and titles from --titles or from the pairs file itself."""
    path = files["pairs"][0]
    names = [settings.user_column, settings.item_column]
    names += [] if settings.time_column == NO_TIME else [settings.time_column]
    table = _table(path, settings.delimiter, names, settings.quoting)
    user, item, *times = columns = [_resolved(name, table) for name in names]
    if len({*columns}) < len(columns):
        raise SettingsError(
            f"--user-column, --item-column and --time-column name {', '.join(columns)}. Expected different columns; "
            "--time-column none is for rows that are in order of time."
        )
    time = times[0] if times else None
    chosen, left_out = _rated(table, path, settings)
    rows = interactions(chosen, path, settings, user=user, item=item, time=time)
    if "titles" in files:
        catalogue = titles_table(files["titles"][0], settings)
    elif (title := _resolved(settings.title_column, table)) in table.columns:
        catalogue = _titles_within(table, item, title, {*columns, _resolved(settings.rating_column, table)})
    else:
        catalogue = Catalogue(())
    return Imported(rows=rows, catalogue=catalogue, timed=time is not None, left_out=left_out)


PAIRS = Importer(find=find, read=read)


def _rated(table: pl.DataFrame, path: Path, settings: PrepareSettings) -> tuple[pl.DataFrame, dict[str, int]]:
    """The rows rated --min-rating or more, and how many others there are by reason; all where no rating is asked for.

    Raises DataError for a rating that is no number, and where no row is rated so high.
    """
    if settings.min_rating is None:
        return table, {}
    column = _resolved(settings.rating_column, table)
    require_columns(table, path, [column])
    words = table[column].str.strip_chars()
    missing = words.is_null() | words.str.to_lowercase().is_in(MISSING)
    ratings = pl.select(pl.when(~missing).then(words)).to_series().cast(pl.Float64, strict=False)
    if (strange := table.filter(~missing & ~ratings.is_finite().fill_null(False))).height:
        line, word = strange["line"][0], strange[column][0]
        raise DataError(f"{path}:{line}: {word!r} in the column {column} is no rating. Expected numbers such as 4.5.")
    chosen = table.filter((ratings >= settings.min_rating).fill_null(False))
    if chosen.is_empty():
        highest = max(ratings.drop_nulls().to_list(), default=None)
        raise DataError(
            f"{path}: no row is rated {settings.min_rating:g} or more; the highest rating in the column {column} is "
            f"{highest}. Expected a lower --min-rating, or another --rating-column."
        )
    counts = {
        "no rating": int(missing.sum()),
        f"rated below {settings.min_rating:g}": int((ratings < settings.min_rating).sum()),
    }
    return chosen, {reason: count for reason, count in counts.items() if count}


def _titles_within(table: pl.DataFrame, item: str, title: str, others: set[str]) -> Catalogue:
    """Titles of the pairs file itself, with the columns that tell one thing of each item as its attributes.

    A column with several values for one item is about something else, and one with a single value in all rows tells
    nothing; where no item stands in two rows, none is known to be about items.
    """
    candidates = [name for name in table.columns if name not in {"line", title, *others}]
    told = [pl.col(name).filter(~pl.col(name).str.to_lowercase().is_in(MISSING)) for name in candidates]
    # A table's `line` is never a column of its file, so that the number of rows takes no other column's name.
    facts = table.group_by(item).agg(pl.len().alias("line"), *(own.n_unique() for own in told))
    repeated = facts.filter(pl.col("line") > 1)
    single = [name for name in candidates if repeated.height and repeated.filter(pl.col(name) > 1).is_empty()]
    kept = [name for name in single if table[name].n_unique() > 1]
    if kept:
        note(f"{', '.join(kept)}: kept as attributes of items, since no item has two values.")
    if left := [name for name in candidates if name not in kept]:
        note(f"{', '.join(left)}: left out: they tell no single thing of each item.")
    titled = table.group_by(item, maintain_order=True).agg(
        pl.col(title), *(own.first() for own in told if own.meta.output_name() in kept)
    )
    named = catalogue_of(
        Item(item_id=row[item], title=text, attributes=tuple((name, row[name] or "") for name in kept))
        for row in titled.iter_rows(named=True)
        for text in dict.fromkeys(row[title])
    )
    return Catalogue(named.values())


def titles_table(path: Path, settings: PrepareSettings) -> Catalogue:
    """The item and title columns of a table of titles; its other columns are kept as attributes."""
    names = [settings.titles_item_column or settings.item_column, settings.title_column]
    table = _table(path, "auto", names, settings.quoting)
    item, title = (_resolved(name, table) for name in names)
    require_columns(table, path, (item, title))
    others = [name for name in table.columns if name not in ("line", item, title)]
    return catalogue_of(
        Item(item_id=row[item], title=row[title], attributes=tuple((name, row[name]) for name in others))
        for row in table.iter_rows(named=True)
    )


def find_sequences(raw: Path, settings: PrepareSettings) -> Files:
    """The sequence file (--raw itself, or the one in it) and the titles file when one is named."""
    wanted = Wanted(role="sequences", patterns=SEQUENCE_FILES, without="*_sample*")
    files = {"sequences": (raw,)} if raw.is_file() else dict(locate(raw, settings.source, (wanted,)))
    return files | named_titles(settings)


def read_sequences(files: Files, settings: PrepareSettings) -> Imported:
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


SEQUENCES = Importer(find=find_sequences, read=read_sequences)


def _items_beside(path: Path) -> Path | None:
    """The .item file that a RecBole folder has beside its .inter file."""
    beside = path.with_suffix(".item")
    return beside if path.suffix == ".inter" and beside.is_file() else None


def _resolved(name: str, table: pl.DataFrame) -> str:
    """The column that a setting names; in a RecBole table without its type, and by RecBole's names by default."""
    plain = TYPE.sub("", name)
    if name in table.columns or plain in table.columns:
        return name if name in table.columns else plain
    return next((known for known in RECBOLE.get(name, ()) if known in table.columns), name)


def _table(path: Path, delimiter: str, names: Sequence[str], quoting: Quoting) -> pl.DataFrame:
    """The table; when every name is a number the file has no header and its columns are called 1, 2, 3 ...

    RecBole's headers, in which every name bears a type (`user_id:token`), lose their types.
    """
    if is_parquet(path):
        return parquet_table(path)
    if holds_objects(path):
        return object_table(path)
    first = str(numbered_lines(path)["text"][0])
    separator = _separator(first, delimiter, names)
    columns = None
    if all(name.isdigit() for name in names):
        columns = [str(number) for number in range(1, first.count(separator) + 2)]
    table = read_table(path, separator=separator, columns=columns, quoting=quoting)
    typed = [name for name in table.columns if TYPE.search(name)]
    if len(typed) == len(table.columns) - 1:
        table = table.rename({name: TYPE.sub("", name) for name in typed})
    return table


def _separator(first: str, delimiter: str, names: Sequence[str]) -> str:
    """The delimiter given, else the one that shows most of the wanted columns in the first line, else most fields."""
    if delimiter != "auto":
        return NAMED_DELIMITERS.get(delimiter, delimiter)

    def shown(separator: str) -> tuple[int, int]:
        fields = [field.strip().strip('"') for field in first.split(separator)]
        return sum(name in fields for name in names), len(fields)

    return max(DELIMITERS, key=shown)
