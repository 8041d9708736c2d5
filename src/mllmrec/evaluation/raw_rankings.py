"""The rankings of a RUN in raw ids, beside its own: for readers who know the data by the ids it came with.

Everything else reads rankings.jsonl; this file is an export and no part of what the manifest vouches for.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mllmrec.artifacts import Workspace
from mllmrec.data.raw_ids import RawIds
from mllmrec.evaluation.rankings import read_rankings, write_rankings
from mllmrec.evaluation.runs import RAW_RANKINGS
from mllmrec.launch import rank_and_size
from mllmrec.manifests import Manifest
from mllmrec.progress import note
from mllmrec.records import Ranking


def write_raw_rankings(folder: Path, workspace: Workspace, dataset: str) -> None:
    """Write the rankings of a finished RUN in raw ids; one process does."""
    if rank_and_size()[0] or Manifest.read(folder) is None:
        return
    known = RawIds.read(workspace.raw_ids(dataset))
    path = folder / RAW_RANKINGS
    count = write_rankings(path, (_in_raw_ids(ranking, known) for ranking in read_rankings(folder / "rankings.jsonl")))
    note(f"{path} holds {count:,} rankings in raw ids.")


def _in_raw_ids(ranking: Ranking, known: RawIds) -> Ranking:
    return replace(
        ranking,
        user_id=known.user(ranking.user_id),
        target_id=known.item(ranking.target_id),
        candidates=tuple(map(known.item, ranking.candidates)),
    )
