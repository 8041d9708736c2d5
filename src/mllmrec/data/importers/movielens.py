"""The MovieLens releases. Three id spaces, two encodings, and for 1M also SASRec's renumbered `user item` text."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mllmrec.data.importers.source import Files, Imported, Importer, Wanted, catalogue_of, locate
from mllmrec.data.importers.table import interactions, read_table, require_columns
from mllmrec.errors import DataError
from mllmrec.records import Item
from mllmrec.settings.data import PrepareSettings

MOVIES_DAT = Wanted(role="movies", patterns=("movies.dat",))
USERS_MAP = Wanted(role="users_map", patterns=("sas_to_original_users.txt",))
ITEMS_MAP = Wanted(role="items_map", patterns=("sas_to_original_items.txt",))
NUM_FLAGS = 19


def find_100k(raw: Path, settings: PrepareSettings) -> Files:
    form = (
        Wanted(role="ratings", patterns=("u.data",)),
        Wanted(role="movies", patterns=("u.item",)),
        Wanted(role="genres", patterns=("u.genre",), optional=True),
    )
    return locate(raw, settings.source, form)


def read_100k(files: Files, settings: PrepareSettings) -> Imported:
    """u.data (tabs) and u.item (latin-1, one 0/1 flag a genre, whose names are in u.genre)."""
    ratings = files["ratings"][0]
    table = read_table(ratings, separator="\t", columns=("user", "item", "rating", "timestamp"))
    genres = [f"genre {index}" for index in range(NUM_FLAGS)]
    if "genres" in files:
        named = read_table(files["genres"][0], separator="|", columns=("name", "index"))
        genres = named["name"].to_list()
    movies = files["movies"][0]
    columns = ("item", "title", "released", "video", "url", *genres)
    rows = read_table(movies, separator="|", columns=columns, encoding="latin-1")
    items = (
        Item(
            item_id=row["item"],
            title=row["title"],
            attributes=(
                ("genres", "|".join(name for name in genres if row[name] == "1")),
                ("released", row["released"]),
            ),
        )
        for row in rows.iter_rows(named=True)
    )
    return Imported(rows=interactions(table, ratings, settings), catalogue=catalogue_of(items))


def find_latest(raw: Path, settings: PrepareSettings) -> Files:
    form = (
        Wanted(role="ratings", patterns=("ratings.csv",)),
        Wanted(role="movies", patterns=("movies.csv",)),
        Wanted(role="links", patterns=("links.csv",), optional=True),
    )
    return locate(raw, settings.source, form)


def read_latest(files: Files, settings: PrepareSettings) -> Imported:
    """ratings.csv, movies.csv and, where it is there, links.csv, whose ids lead to posters."""
    ratings, movies = files["ratings"][0], files["movies"][0]
    table = read_table(ratings, separator=",", quoting="auto")
    rows = interactions(table, ratings, settings, user="userId", item="movieId")
    titles = read_table(movies, separator=",", quoting="auto")
    require_columns(titles, movies, ("movieId", "title", "genres"))
    links: dict[str, tuple[tuple[str, str], ...]] = {}
    if "links" in files:
        linked = read_table(files["links"][0], separator=",", quoting="auto")
        require_columns(linked, files["links"][0], ("movieId", "imdbId", "tmdbId"))
        for movie, imdb, tmdb in linked.select("movieId", "imdbId", "tmdbId").iter_rows():
            links[movie] = (("imdb_id", imdb), ("tmdb_id", tmdb))
    items = (
        Item(item_id=movie, title=title, attributes=(("genres", genres), *links.get(movie, ())))
        for movie, title, genres in titles.select("movieId", "title", "genres").iter_rows()
    )
    return Imported(rows=rows, catalogue=catalogue_of(items))


def find_1m(raw: Path, settings: PrepareSettings) -> Files:
    ratings = Wanted(role="ratings", patterns=("ratings.dat",))
    sequences = Wanted(role="sequences", patterns=("ml-1m.txt", "ml-1m.txt.gz"))
    return locate(raw, settings.source, (ratings, MOVIES_DAT), (sequences, USERS_MAP, ITEMS_MAP, MOVIES_DAT))


def read_1m(files: Files, settings: PrepareSettings) -> Imported:
    """ratings.dat with its timestamps, or the chronological `user item` text with its ids mapped back."""
    movies = files["movies"][0]
    titles = read_table(movies, separator="::", columns=("item", "title", "genres"), encoding="latin-1")
    catalogue = catalogue_of(
        Item(item_id=item, title=title, attributes=(("genres", genres),))
        for item, title, genres in titles.select("item", "title", "genres").iter_rows()
    )
    if "ratings" in files:
        path = files["ratings"][0]
        table = read_table(path, separator="::", columns=("user", "item", "rating", "timestamp"))
        return Imported(rows=interactions(table, path, settings), catalogue=catalogue)
    path = files["sequences"][0]
    table = read_table(path, separator=" ", columns=("user", "item"))
    table = _mapped_back(table, path, "user", files["users_map"][0])
    table = _mapped_back(table, path, "item", files["items_map"][0])
    return Imported(rows=interactions(table, path, settings, time=None), catalogue=catalogue, timed=False)


def _mapped_back(table: pl.DataFrame, path: Path, column: str, map_path: Path) -> pl.DataFrame:
    """The original ids of a renumbered column; an id without an original is an error by line."""
    pairs = read_table(map_path, separator=" ", columns=("renumbered", "original"))
    doubled = pairs.filter(pl.col("renumbered").is_duplicated()).head(1)
    if doubled.height:
        raise DataError(
            f"{map_path}:{doubled['line'][0]}: {doubled['renumbered'][0]!r} is mapped twice. Expected once."
        )
    mapped = table.with_columns(
        pl.col(column).replace_strict(pairs["renumbered"], pairs["original"], default=None).alias("original")
    )
    lost = mapped.filter(pl.col("original").is_null()).head(1)
    if lost.height:
        raise DataError(
            f"{path}:{lost['line'][0]}: {column} {lost[column][0]!r} is not in {map_path}. Expected a line "
            "`renumbered original` there for each id; the two files must come from one release."
        )
    return mapped.with_columns(pl.col("original").alias(column)).drop("original")


MOVIELENS_100K = Importer(find=find_100k, read=read_100k)
MOVIELENS_LATEST = Importer(find=find_latest, read=read_latest)
MOVIELENS_1M = Importer(find=find_1m, read=read_1m)
