"""Candidate lists as others publish them: LLMRank's, S3-Rec's, RecBole's, or a table or JSON of one's own.

    lines without a header    user, then its items:  `5077<TAB>1116 884 1081 ...`  or  `1 20 31 7 ...`
    a table with a header     a user column and one of candidates or negatives, perhaps a target and a history; or a
                              user and an item column with a row for each candidate, perhaps a label that is 1 for the
                              target
    JSON                      objects of the same names, one a line or in an array; or one object {user: [items]}

Columns are recognised by the names in `NAMES`, in RecBole's files without their types (`user_id:token`). Lists within a
field are separated by spaces, commas or bars, or written as JSON.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllmrec.data.importers.contents import content, holds_objects, read_objects
from mllmrec.data.importers.lines import USERS, item_words, user_and_items
from mllmrec.data.importers.table import numbered_lines, read_table
from mllmrec.errors import DataError

NAMES = {
    "user": USERS,
    "candidates": ("candidates", "candidate_ids", "candidate_items", "candidate_list", "items"),
    "negatives": ("negatives", "negative_ids", "negative_items", "negative_list", "neg_items", "neg_ids"),
    "target": ("target", "target_id", "target_item", "positive", "pos_item", "ground_truth"),
    "history": ("history", "history_items", "item_id_list", "sequence"),
    "item": ("item", "item_id", "itemid", "iid"),
    "label": ("label", "is_target", "clicked"),
}
"""The names that a column or a key may have, best first."""
TRUE, FALSE = ("1", "1.0", "true"), ("0", "0.0", "-1", "-1.0", "false")
EXPECTED = (
    "Expected a user and its items in each line, or columns or JSON keys named user and candidates (or negatives), "
    "with target where lists don't end a user's line; see docs/protocols.md"
)
TYPE = re.compile(r":(token|float)(_seq)?$")
SEPARATORS = ("\t", ",", ";")


@dataclass(frozen=True, kw_only=True)
class ForeignList:
    """One list of a file, in the file's own ids; `target` and `history` only where the file has them.

    `negatives` says that the file calls the items negatives, so that the target isn't expected among them.
    """

    where: str
    user: str
    items: tuple[str, ...]
    target: str | None = None
    history: tuple[str, ...] | None = None
    negatives: bool = False


def read_foreign_lists(path: Path) -> list[ForeignList]:
    """The lists of a file in its order. Raises DataError, with the line, for what can't be read."""
    if holds_objects(path):
        return list(_of_objects(path))
    first = str(numbered_lines(path)["text"][0])
    separator = max(SEPARATORS, key=first.count)
    header = _columns(TYPE.sub("", name.strip().strip('"')) for name in first.split(separator))
    if "user" in header:
        return list(_of_table(path, separator, header))
    return list(_of_lines(path))


def _of_lines(path: Path) -> Iterator[ForeignList]:
    for number, text in numbered_lines(path).iter_rows():
        where = f"{path}:{number}"
        user, rest = user_and_items(text, where)
        items = _ids(rest, where)
        if len(items) < 2:
            raise DataError(f"{where}: no list: {text.strip()[:80]!r}. {EXPECTED}.")
        yield ForeignList(where=where, user=user, items=items)


def _of_table(path: Path, separator: str, header: Mapping[str, str]) -> Iterator[ForeignList]:
    table = read_table(path, separator=separator, quoting="auto")
    table = table.rename({name: TYPE.sub("", name) for name in table.columns})
    rows = ((f"{path}:{row['line']}", row) for row in table.iter_rows(named=True))
    if "candidates" in header or "negatives" in header:
        yield from (_whole(where, row, header) for where, row in rows)
    else:
        yield from _gathered(path, rows, header)


def _of_objects(path: Path) -> Iterator[ForeignList]:
    whole = _one_object(path)
    if whole is not None:
        for user, items in whole.items():
            yield ForeignList(where=f"{path}, user {user}", user=user, items=_ids(items, f"{path}, user {user}"))
        return
    rows = ((f"{path}:{number}", row) for number, row in read_objects(path))
    where, first = next(rows, ("", {}))
    header = _columns(first)
    if "user" not in header:
        raise DataError(f"{where or path}: the keys are {', '.join(first) or 'none'}. {EXPECTED}.")
    chained = ((at, row) for part in ([(where, first)], rows) for at, row in part)
    if "candidates" in header or "negatives" in header:
        yield from (_whole(at, row, _columns(row)) for at, row in chained)
    else:
        yield from _gathered(path, chained, header)


