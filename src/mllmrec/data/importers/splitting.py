"""From rows in file order to the lines of three splits.

Rows are put into one total order (time, then file order); duplicates, repeats and what is outside the k-core go. Raw
ids become ids that can be words of a line and names of files, in interactions and titles alike.

Every line is oldest first and ends with its target. A rule gives the position at which each user's three lines end (0:
no line); cutting, counting and dropping are common to all rules. The files of a dataset folder are each replaced whole.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from mllmrec.data.importers.source import Imported
from mllmrec.data.raw_ids import RawIds, safe_ids
from mllmrec.data.sequences import Catalogue
from mllmrec.errors import DataError, SettingsError
from mllmrec.records import Item
from mllmrec.settings.data import PrepareSettings
from mllmrec.storage.workspace import ID_PATTERN, SPLITS, DatasetFiles, replacing

BREAKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


def clean(imported: Imported, *, drop_repeats: bool = False, k_core: int = 0) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Rows user, item, timestamp by user and, within a user, by (timestamp, file order); and what was removed.

    Exact duplicates are rows of equal user, item and timestamp; the first stays. Users come in the order of their
    ids: by number where all are numbers.
    """
    rows, counts = imported.rows, {"rows_read": imported.rows.height + sum(imported.left_out.values())}
    rows, incomplete = _complete(rows)
    left_out = {**imported.left_out, **incomplete}
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


NARROWEST, KEPT_SHARE = 3, 0.9
TELLING_SHARE = 0.1
"""Share of users that fall away from which on the data card says how many lower windows would keep."""


@dataclass(frozen=True, kw_only=True)
class Division:
    """`lines` maps a split to a frame of user and items (a list); `rows` are the interactions that lie on a line."""

    lines: dict[str, pl.DataFrame]
    rows: pl.DataFrame
    facts: dict[str, Any]


def divide(rows: pl.DataFrame, imported: Imported, settings: PrepareSettings) -> Division:
    """The lines of all three splits under the settings' rule, from rows in total order."""
    if settings.split == "leave-one-out":
        return leave_one_out(rows, settings.min_inter)
    if not imported.timed:
        raise SettingsError(
            f"--split global-time needs timestamps, and these files of --source {settings.source} only give an order. "
            "Use --split leave-one-out, or raw files with timestamps."
        )
    return global_time(rows, settings.min_inter, settings.cut_share, settings.valid_cut_share)


