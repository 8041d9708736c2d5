"""The datasets, models and checkpoints of a workspace, their state, and the command that comes next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from mllmrec.data.model_folders import is_adapter, lacking
from mllmrec.errors import ArtifactError, DataError
from mllmrec.pipeline.own import SMALL
from mllmrec.records import Table, counted
from mllmrec.stages import STAGES
from mllmrec.storage.log_lines import log_paths
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import ID_PATTERN, IMAGE_SUFFIXES, Workspace
from mllmrec.vision.images import ImageFolder

# Folders of the layout that are no model folders.
LAYOUT = ("data", "checkpoints", "result", "raw")
COMPLETE = "complete"
LOOKED_AT, SHOWN = 5_000, 3
"""Images whose headers are read, and how many that can't be used are named."""
Row = tuple[str, str, str]


def datasets(workspace: Workspace) -> list[str]:
    """The datasets of a workspace: the folders under data/ that hold sequences or titles."""
    folder = workspace.root / "data"
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return [name for name in names if ID_PATTERN.fullmatch(name) and _is_dataset(folder / name)]


def dataset_table(workspace: Workspace, dataset: str) -> Table:
    """The files of a dataset, each with the command that makes it where it is missing."""
    return Table(
        title=f"Dataset {dataset}",
        columns=("file", "state", "what makes it"),
        rows=tuple(_files(workspace, dataset)),
        justify="left",
    )


def models_table(workspace: Workspace) -> Table:
    """The model folders under the root, complete or not."""
    rows = [(folder.name, *_model_state(folder)) for folder in model_folders(workspace)]
    rows = rows or [("none", "", "mllmrec fetch backbone Qwen/Qwen3-4B")]
    return Table(title="Model folders", columns=("folder", "state", "what mends it"), rows=tuple(rows), justify="left")


def checkpoints_table(workspace: Workspace, dataset: str) -> Table:
    """The checkpoints of a dataset: finished by their manifest, or to go on with."""
    rows = [(folder.name, *_checkpoint_state(folder)) for folder in checkpoint_folders(workspace, dataset)]
    return Table(
        title=f"Checkpoints of {dataset}",
        columns=("tag", "state", "what finishes it"),
        rows=tuple(rows) or (("none", "", ""),),
        justify="left",
    )


def next_step(workspace: Workspace, dataset: str, *, gpu: bool) -> str:
    """The first command of the pipeline that has not been run yet; without a GPU one command for all of it."""
    try:
        return _next_command(workspace, dataset, gpu)
    except OSError as error:
        return f"make {error.filename} readable ({error.strerror})"


def model_folders(workspace: Workspace) -> list[Path]:
    """Folders under the root that are models or were meant to be."""
    if not workspace.root.is_dir():
        return []
    return sorted(
        folder
        for folder in workspace.root.iterdir()
        if folder.is_dir() and folder.name not in LAYOUT and not folder.name.startswith(".") and _is_model(folder)
    )


def checkpoint_folders(workspace: Workspace, dataset: str) -> list[Path]:
    folder = workspace.root / "checkpoints" / dataset
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _is_dataset(folder: Path) -> bool:
    """Whether a folder holds sequences or titles, or may hold them and can't be read."""
    try:
        return any(path.suffix == ".tsv" or path.name == f"{folder.name}_titles.csv" for path in folder.iterdir())
    except OSError:
        return True


def _next_command(workspace: Workspace, dataset: str, gpu: bool) -> str:
    flag = f"--dataset {dataset}"
    files = workspace.dataset(dataset)
    if not (files.split("train").exists() and files.titles.exists()):
        return f"mllmrec prepare --source NAME --raw FOLDER {flag}"
    models = [folder.name for folder in model_folders(workspace) if _model_state(folder)[0] == COMPLETE]
    checkpoints = {folder: _manifest(folder) for folder in checkpoint_folders(workspace, dataset)}
    if not gpu and set(models) <= {SMALL} and not any(checkpoints.values()):
        return f"mllmrec run own {flag} --size cpu"
    if not list(files.processed.glob("test_*.jsonl")):
        return f"mllmrec candidates {flag}"
    if not _ranked(workspace, dataset):
        return f"mllmrec baselines {flag}"
    whole = {
        folder: manifest for folder, manifest in checkpoints.items() if manifest and not manifest.settings.get("fold")
    }
    by_verb = {manifest.verb: folder for folder, manifest in whole.items()}
    if not models and not by_verb:
        return "mllmrec fetch backbone Qwen/Qwen3-4B"
    if "grpo" in by_verb and by_verb["grpo"].name in _ranked(workspace, dataset):
        return _with_results(workspace, dataset, by_verb["grpo"].name, checkpoints[by_verb["grpo"]])
    if "grpo" in by_verb:
        manifest = checkpoints[by_verb["grpo"]]
        base = manifest.settings.get("sft_tag", "") if manifest else ""
        return f"mllmrec evaluate {flag} --sft-tag {base} --tag {by_verb['grpo'].name}"
    full = by_verb.get("merge") or _full_model(by_verb.get("sft"))
    if full is not None:
        return f"mllmrec grpo {flag} --sft-tag {full.name}"
    if "sft" in by_verb:
        return f"mllmrec merge {flag} --tag {by_verb['sft'].name}"
    return f"mllmrec sft {flag} --backbone {models[0]}"


