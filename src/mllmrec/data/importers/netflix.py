"""The Netflix Prize: files in which a line `movie:` heads the ratings of that movie, dated to the day."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mllmrec.data.importers.source import Files, Imported, Importer, Wanted, catalogue_of, locate
from mllmrec.data.importers.table import interactions, numbered_lines
from mllmrec.data.sequences import Catalogue
from mllmrec.errors import DataError
from mllmrec.progress import progress
from mllmrec.records import Item
from mllmrec.settings.data import PrepareSettings


def find(raw: Path, settings: PrepareSettings) -> Files:
    """combined_data_*.txt, or the older mv_*.txt in training_set/, and movie_titles.csv or .txt."""
    ratings = Wanted(role="ratings", patterns=("combined_data_*.txt", "mv_*.txt"), many=True)
    movies = Wanted(role="movies", patterns=("movie_titles.csv", "movie_titles.txt"))
    return locate(raw, settings.source, (ratings, movies))


def read(files: Files, settings: PrepareSettings) -> Imported:
    """All rating files in the order of their names; movie_titles is latin-1 with commas in its titles."""
    frames = []
    with progress("Reading ratings", len(files["ratings"])) as advance:
        for path in files["ratings"]:
            frames.append(read_ratings(path, settings))
            advance(1)
    return Imported(rows=pl.concat(frames), catalogue=read_movies(files["movies"][0]))


def read_ratings(path: Path, settings: PrepareSettings) -> pl.DataFrame:
    """Rows user, item, timestamp of one file; the item is the last `movie:` line above the row."""
    lines = numbered_lines(path)
    is_head = pl.col("text").str.ends_with(":")
    lines = lines.with_columns(
        pl.when(is_head).then(pl.col("text").str.strip_chars_end(":")).forward_fill().alias("item")
    )
    orphan = lines.filter(pl.col("item").is_null()).head(1)
    if orphan.height:
        raise DataError(
            f"{path}:{orphan['line'][0]}: {orphan['text'][0][:80]!r} comes before any movie. Expected a line `movie:` "
            "first; download the file again."
        )
    rows = lines.filter(~is_head)
    bad = rows.filter(pl.col("text").str.count_matches(",", literal=True) != 2).head(1)
    if bad.height:
        raise DataError(
            f"{path}:{bad['line'][0]}: expected `user,rating,date` and found {bad['text'][0][:80]!r}. Mend this line."
        )
    fields = rows["text"].str.split_exact(",", 2).struct.rename_fields(["user", "rating", "timestamp"]).struct.unnest()
    return interactions(rows.select("line", "item").hstack(fields), path, settings)


def read_movies(path: Path) -> Catalogue:
    """`movie,year,title`, cut at the first two commas."""
    lines = numbered_lines(path, "latin-1")
    bad = lines.filter(pl.col("text").str.count_matches(",", literal=True) < 2).head(1)
    if bad.height:
        raise DataError(
            f"{path}:{bad['line'][0]}: expected `movie,year,title` and found {bad['text'][0][:80]!r}. Mend this line."
        )
    parts = lines["text"].str.splitn(",", 3).struct.rename_fields(["item", "year", "title"]).struct.unnest()
    table = lines.select("line").hstack(parts.with_columns(pl.all().str.strip_chars()))
    rows = table.select("item", "year", "title").iter_rows()
    return catalogue_of(
        Item(item_id=item, title=title, attributes=(("year", "" if year == "NULL" else year),))
        for item, year, title in rows
    )


NETFLIX_PRIZE = Importer(find=find, read=read)
