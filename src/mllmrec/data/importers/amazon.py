"""Amazon reviews: a table of ratings, and metadata with one product a line, as three releases lay them out."""

from __future__ import annotations

import ast
import gzip
import html
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from mllmrec.data.importers.source import Files, Imported, Importer, Wanted, catalogue_of, locate
from mllmrec.data.importers.table import interactions, numbered_lines, read_table
from mllmrec.data.sequences import Catalogue
from mllmrec.errors import DataError
from mllmrec.progress import note
from mllmrec.records import Item
from mllmrec.settings.prepare import PrepareSettings

USER_NAMES = ("user_id", "user", "reviewerID")
ITEM_NAMES = ("parent_asin", "asin", "item")
TIME_NAMES = ("timestamp", "unixReviewTime")
HEADLESS = ("user", "item", "rating", "timestamp")


def find(raw: Path, settings: PrepareSettings) -> Files:
    """The ratings (csv) and the metadata (meta*.jsonl or .json), plain or gzipped."""
    ratings = Wanted(role="ratings", patterns=("ratings*.csv", "ratings*.csv.gz", "*.csv", "*.csv.gz"))
    meta = Wanted(role="meta", patterns=("meta*.jsonl", "meta*.jsonl.gz", "meta*.json", "meta*.json.gz"))
    return locate(raw, settings.source, (ratings, meta))


def read(files: Files, settings: PrepareSettings) -> Imported:
    """Ratings with the titles of the products they name."""
    ratings, meta = files["ratings"][0], files["meta"][0]
    table, user, item, time = _read_ratings(ratings)
    catalogue = read_meta(meta, set(table[item].unique()) | set(table[user].unique() if user == "user" else ()))
    if user == "user" and _is_item_first(table, catalogue):
        note(f"{ratings}: the first column holds products and the second users; read so.")
        user, item = item, user
    return Imported(rows=interactions(table, ratings, settings, user=user, item=item, time=time), catalogue=catalogue)


def read_meta(path: Path, wanted: set[str]) -> Catalogue:
    """Titles of the `wanted` products; brand and category are kept, character references (&amp;) are resolved."""
    return catalogue_of(_products(path, wanted))


def _read_ratings(path: Path) -> tuple[pl.DataFrame, str, str, str]:
    """The table and the names of its user, item and time columns; a file without a header has four fields."""
    names = [name.strip() for name in str(numbered_lines(path)["text"][0]).split(",")]
    found = [next((name for name in known if name in names), None) for known in (USER_NAMES, ITEM_NAMES, TIME_NAMES)]
    user, item, time = found
    if user and item and time:
        return read_table(path, separator=",", quoting="auto"), user, item, time
    if any(found) or len(names) != len(HEADLESS):
        raise DataError(
            f"{path}:1: found {', '.join(names)[:80]}. Expected a header with a user ({', '.join(USER_NAMES)}), an "
            f"item ({', '.join(ITEM_NAMES)}) and a time ({', '.join(TIME_NAMES)}), or no header and the fields user,"
            "item,rating,timestamp. For another table use --source pairs and name its columns."
        )
    return read_table(path, separator=",", columns=HEADLESS), "user", "item", "timestamp"


def _is_item_first(table: pl.DataFrame, catalogue: Catalogue) -> bool:
    """Whether a headless table is of the release that writes item,user: its first column is what has metadata."""
    products = list(catalogue)
    first, second = (int(table[name].is_in(products).sum()) for name in ("user", "item"))
    return first > second


def _products(path: Path, wanted: set[str]) -> Iterator[Item]:
    for number, text in _lines(path):
        row = _object(text, path, number)
        item_id = row.get("parent_asin") or row.get("asin")
        if not isinstance(item_id, str):
            raise DataError(
                f"{path}:{number}: the product id is {item_id!r}. Expected a field parent_asin or asin. Mend this line."
            )
        if item_id in wanted:
            fields = {
                "brand": row.get("brand") or row.get("store"),
                "category": row.get("main_category") or row.get("main_cat"),
            }
            attributes = tuple((name, html.unescape(str(value or ""))) for name, value in fields.items())
            yield Item(item_id=item_id, title=html.unescape(str(row.get("title") or "")), attributes=attributes)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with _opened(path) as file:
        for number, data in enumerate(file, 1):
            try:
                text = data.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}:{number}: byte 0x{data[error.start]:02x} is not UTF-8. Expected UTF-8 text; convert it."
                ) from error
            if text.strip():
                yield number, text


def _opened(path: Path) -> gzip.GzipFile | BinaryIO:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _object(text: str, path: Path, number: int) -> dict[str, Any]:
    """JSON, or the Python literal that the 2014 release wrote in its place."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            value = None
    if not isinstance(value, dict):
        raise DataError(f"{path}:{number}: not a JSON object: {text.strip()[:80]!r}. Expected one object a line.")
    return value


AMAZON = Importer(find=find, read=read)
