"""A checkpoint folder from its first step to its manifest.

While training runs the folder holds `unfinished.json` (what is being trained), the trainer's own `checkpoint-N`
folders to resume from, `best/` (the weights of the best validation so far) and `training.jsonl` (one line for each
log and validation). When it is through, the best weights move up and the rest goes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from mllmrec.artifacts import read_json, write_json
from mllmrec.errors import ArtifactError
from mllmrec.settings.training import TrainingSettings

UNFINISHED = "unfinished.json"
BEST = "best"
LOG = "training.jsonl"


def begin(folder: Path, settings: TrainingSettings, inputs: Mapping[str, str], *, main: bool = True) -> Path | None:
    """Make the folder ready and return the trainer checkpoint to resume from, None for a fresh start.

    Raises ArtifactError when an interrupted run is there and neither --resume nor --overwrite was given, or when it
    was training something else. Only the `main` process touches the folder.
    """
    marker = folder / UNFINISHED
    what = {"verb": settings.verb, "settings": settings.result_settings(), "inputs": dict(inputs)}
    if settings.overwrite and main:
        shutil.rmtree(folder, ignore_errors=True)
    last = None if settings.overwrite else last_checkpoint(folder)
    if last is not None and marker.exists():
        _refuse_other_run(folder, last, read_json(marker), what, settings.resume)
    elif last is None and main:
        (folder / LOG).unlink(missing_ok=True)
        shutil.rmtree(folder / BEST, ignore_errors=True)
    if main:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(marker, what)
    return last


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete `checkpoint-N` of the trainer; one without a trainer state was cut off while saving."""
    complete = [path for path in folder.glob("checkpoint-*") if (path / "trainer_state.json").exists()]
    return max(complete, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def finish(folder: Path) -> None:
    """Put the best weights in place and remove what was only needed on the way."""
    best = folder / BEST
    if best.exists():
        for path in best.iterdir():
            path.replace(folder / path.name)
        best.rmdir()
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path)
    (folder / UNFINISHED).unlink(missing_ok=True)


def _refuse_other_run(
    folder: Path, last: Path, before: Mapping[str, object], now: Mapping[str, object], resume: bool
) -> None:
    step = last.name.rsplit("-", 1)[1]
    if before != now:
        raise ArtifactError(
            f"{folder} holds an interrupted run (step {step}) with other settings or inputs. Give it the same ones "
            "and --resume, choose another --tag, or start over with --overwrite."
        )
    if not resume:
        raise ArtifactError(
            f"{folder} holds an interrupted run that reached step {step}. Go on with --resume, or start over with "
            "--overwrite."
        )
