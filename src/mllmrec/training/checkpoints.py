"""A checkpoint folder from its first step to its manifest.

While training runs the folder holds `unfinished.json` (what is being trained), the trainer's own `checkpoint-N`
folders to resume from, `best/` (the weights of the best validation so far), `training.jsonl` (one line for each log
and validation), `validation.jsonl` (each user's metric at each validation) and, for GRPO, `metrics.jsonl` (one row for
each validation). When it is through, the best weights move up, the first and the last log stay, and the rest goes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mllmrec.artifacts import read_json, write_json, write_jsonl
from mllmrec.data.negatives import VERSION
from mllmrec.errors import ArtifactError
from mllmrec.manifests import Manifest, differences, manifest_path
from mllmrec.settings.training import TrainingSettings

UNFINISHED = "unfinished.json"
BEST = "best"
LOG = "training.jsonl"
TIMELINE = "metrics.jsonl"
VALIDATED = "validation.jsonl"


def draws_of(folder: Path, settings: TrainingSettings) -> int:
    """The version by which lists are drawn: that of an interrupted run which is resumed, else the newest."""
    marker = folder / UNFINISHED
    if settings.overwrite or last_checkpoint(folder) is None or not marker.exists():
        return VERSION
    return int(read_json(marker).get("draws", 1))


def begin(
    folder: Path, settings: TrainingSettings, inputs: Mapping[str, str], draws: int = VERSION, *, main: bool = True
) -> Path | None:
    """Make the folder ready and return the trainer checkpoint to resume from, None for a fresh start.

    Raises ArtifactError when an interrupted run is there and neither --resume nor --overwrite was given, or when it
    was training something else. Only the `main` process touches the folder.
    """
    marker = folder / UNFINISHED
    what = {
        "verb": settings.verb,
        "settings": settings.result_settings(),
        "inputs": {**inputs, "number of processes": os.environ.get("WORLD_SIZE", "1")},
    }
    _refuse_foreign(folder, settings)
    if settings.overwrite and main:
        shutil.rmtree(folder, ignore_errors=True)
    last = None if settings.overwrite else last_checkpoint(folder)
    if last is not None:
        _refuse_other_run(last, read_json(marker) if marker.exists() else None, what, settings)
    if main:
        folder.mkdir(parents=True, exist_ok=True)
        _rewind(folder, last)
        write_json(marker, {**what, "draws": draws})
    return last


def refuse_own_input(folder: Path, model: str | Path) -> None:
    """Refuse to write a checkpoint over the model that it starts from."""
    if folder.resolve() == Path(model).resolve():
        raise ArtifactError(
            f"{folder} is the model that this run starts from, and can't be its result. Choose a --tag."
        )


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete `checkpoint-N` of the trainer; one without a trainer state was cut off while saving."""
    complete = [path for path in folder.glob("checkpoint-*") if (path / "trainer_state.json").exists()]
    return max(complete, key=step_of, default=None)


def place_best(folder: Path) -> None:
    """Put the best weights in place, before the manifest is written."""
    best = folder / BEST
    if best.exists():
        for path in best.iterdir():
            path.replace(folder / path.name)
        best.rmdir()


def model_files(folder: Path) -> list[Path]:
    """The files of a finished checkpoint without its logs."""
    logs = {LOG, TIMELINE, VALIDATED, UNFINISHED, manifest_path(folder).name}
    return [path for path in folder.iterdir() if path.is_file() and path.name not in logs and path.name[0] != "."]


def clear(folder: Path) -> None:
    """Remove what was only needed on the way, after the manifest is written."""
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path)
    (folder / VALIDATED).unlink(missing_ok=True)
    (folder / UNFINISHED).unlink(missing_ok=True)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1])


def _refuse_foreign(folder: Path, settings: TrainingSettings) -> None:
    """Refuse to train into a folder that holds a model which this program didn't make."""
    weights = any(folder.glob("*.safetensors"))
    if weights and not settings.overwrite and not (folder / UNFINISHED).exists() and Manifest.read(folder) is None:
        raise ArtifactError(
            f"{folder} holds a model of another origin. Choose another --tag, or replace it with --overwrite."
        )


def _rewind(folder: Path, last: Path | None) -> None:
    """Take out of the logs what comes after the checkpoint: those steps are made again."""
    if last is None:
        shutil.rmtree(folder / BEST, ignore_errors=True)
    for log in (folder / name for name in (LOG, TIMELINE, VALIDATED)):
        if last is None:
            log.unlink(missing_ok=True)
        elif log.exists():
            whole = [line for line in log.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            rows = map(json.loads, whole)
            write_jsonl(log, (row for row in rows if row["step"] <= step_of(last)))


def _refuse_other_run(
    last: Path, before: Mapping[str, Any] | None, now: Mapping[str, Any], settings: TrainingSettings
) -> None:
    folder, step = last.parent, step_of(last)
    if before is None:
        raise ArtifactError(
            f"{folder} holds checkpoints of another program ({last.name}) and no {UNFINISHED}. Choose another --tag, "
            "or replace them with --overwrite."
        )
    if before["verb"] != now["verb"]:
        raise ArtifactError(
            f"{folder} holds an interrupted run of `mllmrec {before['verb']}` (step {step}). Choose another --tag, or "
            "start over with --overwrite."
        )
    found = [
        *differences("setting", settings.completed(before["settings"]), now["settings"]),
        *differences("input", before["inputs"], now["inputs"]),
    ]
    if found:
        raise ArtifactError(
            f"{folder} holds an interrupted run (step {step}) that was made in another way: {'; '.join(found)}. Give "
            "the same settings and inputs and --resume, choose another --tag, or start over with --overwrite."
        )
    if not settings.resume:
        raise ArtifactError(
            f"{folder} holds an interrupted run that reached step {step}. Go on with --resume, or start over with "
            "--overwrite."
        )
