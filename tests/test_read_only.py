"""A workspace that can't be written: what is finished there is read, and no stage needs a lock to say so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from unprivileged import unprivileged
from workspaces import tsv, write_dataset

from mllmrec.data.candidates.stage import run as candidates
from mllmrec.evaluation.baselines.stage import run as baselines
from mllmrec.reasoning.writing.pseudo_cot import run as pseudo_cot
from mllmrec.reasoning.writing.refine import run as refine
from mllmrec.records import Summary
from mllmrec.settings.data import CandidatesSettings
from mllmrec.settings.evaluation import BaselinesSettings
from mllmrec.settings.texts import PseudoCotSettings, RefineSettings
from mllmrec.storage.workspace import Workspace

LINES = tsv({str(user): [f"i{(user * 3 + step * 7) % 40}" for step in range(12)] for user in range(20)})


def stages(root: Path) -> dict[str, Callable[[], Summary]]:
    """Stages that are made whole, row by row, and from a working log."""
    workspace, where = Workspace(root), {"root": str(root), "dataset": "shop"}
    return {
        "candidates": lambda: candidates(CandidatesSettings(min_inter=5, **where), workspace),
        "baselines": lambda: baselines(BaselinesSettings(min_inter=5, names=("popularity",), **where), workspace),
        "pseudo-cot": lambda: pseudo_cot(PseudoCotSettings(min_inter=5, **where), workspace),
        "refine": lambda: refine(RefineSettings(**where), workspace),
    }


def again(root: Path) -> dict[str, str]:
    """What each stage says, and what one says that has something to do."""
    said = {name: run().headline for name, run in stages(root).items()}
    try:
        settings = CandidatesSettings(root=str(root), dataset="shop", min_inter=5, num_neg=3)
        said["another"] = candidates(settings, Workspace(root)).headline
    except PermissionError as error:
        said["another"] = f"{error.filename}: {error.strerror}"
    return said


def test_finished_stages_say_so_in_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    write_dataset(tmp_path, train=LINES, test=LINES)
    for run in stages(tmp_path).values():
        run()
    before = sorted(tmp_path.rglob("*"))
    for path in (tmp_path, *before):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        said = unprivileged(lambda: again(tmp_path))
    finally:
        for path in (tmp_path, *before):
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert sorted(tmp_path.rglob("*")) == before
    another = said.pop("another")
    assert [name for name, headline in said.items() if "nothing to do" not in headline] == []
    assert another.startswith(f"{tmp_path}/data/shop/processed/")
    assert another.endswith("Permission denied")
