"""Raw ids to ids that can be words of a line and names of files, in interactions and titles alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import polars as pl

from mllmrec.artifacts import ID_PATTERN
from mllmrec.data.importers.source import Imported
from mllmrec.data.raw_ids import RawIds, safe_ids
from mllmrec.data.sequences import Catalogue


def with_safe_ids(imported: Imported) -> tuple[Imported, RawIds]:
    """The same interactions and titles in safe ids, and the raw ids of those that were changed.

    Ids that are safe keep their spelling. Users and items are spelt alone: the same raw id gives the same safe one.
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
