"""From rows in file order to one total order (time, then file order): duplicates, repeats and k-core removed.

Raw ids become ids that can be words of a line and names of files, in interactions and titles alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from mllmrec.data.importers.source import Imported
from mllmrec.data.raw_ids import RawIds, safe_ids
from mllmrec.data.sequences import Catalogue
from mllmrec.errors import DataError
from mllmrec.storage.workspace import ID_PATTERN


def clean(imported: Imported, *, drop_repeats: bool = False, k_core: int = 0) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Rows user, item, timestamp by user and, within a user, by (timestamp, file order); and what was removed.

    Exact duplicates are rows of equal user, item and timestamp; the first stays. Users come in the order of their
    ids: by number where all are numbers.
    """
    rows, counts = imported.rows, {"rows_read": imported.rows.height}
    rows, left_out = _complete(rows)
    before = rows.height
    if imported.timed:
        rows = rows.unique(subset=["user", "item", "timestamp"], keep="first", maintain_order=True)
    counts["duplicates_removed"] = before - rows.height
    rows = in_total_order(rows)
    before = rows.height
    if drop_repeats:
        rows = rows.unique(subset=["user", "item"], keep="first", maintain_order=True)
    counts["repeats_dropped"] = before - rows.height
    facts: dict[str, Any] = {**counts, "left_out": left_out}
    if k_core:
        rows, facts["k_core"] = core(rows, k_core)
    return rows, facts


def in_total_order(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows sorted by user, timestamp and position in the file."""
    users = rows.select("user").unique()
    users = users.with_columns(pl.col("user").cast(pl.Int64, strict=False).alias("number"))
    by = ["user"] if users["number"].null_count() else ["number", "user"]
    users = users.sort(by).select("user").with_row_index("user_index")
    rows = rows.with_row_index("row_index").join(users, on="user", how="left")
    return rows.sort("user_index", "timestamp", "row_index").select("user", "item", "timestamp")


def core(rows: pl.DataFrame, k: int) -> tuple[pl.DataFrame, dict[str, int]]:
    """The rows left when users and items with fewer than `k` interactions are removed until none is."""
    start, rounds = rows, 0
    while True:
        kept = rows.filter((pl.len().over("user") >= k) & (pl.len().over("item") >= k))
        if kept.height == rows.height:
            break
        rows, rounds = kept, rounds + 1
    if rows.is_empty():
        raise DataError(
            f"No user and item have {k} interactions each: the {k}-core is empty. Expected a smaller --k-core; 0 "
            "leaves everything in."
        )
    return rows, {
        "k": k,
        "rounds": rounds,
        "users_removed": start["user"].n_unique() - rows["user"].n_unique(),
        "items_removed": start["item"].n_unique() - rows["item"].n_unique(),
        "interactions_removed": start.height - rows.height,
    }


def ties(rows: pl.DataFrame) -> dict[str, Any]:
    """How many interactions share their timestamp with another of the user, and how many users' last ones do.

    Where the last timestamp is tied, it is the order of rows in the file that decides which item is the target.
    """
    same_user = pl.col("user") == pl.col("user").shift(1)
    joined = (same_user & (pl.col("timestamp") == pl.col("timestamp").shift(1))).fill_null(False)
    marked = rows.with_columns((joined | joined.shift(-1, fill_value=False)).alias("tied"))
    last = marked.group_by("user").agg(pl.col("tied").last())["tied"]
    num_tied, num_users = int(marked["tied"].sum()), int(last.sum())
    return {
        "interactions": {"count": num_tied, "share": round(num_tied / rows.height, 6)},
        "users_last": {"count": num_users, "share": round(num_users / len(last), 6)},
    }


def with_safe_ids(imported: Imported) -> tuple[Imported, RawIds]:
    """The same interactions and titles in safe ids, and the raw ids of those that were changed.

    Safe ids keep their spelling. The new id depends on the raw one alone, so that a raw id always gets the same one.
    """
    users, items = (_spelt(imported.rows[column]) for column in ("user", "item"))
    if not (users or items):
        return imported, RawIds()
    rows = imported.rows.with_columns(pl.col("user").replace(users), pl.col("item").replace(items))
    titled = (replace(item, item_id=items.get(item.item_id, item.item_id)) for item in imported.catalogue.values())
    catalogue = Catalogue(titled, imported.catalogue.num_duplicates)
    return replace(imported, rows=rows, catalogue=catalogue), RawIds(users=_turned(users), items=_turned(items))


def kept_ids(raw_ids: RawIds, rows: pl.DataFrame) -> RawIds:
    """The raw ids of the users and items that `rows` hold."""
    return RawIds(
        users=_chosen(raw_ids.users, rows["user"].unique()), items=_chosen(raw_ids.items, rows["item"].unique())
    )


def _complete(rows: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """The rows that have a user, an item and a time, and how many lack one, by the first that they lack."""
    left_out = {}
    for name, there in (
        ("user", pl.col("user") != ""),
        ("item", pl.col("item") != ""),
        ("time", pl.col("timestamp").is_not_null()),
    ):
        kept = rows.filter(there)
        if count := rows.height - kept.height:
            left_out[f"no {name}"] = count
        rows = kept
    if rows.is_empty():
        reasons = ", ".join(f"{count:,} have {reason}" for reason, count in left_out.items())
        raise DataError(
            f"None of {sum(left_out.values()):,} rows has a user, an item and a time: {reasons}. Expected all three on "
            "each row; check that the right columns are named."
        )
    return rows, left_out


def _spelt(column: pl.Series) -> dict[str, str]:
    ids = column.unique()
    if ids.str.contains(f"^(?:{ID_PATTERN.pattern})$").all():
        return {}
    return safe_ids(ids.filter(ids != ""))


def _turned(spelt: dict[str, str]) -> dict[str, str]:
    return {safe: raw for raw, safe in spelt.items()}


def _chosen(raw: Mapping[str, str], ids: Iterable[str]) -> dict[str, str]:
    present = set(ids)
    return {safe: name for safe, name in raw.items() if safe in present}
