"""The result files of the reference implementation: one CSV and one JSON for each K, inside the RUN's folder.

`pred_topk` is one definite list, so candidates of equal score stand in candidate order there, and `hit` and `rank`
speak of that list. HR@K and NDCG@K in the JSON are the RUN's own, expectations over ties; a vacuous one is named so.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mllmrec.artifacts import replacing, write_json
from mllmrec.evaluation.rankings import UNANSWERED
from mllmrec.records import Ranking

COLUMNS = ("index", "target_id", "pred_topk", "hit", "rank")
BYTE_ORDER_MARK = "\ufeff"


def write_reference_files(folder: Path, rankings: Iterable[Ranking], facts: Mapping[str, Any]) -> None:
    """Write NAME_DATASET_topK.csv and .json for each K of the RUN whose metrics.json holds `facts`."""
    stems = {k: f"{facts['name']}_{facts['dataset']}_top{k}" for k in facts["top_k"]}
    with ExitStack() as stack:
        writers = {}
        for k, stem in stems.items():
            file = stack.enter_context(replacing(folder / f"{stem}.csv"))
            file.write(BYTE_ORDER_MARK)
            writers[k] = csv.writer(file, lineterminator="\n")
            writers[k].writerow(COLUMNS)
        for index, ranking in enumerate(rankings, 1):
            best = best_first(ranking, answered_only=facts["method"] == "generate")
            for k, writer in writers.items():
                writer.writerow(_row(index, ranking, best[:k]))
    for k, stem in stems.items():
        write_json(folder / f"{stem}.json", _summary(facts, k))


def remove_reference_files(folder: Path, name: str, dataset: str) -> None:
    """Take away those of an earlier RUN, which may have had other K."""
    for path in reference_files(folder, name, dataset):
        path.unlink()


def reference_files(folder: Path, name: str, dataset: str) -> list[Path]:
    """Those that are there."""
    return [path for suffix in ("csv", "json") for path in sorted(folder.glob(f"{name}_{dataset}_top*.{suffix}"))]


def best_first(ranking: Ranking, *, answered_only: bool) -> list[str]:
    """The candidates by descending score, equals in candidate order; without those that no answer named.

    >>> best_first(Ranking(example_id="e", user_id="7", target_id="5", candidates=("4", "5", "6"),
    ...                    scores=(0.0, 2.0, 1.0), higher=0, ties=0, rank=1.0), answered_only=True)
    ['5', '6']
    """
    pairs = sorted(zip(ranking.scores, ranking.candidates, strict=True), key=lambda pair: -pair[0])
    return [item for score, item in pairs if not (answered_only and score == UNANSWERED)]


def _row(index: int, ranking: Ranking, top: list[str]) -> tuple[object, ...]:
    hit = ranking.target_id in top
    return index, ranking.target_id, top, int(hit), top.index(ranking.target_id) + 1 if hit else ""


def _summary(facts: Mapping[str, Any], k: int) -> dict[str, Any]:
    hit_rate = facts["metrics"].get(f"HR@{k}")
    ndcg = facts["metrics"]["HR@1" if k == 1 else f"NDCG@{k}"]
    world_size = facts.get("world_size", 1)
    return {
        "dataset": facts["dataset"],
        "top_k": k,
        "HR@K": hit_rate["value"] if hit_rate else "vacuous",
        "NDCG@K": ndcg["value"],
        "total_test": facts["num_users"],
        "distributed": world_size > 1,
        "world_size": world_size,
    }