def _with_results(workspace: Workspace, dataset: str, tag: str, manifest: Manifest | None) -> str:
    """What to do with a ranked model: write the report, then compare its RUN or let it recommend."""
    results = workspace.dataset(dataset).results
    if not _is_latest(results / "report.html"):
        return f"mllmrec report --dataset {dataset}"
    base = manifest.settings.get("sft_tag", "") if manifest else ""
    model = [word for flag, name in (("--sft-tag", base), ("--tag", tag)) if name for word in (flag, name)]
    commands = [f"mllmrec recommend --dataset {dataset} {' '.join(model)} --user USER"]
    own = sorted(path.parent for path in results.glob(f"{tag}/*/manifest.json"))
    others = sorted(path.parent for path in results.glob(f"*/{own[0].name}/manifest.json") if path.parent != own[0])
    if others:
        other = next((folder for folder in others if folder.parent.name == base), others[0])
        names = (folder.relative_to(workspace.root).as_posix() for folder in (other, own[0]))
        commands.insert(0, f"mllmrec compare {' '.join(names)}")
    return f"{', or '.join(commands)}; {results / 'report.html'} shows all results"


def _ranked(workspace: Workspace, dataset: str) -> set[str]:
    """The names of recommenders that have a RUN."""
    return {manifest.parent.parent.name for manifest in workspace.dataset(dataset).results.glob("*/*/manifest.json")}


def _is_latest(page: Path) -> bool:
    """Whether a report was written after every RUN beside it."""
    made = [manifest.stat().st_mtime_ns for manifest in page.parent.glob("*/*/manifest.json")]
    return page.exists() and page.stat().st_mtime_ns >= max(made)


def _is_model(folder: Path) -> bool:
    """Whether a folder holds a configuration or weights, or may hold them and can't be read."""
    try:
        return any(path.name == "config.json" or path.suffix == ".safetensors" for path in folder.iterdir())
    except OSError:
        return True


def _files(workspace: Workspace, dataset: str) -> Iterator[Row]:
    flag = f"--dataset {dataset}"
    prepare = f"mllmrec prepare --source NAME --raw FOLDER {flag}"
    files = workspace.dataset(dataset)
    needed: list[tuple[Path, Callable[[Path], str], str, str]] = [
        (files.split("train"), _lines, "missing", prepare),
        (files.split("valid"), _lines, "absent: a tenth of the users validates", ""),
        (
            files.split("test"),
            _lines,
            "absent: training works, evaluation on test doesn't",
            prepare,
        ),
        (files.titles, _with_header, "missing", prepare),
        (files.images, _images, "absent: prompts hold text alone", ""),
    ]
    for stage in STAGES.values():
        if stage.file is not None:
            path = stage.file(files)
            needed.append((path, _size, f"absent: {stage.without}", f"mllmrec {stage.command} {flag}"))
    for path, describe, absent, command in needed:
        yield path.name, *_file_state(path, describe, absent, command)
    try:
        frozen = sorted(files.processed.glob("*.jsonl"))
    except OSError as error:
        yield "processed/*.jsonl", f"unreadable: {error.strerror}", f"make {error.filename} readable"
        return
    for path in frozen:
        yield f"processed/{path.name}", *_file_state(path, _lines, "", "")
    if not any(path.name.startswith("test_") for path in frozen):
        yield "processed/test_*.jsonl", "missing", f"mllmrec candidates --dataset {dataset}"


def _file_state(path: Path, describe: Callable[[Path], str], absent: str, command: str) -> tuple[str, str]:
    """The state of a file and the command that makes it; a file that can't be read is a state too, no error."""
    try:
        if log_paths(path):
            return "not finished: some records are done", command
        return (describe(path), "") if path.exists() else (absent, command)
    except OSError as error:
        return f"unreadable: {error.strerror}", f"make {path} readable"


def _lines(path: Path) -> str:
    with path.open("rb") as file:
        count = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    return counted(count, "line")


def _with_header(path: Path) -> str:
    return f"{_lines(path)} with the header"


def _images(folder: Path) -> str:
    """How many images there are, and which of the first `LOOKED_AT` can't be read."""
    count = counted(sum(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir()), "image")
    images = ImageFolder(folder)
    looked_at = sorted(images)[:LOOKED_AT]
    faults = [f"{images.name(item)} ({fault})" for item in looked_at if (fault := images.fault(item))]
    if not faults:
        return count
    of = f" of the first {LOOKED_AT:,}" if len(images) > LOOKED_AT else ""
    more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return f"{count}; can't be read{of}: {', '.join(faults[:SHOWN])}{more}"


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:,.1f} MB"


def _model_state(folder: Path) -> tuple[str, str]:
    try:
        faults = lacking(folder)
    except (OSError, ArtifactError, DataError) as error:
        return f"unreadable: {error}", "mllmrec fetch backbone ID"
    return (f"lacks {', '.join(faults)}", "mllmrec fetch backbone ID") if faults else (COMPLETE, "")


def _checkpoint_state(folder: Path) -> tuple[str, str]:
    try:
        manifest = Manifest.read(folder)
    except (OSError, ArtifactError, DataError) as error:
        return f"unreadable: {error}", ""
    if manifest is not None:
        kind = "adapters" if is_adapter(folder) else "full model"
        return f"finished by mllmrec {manifest.verb} ({kind})", ""
    return "not finished: it has no manifest", "the command that began it, which goes on"


def _manifest(folder: Path) -> Manifest | None:
    try:
        return Manifest.read(folder)
    except (OSError, ArtifactError, DataError):
        return None  # the checkpoints table says what is wrong with it


def _full_model(folder: Path | None) -> Path | None:
    return folder if folder is not None and not is_adapter(folder) else None