def leave_one_out(rows: pl.DataFrame, min_inter: int) -> Division:
    """train = all but the last two items, valid = all but the last, test = all, of users with min_inter + 2 items."""
    needed = min_inter + 2
    users = rows.group_by("user", maintain_order=True).agg(pl.col("item").alias("items"), pl.len().alias("length"))
    longest = users.select(pl.col("length").max()).item()
    if longest < needed:
        remedy = (
            f"Lower --min-inter to {longest - 2} or less." if longest >= 4 else "Check that this is the right file."
        )
        raise DataError(
            f"No user has {needed} interactions, which leave-one-out needs for --min-inter {min_inter}: the longest "
            f"sequence has {longest}. Expected sequences of min-inter + 2 items, so that each of the three lines holds "
            f"a window. {remedy}"
        )
    length = pl.when(pl.col("length") >= needed).then(pl.col("length").cast(pl.Int64))
    ends = {split: (length - cut).fill_null(0) for split, cut in zip(SPLITS, (2, 1, 0), strict=True)}
    facts: dict[str, Any] = {"rule": "train = all but the last two items, valid = all but the last, test = all"}
    if users.select((pl.col("length") < needed).mean()).item() > TELLING_SHARE:
        lower = sorted({2, 3, 5, min_inter // 2} & set(range(2, min_inter)), reverse=True)
        kept = users.select((pl.col("length") >= own + 2).sum().alias(str(own)) for own in lower)
        facts["users_by_lower_window"] = kept.to_dicts()[0] if lower else {}
    return _division(rows, users, ends, f"fewer than {needed} interactions (min-inter + 2)", facts)


def widest_window(rows: pl.DataFrame, widest: int) -> int:
    """The widest window, from `NARROWEST` to `widest`, for which leave-one-out keeps `KEPT_SHARE` of the users.

    Users are those who are long enough for the narrowest one, which is also the answer where there are none.
    """
    lengths = rows.group_by("user").len()["len"]
    users = lengths.filter(lengths >= NARROWEST + 2)
    kept = [own for own in range(NARROWEST, widest + 1) if (users >= own + 2).sum() >= KEPT_SHARE * len(users)]
    return kept[-1] if len(users) else NARROWEST


def global_time(rows: pl.DataFrame, min_inter: int, cut_share: float, valid_cut_share: float) -> Division:
    """One line a user and split: the items up to the split's cut and, as target, the first item after it.

    A validation target lies between the two cuts. A train line is what lies up to the validation cut and ends with
    its own target there. Lines shorter than min_inter are left out.
    """
    latest: Any = rows["timestamp"].max()
    valid_cut, test_cut = (_cut(rows["timestamp"], share) for share in (valid_cut_share, cut_share))
    if not valid_cut < test_cut < latest:
        raise DataError(
            f"The cuts don't separate the data in time: validation cut {valid_cut}, test cut {test_cut}, last "
            f"timestamp {latest}. Expected three different times; choose other --valid-cut-share and --cut-share."
        )
    time = pl.col("timestamp")
    users = rows.group_by("user", maintain_order=True).agg(
        pl.col("item").alias("items"),
        (time <= valid_cut).sum().cast(pl.Int64).alias("by_valid_cut"),
        (time <= test_cut).sum().cast(pl.Int64).alias("by_test_cut"),
        pl.len().cast(pl.Int64).alias("length"),
    )
    by_valid_cut, by_test_cut = pl.col("by_valid_cut"), pl.col("by_test_cut")
    ends = {
        "train": by_valid_cut,
        "valid": pl.when(by_test_cut > by_valid_cut).then(by_valid_cut + 1).otherwise(0),
        "test": pl.when(pl.col("length") > by_test_cut).then(by_test_cut + 1).otherwise(0),
    }
    ends = {split: pl.when(end >= min_inter).then(end).otherwise(0) for split, end in ends.items()}
    facts = {
        "rule": "train = items up to the validation cut; valid and test = items up to their cut and the first after it",
        "valid_cut": valid_cut,
        "test_cut": test_cut,
    }
    division = _division(rows, users, ends, f"no line of {min_inter} items (min-inter)", facts)
    empty = [split for split, lines in division.lines.items() if lines.is_empty()]
    if empty:
        raise DataError(
            f"No user has a line of {min_inter} items in {', '.join(empty)}. Expected some in all three splits; lower "
            "--min-inter, or move --valid-cut-share and --cut-share."
        )
    return division


def write_dataset(files: DatasetFiles, division: Division, catalogue: Catalogue, raw_ids: RawIds) -> None:
    """train.tsv, valid.tsv, test.tsv, titles, pairs and, where ids were changed, raw ids of one dataset."""
    for split, lines in division.lines.items():
        write_lines(files.split(split), lines)
    write_pairs(files.folder / f"{files.name}_pairs.csv", division.rows)
    write_titles(files.folder / f"{files.name}_titles.csv", items_on_lines(division.rows, catalogue))
    raw_ids.write(files.folder / f"{files.name}_ids.csv")


def items_on_lines(rows: pl.DataFrame, catalogue: Catalogue) -> list[Item]:
    """The items that occur, titled ones in the order of the catalogue, then the others with an empty title.

    Items nobody met are left out: as negatives they would stand out by never having been chosen.
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


def _division(
    rows: pl.DataFrame, users: pl.DataFrame, ends: dict[str, pl.Expr], reason: str, facts: dict[str, Any]
) -> Division:
    users = users.select("user", "items", **ends).with_columns(pl.max_horizontal(*SPLITS).alias("end"))
    lines = {
        split: users.filter(pl.col(split) > 0).select("user", pl.col("items").list.head(pl.col(split)))
        for split in SPLITS
    }
    ranked = rows.with_columns(pl.int_range(pl.len()).over("user").alias("position"))
    ranked = ranked.join(users.select("user", "end"), on="user", how="left", maintain_order="left")
    kept = ranked.filter(pl.col("position") < pl.col("end")).select("user", "item", "timestamp")
    of_dropped = users.filter(pl.col("end") == 0)
    num_dropped = int(of_dropped["items"].list.len().sum())
    return Division(
        lines=lines,
        rows=kept,
        facts={
            **facts,
            "dropped_users": {reason: of_dropped.height} if of_dropped.height else {},
            "dropped_interactions": num_dropped,
            "interactions_after_last_target": rows.height - kept.height - num_dropped,
        },
    )


def _cut(timestamps: pl.Series, share: float) -> Any:
    """The earliest time up to which at least `share` of all interactions lie."""
    count = math.ceil(round(share * len(timestamps), 6))  # 0.55 * 100 is 55.00000000000001
    return timestamps.sort()[count - 1]
