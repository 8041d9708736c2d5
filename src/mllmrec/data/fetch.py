"""`mllmrec fetch`: bring a public data set or a backbone to this machine, checked, with its terms shown first."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from mllmrec.artifacts import Workspace, named, sha256
from mllmrec.data.archives import is_archive, unpack
from mllmrec.data.download import download
from mllmrec.data.hubs import from_huggingface, from_modelscope
from mllmrec.data.model_folders import lacking, weight_files
from mllmrec.data.sources import Source, find_source
from mllmrec.errors import ArtifactError, BackendError, DataError, MllmrecError
from mllmrec.locks import locking
from mllmrec.manifests import finished, unmark, write_manifest
from mllmrec.progress import note
from mllmrec.records import Summary
from mllmrec.settings.addresses import shown_address
from mllmrec.settings.resources import FetchBackboneSettings, FetchDatasetSettings


def raw_folder(settings: FetchDatasetSettings, workspace: Workspace) -> Path:
    if settings.raw:
        return Path(settings.raw).expanduser()
    return workspace.root / "raw" / find_source(settings.name, settings.url, settings.sha256).name


@locking(raw_folder)
def run_dataset(settings: FetchDatasetSettings, workspace: Workspace) -> Summary:
    """Download a data set into raw/<name>: archives unpacked, each file checked, the manifest last."""
    started = time.monotonic()
    source = find_source(settings.name, settings.url, settings.sha256)
    folder = raw_folder(settings, workspace)
    if finished(folder, settings, {}) is not None:
        return Summary(headline=f"{source.name} is in {folder} already; nothing to do.", artifact=folder)
    unmark(folder)
    note(f"Terms of {source.name}: {source.terms}" + (f" ({source.page})." if source.page else "."))
    working = folder / ".fetching"
    working.mkdir(parents=True, exist_ok=True)
    paths, digests = [], {}
    for remote in source.files:
        file = download(remote.url, working / remote.name, remote.sha256, settings.retries)
        digests[remote.name] = sha256(file)
        if remote.sha256 is None:
            note(f"No checksum is known for {remote.name}; what came has the sha256 {digests[remote.name]}.")
        paths += _place(file, folder, int(settings.max_gb * 1e9))
    shutil.rmtree(working)
    counts = {"files": len(paths), "bytes": sum(path.stat().st_size for path in paths)}
    details = {"urls": [shown_address(file.url) for file in source.files], "sha256": digests, "terms": source.terms}
    write_manifest(folder, settings, {}, started=started, counts=counts, details=details, outputs=paths)
    return Summary(
        headline=f"{source.name}: {counts['files']} files, {counts['bytes'] / 1e6:,.1f} MB in {folder}. "
        f"Next: {_next_command(source, folder)}",
        artifact=folder,
        facts={**counts, "sha256": digests, "terms": source.terms},
    )


def backbone_folder(settings: FetchBackboneSettings, workspace: Workspace) -> Path:
    return workspace.root / named("backbone", settings.id.rstrip("/").rsplit("/", 1)[-1])


@locking(backbone_folder)
def run_backbone(settings: FetchBackboneSettings, workspace: Workspace) -> Summary:
    """Download a model into <root>/<last part of the id>, where `--backbone` finds it by that name."""
    started = time.monotonic()
    folder = backbone_folder(settings, workspace)
    known = finished(folder, settings, {}) is not None
    if folder.is_dir() and not settings.overwrite and not lacking(folder):
        if not known:
            _check_weights(folder, settings.sha256)
        return Summary(headline=f"{settings.id} is in {folder} already; nothing to do.", artifact=folder)
    _require_model_folder(folder)
    working = folder.with_name(f".{folder.name}.fetching")
    fetch = from_huggingface if settings.from_ == "huggingface" else from_modelscope
    commit = fetch(settings.id, settings.revision, working)
    try:
        _require_complete(settings, working)
        _check_weights(working, settings.sha256)
    except MllmrecError:
        shutil.rmtree(working)
        raise
    _settle(working, folder)
    weights = weight_files(folder)
    counts = {"weight_files": len(weights), "weight_bytes": sum(path.stat().st_size for path in weights)}
    write_manifest(folder, settings, {}, started=started, counts=counts, details={"commit": commit})
    return Summary(
        headline=f"{settings.id}: {counts['weight_bytes'] / 1e9:,.2f} GB of weights in {folder}. "
        f"Next: mllmrec sft --backbone {folder.name} --dataset NAME",
        artifact=folder,
        facts={**counts, "commit": commit},
    )


def _place(file: Path, folder: Path, limit_bytes: int) -> list[Path]:
    """Move a downloaded file into the folder, unpacked when it is an archive; return what came of it."""
    if not is_archive(file.name):
        return [file.replace(folder / file.name)]
    unpacked = file.parent / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        paths = unpack(file, unpacked, limit_bytes)
    finally:
        file.unlink()
    return [_move(path, unpacked, folder) for path in paths]


def _move(path: Path, unpacked: Path, folder: Path) -> Path:
    target = folder / path.relative_to(unpacked)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        raise DataError(f"{target} is a folder where the archive has a file. Move it away, or choose another --raw.")
    return path.replace(target)


def _next_command(source: Source, folder: Path) -> str:
    return f"mllmrec prepare --source {source.importer} --raw {folder} --dataset {source.dataset}"


def _require_model_folder(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "config.json").exists():
        raise ArtifactError(
            f"{folder} is there and is no model folder (it has no config.json). Move it away, or fetch under another "
            "--root."
        )


def _require_complete(settings: FetchBackboneSettings, working: Path) -> None:
    if faults := lacking(working):
        raise BackendError(
            f"{settings.id} from {settings.from_} is no complete model folder: it lacks {', '.join(faults)}. Expected "
            "a causal language model with safetensors weights. Choose another id or --revision."
        )


def _check_weights(folder: Path, expected: tuple[str, ...]) -> None:
    """Compare the weight files, in the order of their names, with the checksums that were given."""
    files = weight_files(folder)
    if expected and len(expected) != len(files):
        raise DataError(
            f"--sha256 gives {len(expected)} checksums for {len(files)} weight files: "
            f"{', '.join(file.name for file in files)}. Give one for each, in this order."
        )
    for file, wanted in zip(files, expected, strict=False):
        if (found := sha256(file)) != wanted:
            raise DataError(
                f"{file.name} has the sha256 {found} where {wanted} was expected. Download it again (with --overwrite "
                "if it lies in the model folder already), or correct --sha256."
            )


def _settle(working: Path, folder: Path) -> None:
    """Give the downloaded files their place; weights that were there before go, since they may be cut otherwise."""
    unmark(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*weight_files(folder), folder / "model.safetensors.index.json"):
        old.unlink(missing_ok=True)
    for path in sorted(working.iterdir()):
        if path.is_file():
            path.replace(folder / path.name)
    shutil.rmtree(working)
