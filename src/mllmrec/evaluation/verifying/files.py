"""The reference implementation's CSV and JSON files of a RUN, held against its rankings."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mllmrec.evaluation.verifying.checks import Checks
from mllmrec.evaluation.verifying.metrics import mean, value_of
from mllmrec.evaluation.verifying.rankings import Placed

CHECK = "reference files"
HEADER = ["index", "target_id", "pred_topk", "hit", "rank"]


def check_reference_files(checks: Checks, folder: Path, facts: Mapping[str, Any], users: Sequence[Placed]) -> None:
    """Both files of each K, and that no file of another K lies beside them."""
    stems = {k: f"{facts['name']}_{facts['dataset']}_top{k}" for k in facts["top_k"]}
    expected = {f"{stem}.{suffix}" for stem in stems.values() for suffix in ("csv", "json")}
    there = {path.name for path in folder.glob(f"{facts['name']}_{facts['dataset']}_top*.*")}
    for name in sorted(expected | there):
        wrong = "is missing" if name in expected else "belongs to no K of the RUN"
        checks.look(CHECK, name in expected & there, f"{name} {wrong}")
    for k, stem in stems.items():
        if f"{stem}.csv" in there:
            _check_csv(checks, folder / f"{stem}.csv", users, k)
        if f"{stem}.json" in there:
            _check_json(checks, folder / f"{stem}.json", facts, users, k)


def _check_csv(checks: Checks, path: Path, users: Sequence[Placed], k: int) -> None:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    checks.equal(CHECK, f"the header of {path.name}", header, HEADER)
    checks.equal(CHECK, f"the number of rows of {path.name}", len(rows), len(users))
    for index, (row, user) in enumerate(zip(rows, users, strict=False), 1):
        checks.equal(CHECK, f"row {index} of {path.name}", row, _row(index, user, k))


def _row(index: int, user: Placed, k: int) -> list[str]:
    top = list(user.best[:k])
    rank = str(top.index(user.target_id) + 1) if user.target_id in top else ""
    return [str(index), user.target_id, str(top), "1" if rank else "0", rank]


def _check_json(checks: Checks, path: Path, facts: Mapping[str, Any], users: Sequence[Placed], k: int) -> None:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        checks.look(CHECK, False, f"{path.name} is no JSON ({error})")
        return
    if not checks.look(CHECK, isinstance(told, dict), f"{path.name} is no JSON object"):
        return
    size = facts["world_size"]
    plain = {"dataset": facts["dataset"], "top_k": k, "total_test": len(users)}
    plain |= {"world_size": size, "distributed": size > 1}
    for key, value in plain.items():
        checks.equal(CHECK, f"{key} of {path.name}", told.get(key), value)
    for key, name in (("HR@K", f"HR@{k}"), ("NDCG@K", f"NDCG@{k}")):
        found: float | str = mean([value_of(name, user.positions) for user in users])
        if key == "HR@K" and name in facts["vacuous"]:
            found = "vacuous"
        given = told.get(key)
        alike = given == found or (isinstance(given, float) and isinstance(found, float) and abs(given - found) < 1e-9)
        checks.look(CHECK, alike, f"{key} of {path.name} is told as {given!r} and comes out as {found!r}")
