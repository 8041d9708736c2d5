"""A checkpoint folder from its first step to its manifest.

While training runs the folder holds `unfinished.json` (what is being trained), the trainer's own `checkpoint-N`
folders to resume from, `best/` (the weights of the best validation so far), `training.jsonl` (one line for each log
and validation), `validation.jsonl` (each user's metric at each validation) and, for GRPO, `metrics.jsonl` (one row for
each validation). When it is through, the best weights move up, the first and the last log stay, and the rest goes.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mllmrec.data.candidates.negatives import VERSION
from mllmrec.data.model_folders import damage, weight_files
from mllmrec.errors import ArtifactError, DataError
from mllmrec.launch import rank_and_size
from mllmrec.progress import note
from mllmrec.settings.training import TrainingSettings
from mllmrec.storage.log_lines import read_records
from mllmrec.storage.manifests import Manifest, differences, manifest_path
from mllmrec.storage.workspace import read_json, write_json, write_jsonl

UNFINISHED = "unfinished.json"
BEST, DRAFT = "best", ".best"
TRAINER_STATE = "trainer_state.json"
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

    Raises ArtifactError when an interrupted run is there that was training something else, or any with --no-resume
    and without --overwrite. Only the `main` process touches the folder.
    """
    marker = folder / UNFINISHED
    what = {
        "verb": settings.verb,
        "settings": settings.result_settings(),
        "inputs": {**inputs, "number of processes": str(rank_and_size()[1])},
    }
    _refuse_foreign(folder, settings)
    if settings.overwrite and main:
        shutil.rmtree(folder, ignore_errors=True)
    last = None if settings.overwrite else last_checkpoint(folder)
    if last is not None:
        _refuse_other_run(last, read_json(marker) if marker.exists() else None, what, settings)
    if main:
        folder.mkdir(parents=True, exist_ok=True)
        _drop_broken(folder, last)
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
    """The newest `checkpoint-N` of the trainer that is whole; of another program's the newest."""
    processes = _processes(folder)
    begun = (folder / UNFINISHED).exists()
    whole = [path for path in folder.glob("checkpoint-*") if not begun or not faults(path, processes)]
    return max(whole, key=step_of, default=None)


def faults(checkpoint: Path, processes: int = 1) -> list[str]:
    """What a checkpoint lacks to go on exactly from it: files that are missing, or were cut off while they were saved.

    The trainer itself goes on without an optimizer's, scheduler's or generator's state, and comes to other weights.
    """
    generators = [f"rng_state_{rank}.pth" for rank in range(processes)] if processes > 1 else ["rng_state.pth"]
    states = [checkpoint / name for name in ("optimizer.pt", "scheduler.pt", *generators)]
    lost = [path.name for path in states if not zipfile.is_zipfile(path)]
    try:
        lost += [] if "global_step" in read_json(checkpoint / TRAINER_STATE) else [TRAINER_STATE]
        weights = weight_files(checkpoint)
    except (DataError, TypeError, AttributeError):
        return [*lost, TRAINER_STATE]
    lost += [path.name for path in weights if not path.is_file() or damage(path)]
    return lost if weights else [*lost, "weights"]


def place_best(folder: Path) -> None:
    """Put the best weights in place, before the manifest is written."""
    best = folder / BEST
    if best.exists():
        for path in best.iterdir():
            path.replace(folder / path.name)
        best.rmdir()
    if not weight_files(folder):
        raise ArtifactError(
            f"{best}, which held the best weights of this run, is gone. Expected it to stay until training ends. Start "
            "over with --overwrite."
        )


def model_files(folder: Path) -> list[Path]:
    """The files of a finished checkpoint without its logs."""
    logs = {LOG, TIMELINE, VALIDATED, UNFINISHED, manifest_path(folder).name}
    return [path for path in folder.iterdir() if path.is_file() and path.name not in logs and path.name[0] != "."]


def clear(folder: Path) -> None:
    """Remove what was only needed on the way, after the manifest is written, or what a killed process left of it."""
    for path in (*folder.glob("checkpoint-*"), folder / DRAFT):
        shutil.rmtree(path, ignore_errors=True)
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


def _drop_broken(folder: Path, last: Path | None) -> None:
    """Remove the checkpoints that can't be resumed from, and say so."""
    processes = _processes(folder)
    for path in sorted(folder.glob("checkpoint-*"), key=step_of):
        if lost := faults(path, processes):
            on = f"from {last.name}" if last is not None else "from the first step"
            note(f"{path} was cut off while it was saved ({', '.join(lost)} missing or torn); training goes on {on}.")
            shutil.rmtree(path)


def _processes(folder: Path) -> int:
    """How many processes train in a folder, as it was begun; 1 where that isn't known."""
    marker = folder / UNFINISHED
    return int(read_json(marker)["inputs"]["number of processes"]) if marker.exists() else 1


def _rewind(folder: Path, last: Path | None) -> None:
    """Take out of the logs what comes after the checkpoint: those steps are made again."""
    shutil.rmtree(folder / DRAFT, ignore_errors=True)
    if last is None:
        shutil.rmtree(folder / BEST, ignore_errors=True)
    for log in (folder / name for name in (LOG, TIMELINE, VALIDATED)):
        if last is None:
            log.unlink(missing_ok=True)
        elif log.exists():
            write_jsonl(log, (row for row in read_records(log, "step") if row["step"] <= step_of(last)))


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
    changes = [
        *differences("setting", settings.completed(before["settings"]), now["settings"]),
        *differences("input", before["inputs"], now["inputs"]),
    ]
    if changes:
        raise ArtifactError(
            f"{folder} holds an interrupted run (step {step}) that was made in another way: {'; '.join(changes)}. Give "
            "the same settings and inputs to go on with it, choose another --tag, or start over with --overwrite."
        )
    if not settings.resume:
        raise ArtifactError(
            f"{folder} holds an interrupted run that reached step {step}. Leave --no-resume out to go on with it, or "
            "start over with --overwrite."
        )