def _one_object(path: Path) -> dict[str, Any] | None:
    """The one object {user: [items]} that a file may be; None for another file."""
    repeated = list[str]()

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        repeated.extend(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        return dict(pairs)

    try:
        value = json.loads(content(path), object_pairs_hook=once)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not value or "user" in _columns(value):
        return None
    if not all(isinstance(items, list) for items in value.values()):
        return None
    if repeated:
        raise DataError(f"{path}: user {repeated[0]} has two lists. Expected each user once; take one away.")
    return value


def _columns(names: Iterable[str]) -> dict[str, str]:
    """role -> the column that has it."""
    there = {name.lower(): name for name in names}
    return {
        role: there[next(name for name in known if name in there)]
        for role, known in NAMES.items()
        if any(name in there for name in known)
    }


def _whole(where: str, row: Mapping[str, Any], header: Mapping[str, str]) -> ForeignList:
    """The list of one row."""
    role = next((role for role in ("candidates", "negatives") if role in header), None)
    if role is None or "user" not in header:
        raise DataError(f"{where}: no user or no candidates among {', '.join(row)}. {EXPECTED}.")
    target = row.get(header["target"]) if "target" in header else row.get(header["item"]) if "item" in header else None
    history = row.get(header["history"]) if "history" in header else None
    _refuse_another_list(where, row, header)
    return ForeignList(
        where=where,
        user=_id(row[header["user"]], where),
        items=_ids(row[header[role]], where),
        target=None if target in (None, "") else _id(target, where),
        history=None if history in (None, "") else _ids(history, where),
        negatives=role == "negatives",
    )


def _refuse_another_list(where: str, row: Mapping[str, Any], header: Mapping[str, str]) -> None:
    """A DataError where candidates don't hold the negatives beside them: they may be what the user chose."""
    if "candidates" not in header or row.get(header.get("negatives", "")) in (None, ""):
        return
    listed, negatives = (header[role] for role in ("candidates", "negatives"))
    if lacking := {*_ids(row[negatives], where)} - {*_ids(row[listed], where)}:
        raise DataError(
            f"{where}: {listed} lacks {min(lacking)}, which is one of {negatives}. Expected candidates that hold the "
            "negatives, or one of the two alone; take the other away."
        )


def _gathered(
    path: Path, rows: Iterable[tuple[str, Mapping[str, Any]]], header: Mapping[str, str]
) -> Iterator[ForeignList]:
    """Lists with a row for each candidate, gathered by user."""
    if "item" not in header:
        raise DataError(f"{path}: no candidates, negatives or item among the columns. {EXPECTED}.")
    items, wheres, targets = dict[str, list[str]](), dict[str, str](), dict[str, str]()
    for where, row in rows:
        user, item = _id(row.get(header["user"]), where), _id(row.get(header["item"]), where)
        items.setdefault(user, []).append(item)
        wheres.setdefault(user, where)
        for target in _targets(row, item, header, where):
            if targets.setdefault(user, target) != target:
                raise DataError(
                    f"{where}: user {user} has a second target, {target}. Expected one target a user; call a column "
                    "of 0 and 1 label."
                )
    for user, own in items.items():
        yield ForeignList(where=wheres[user], user=user, items=tuple(own), target=targets.get(user))


def _targets(row: Mapping[str, Any], item: str, header: Mapping[str, str], where: str) -> Iterator[str]:
    """The target by a candidate's row: this item where its label says so, or the id in a column of its own."""
    if "label" in header and _is_true(row.get(header["label"]), header["label"], where):
        yield item
    if "target" in header and row.get(header["target"]) not in (None, ""):
        yield _id(row[header["target"]], where)


def _is_true(value: Any, name: str, where: str) -> bool:
    """Whether a label says target: 1, 1.0 and true do; 0, -1 and false don't."""
    text = str(value).strip().lower()
    if text not in (*TRUE, *FALSE):
        raise DataError(f"{where}: the {name} is {value!r}. Expected 1 for the target and 0 for the other candidates.")
    return text in TRUE


def _ids(value: Any, where: str) -> tuple[str, ...]:
    """The ids of a field: a list, JSON in a text, or words. Equal ids share one string, as a file repeats them much."""
    if isinstance(value, str):
        text = value.strip()
        if text[:1] not in ("[", "("):
            return tuple(map(sys.intern, item_words(text, where)))
        value = _literal(text, where)
    if not isinstance(value, Sequence):
        raise DataError(f"{where}: not a list of ids: {str(value)[:80]!r}. {EXPECTED}.")
    return tuple(sys.intern(_id(item, where)) for item in value)


def _literal(text: str, where: str) -> Any:
    """A list as JSON or Python writes it."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    raise DataError(f"{where}: not a list: {text[:80]!r}. {EXPECTED}.")


def _id(value: Any, where: str) -> str:
    """An id as text, whole numbers without a point."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise DataError(f"{where}: {value!r} is no id. Expected a text or a whole number. {EXPECTED}.")
    return str(value).strip()
