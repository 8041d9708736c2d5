"""Amazon reviews: a table of ratings, and metadata with one product a line, in the layouts of three releases.

Titles were cut out of web pages; `plain_text` takes character references, tags and script out of them.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from mllmrec.data.importers.contents import holds_objects, object_table, read_objects
from mllmrec.data.importers.source import Files, Imported, Importer, Wanted, catalogue_of, locate
from mllmrec.data.importers.table import interactions, numbered_lines, read_table
from mllmrec.data.sequences import Catalogue
from mllmrec.errors import DataError
from mllmrec.progress import note
from mllmrec.records import Item
from mllmrec.settings.data import PrepareSettings

USER_NAMES = ("user_id", "user", "reviewerID")
ITEM_NAMES = ("parent_asin", "asin", "item")
TIME_NAMES = ("timestamp", "unixReviewTime")
HEADLESS = ("user", "item", "rating", "timestamp")
META = Wanted(role="meta", patterns=("meta*.jsonl", "meta*.jsonl.gz", "meta*.json", "meta*.json.gz"))
SPLITS = tuple(Wanted(role=name, patterns=(f"*.{name}.csv", f"*.{name}.csv.gz")) for name in ("train", "valid", "test"))
REVIEWS = ("ratings*.csv", "*.csv", "*_5.json", "*.jsonl", "*.json")
TAGS = (
    "a|abbr|article|b|big|body|br|center|cite|code|div|em|font|form|h[1-6]|head|hr|html|i|img|input|label|li|link|meta|"
    "noscript|ol|option|p|pre|s|script|section|select|small|span|strong|style|sub|sup|table|tbody|td|th|title|tr|tt|u|ul"
)
HIDDEN = re.compile(r"<(script|style|noscript)\b[^>]*>.*?(?:</\1\s*>|$)|<!--.*?(?:-->|$)", re.DOTALL | re.IGNORECASE)
TAG = re.compile(rf"</?(?:{TAGS})(?:\s[^<>]*|\s*/)?>|<(?:{TAGS})\s+[\w-]+\s*=[^<>]*$", re.IGNORECASE)
SCRIPT = re.compile(
    r"\bvar\s+\w+\s*=|\bfunction\s*\w*\s*\([^)]*\)\s*\{|\bP\.when\s*\(|\(new Date\(\)\)|\bwindow\.\w+\s*[=.(\[]|"
    r"\bdocument\.\w+\s*[=.(]|\bue_t0\b|\.getTime\(\)"
)
"""The beginning of script that has lost its tags."""
ROUNDS = 3
"""How deep character references may be nested, as in &amp;amp;quot;."""


def find(raw: Path, settings: PrepareSettings) -> Files:
    """The ratings (csv, whole or in splits) or the reviews (JSON lines), and the metadata, plain or gzipped."""
    patterns = tuple(name + packed for name in REVIEWS for packed in ("", ".gz"))
    ratings = Wanted(role="ratings", patterns=patterns, without="meta*")
    return locate(raw, settings.source, (*SPLITS, META), (ratings, META))


def read(files: Files, settings: PrepareSettings) -> Imported:
    """Ratings with the titles of the products they name; the splits of one data set are joined in time."""
    meta = files["meta"][0]
    if "ratings" not in files:
        parts = [files[split.role][0] for split in SPLITS]
        note(f"{', '.join(path.name for path in parts)} are joined to one table; --split divides it anew.")
        tables = [_read_ratings(path) for path in parts]
        rows = [
            interactions(table, path, settings, user=user, item=item, time=time)
            for path, (table, user, item, time) in zip(parts, tables, strict=True)
        ]
        return Imported(
            rows=(joined := pl.concat(rows, how="vertical_relaxed")),
            catalogue=read_meta(meta, set(joined["item"].unique())),
        )
    ratings = files["ratings"][0]
    table, user, item, time = _read_ratings(ratings)
    catalogue = read_meta(meta, set(table[item].unique()) | set(table[user].unique() if user == "user" else ()))
    if user == "user" and _is_item_first(table, catalogue):
        note(f"{ratings}: the first column holds products and the second users; read so.")
        user, item = item, user
    return Imported(rows=interactions(table, ratings, settings, user=user, item=item, time=time), catalogue=catalogue)


AMAZON = Importer(find=find, read=read)


def read_meta(path: Path, wanted: set[str]) -> Catalogue:
    """Titles of the `wanted` products as plain text, with brand and category; titles of markup alone are counted."""
    markup_only: list[str] = []
    catalogue = catalogue_of(_products(path, wanted, markup_only))
    if lost := [item for item in dict.fromkeys(markup_only) if not catalogue[item].title]:
        note(f"{path}: {len(lost):,} products are titled by markup or script alone (such as {lost[0]}); left untitled.")
    return catalogue


def plain_text(text: str) -> str:
    """The words of a title; nothing where it is script alone. Angle brackets that are no tag stay.

    >>> plain_text('<span id="productTitle"> Tea &amp; Kettle </span> var aPageStart = (new Date()).getTime();')
    'Tea & Kettle'
    >>> plain_text("C++ <vector>, age < 5, I <3 tea")
    'C++ <vector>, age < 5, I <3 tea'
    """
    for _ in range(ROUNDS):
        text = html.unescape(text)
    bare = TAG.sub(" ", HIDDEN.sub(" ", text))
    if (script := SCRIPT.search(bare)) is not None:
        bare = bare[: script.start()]
    return text if bare == text else " ".join(bare.split())


def _read_ratings(path: Path) -> tuple[pl.DataFrame, str, str, str]:
    """The table and the names of its user, item and time columns; a file without a header has four fields."""
    if holds_objects(path):
        return _read_reviews(path)
    names = [name.strip() for name in str(numbered_lines(path)["text"][0]).split(",")]
    columns = [next((name for name in known if name in names), None) for known in (USER_NAMES, ITEM_NAMES, TIME_NAMES)]
    user, item, time = columns
    if user and item and time:
        return read_table(path, separator=",", quoting="auto"), user, item, time
    if any(columns) or len(names) != len(HEADLESS):
        raise DataError(
            f"{path}:1: found {', '.join(names)[:80]}. Expected a header with a user ({', '.join(USER_NAMES)}), an "
            f"item ({', '.join(ITEM_NAMES)}) and a time ({', '.join(TIME_NAMES)}), or no header and the fields user,"
            "item,rating,timestamp. For another table use --source pairs and name its columns."
        )
    return read_table(path, separator=",", columns=HEADLESS), "user", "item", "timestamp"


def _read_reviews(path: Path) -> tuple[pl.DataFrame, str, str, str]:
    """The same of reviews, one object a line; all have the field names of the first."""
    _, first = next(read_objects(path), (1, {}))
    columns = [next((name for name in known if name in first), "") for known in (USER_NAMES, ITEM_NAMES, TIME_NAMES)]
    if not all(columns):
        raise DataError(
            f"{path}:1: a review of {', '.join(first)[:120]}. Expected a user ({', '.join(USER_NAMES)}), an "
            f"item ({', '.join(ITEM_NAMES)}) and a time ({', '.join(TIME_NAMES)})."
        )
    user, item, time = columns
    return object_table(path, only=columns), user, item, time


def _is_item_first(table: pl.DataFrame, catalogue: Catalogue) -> bool:
    """Whether a headless table is of the release that writes item,user: its first column then has the metadata."""
    products = list(catalogue)
    first, second = (int(table[name].is_in(products).sum()) for name in ("user", "item"))
    return first > second


def _products(path: Path, wanted: set[str], markup_only: list[str]) -> Iterator[Item]:
    for number, row in read_objects(path):
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
            attributes = tuple((name, plain_text(str(value or ""))) for name, value in fields.items())
            raw = str(row.get("title") or "").strip()
            title = plain_text(raw)
            if item_id and raw and not title:
                markup_only.append(item_id)
            yield Item(item_id=item_id, title=title, attributes=attributes)
