"""`mllmrec fetch`: bring a public data set or a backbone to this machine, checked, with its terms shown first.

`SOURCES` holds the data sets that `mllmrec fetch dataset` knows: addresses, checksums and terms. None of their files is
shipped; each user downloads them from the owner and under the owner's terms. A sha256 of None means that the owner
publishes none and may replace the file; `fetch` then reports the one of the file that came.
"""

from __future__ import annotations

import difflib
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from mllmrec.data.fetching.archives import is_archive, unpack
from mllmrec.data.fetching.download import download, from_huggingface, from_modelscope
from mllmrec.data.model_folders import lacking, weight_files
from mllmrec.errors import ArtifactError, BackendError, DataError, MllmrecError, SettingsError
from mllmrec.progress import note
from mllmrec.records import Summary
from mllmrec.settings.base import shown_address
from mllmrec.settings.resources import FetchBackboneSettings, FetchDatasetSettings
from mllmrec.storage.locks import locking
from mllmrec.storage.manifests import finished, unmark, write_manifest
from mllmrec.storage.workspace import Workspace, named, sha256

GROUPLENS = "https://files.grouplens.org/datasets/movielens"
MICROLENS = "https://recsys.westlake.edu.cn"
CLOSED_TERMS = (
    "GroupLens, research use only: name GroupLens in publications, don't redistribute, no commercial use without "
    "their permission"
)
OPEN_TERMS = (
    "GroupLens, research use: name GroupLens in publications, redistribute only under the same terms, no commercial "
    "use without their permission"
)
MICROLENS_TERMS = "Westlake University, research use only: name MicroLens in publications, don't redistribute"
BY_HAND = {
    "netflix-prize": "Netflix no longer offers it, and the copy at "
    "https://www.kaggle.com/datasets/netflix-inc/netflix-prize-data needs an account there. Unpack it into a folder "
    "and run `mllmrec prepare --source netflix-prize --raw FOLDER --dataset netflix`",
}
"""What `prepare` reads and `fetch` can't bring: the owner asks for an account or has withdrawn the file."""


def raw_folder(settings: FetchDatasetSettings, workspace: Workspace) -> Path:
    """Where the files of a data set go: --raw, or raw/<name>."""
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
        paths += _put(file, folder, int(settings.max_gb * 1e9))
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
    """Where a model goes: <root>/<last part of its id>."""
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


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file to download, and its checksum where the owner publishes one."""

    url: str
    sha256: str | None = None

    @property
    def name(self) -> str:
        """The last part of the address, without its query."""
        return self.url.split("?")[0].split("#")[0].rstrip("/").rsplit("/", 1)[-1]


@dataclass(frozen=True, kw_only=True)
class PublicDataset:
    """A data set to download; `importer` is its name for `mllmrec prepare --source`."""

    name: str
    files: tuple[RemoteFile, ...]
    terms: str
    page: str
    importer: str
    dataset: str


def find_source(name: str | None, url: str | None, sha256: str | None) -> PublicDataset:
    """The data set meant: the file at `url`, or a known data set by its name; raises SettingsError for any other.

    >>> find_source("movielens-1m", None, None).files[0].name
    'ml-1m.zip'
    """
    if url is not None:
        file = RemoteFile(url=url, sha256=sha256)
        named("file", file.name)
        name = named("data set", name or file.name.split(".")[0])
        terms = "not known here; see the page that offers it"
        return PublicDataset(name=name, files=(file,), terms=terms, page="", importer="pairs", dataset=name)
    if name in BY_HAND:
        raise SettingsError(f"{name} can't be fetched: {BY_HAND[name]}.")
    if name is None or name not in SOURCES:
        close = difflib.get_close_matches(name or "", SOURCES, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise SettingsError(
            f"No data set is known as {name!r}.{hint} Expected one of {', '.join(SOURCES)}, or an address with --url."
        )
    source = SOURCES[name]
    if sha256 is None:
        return source
    if len(source.files) > 1:
        raise SettingsError(
            f"{name} consists of {len(source.files)} files, so one --sha256 can't check it. Leave it out."
        )
    return replace(source, files=(replace(source.files[0], sha256=sha256),))


def _put(file: Path, folder: Path, limit_bytes: int) -> list[Path]:
    """Move a downloaded file into the folder, unpacked when it is an archive; return the paths of its files."""
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


def _next_command(source: PublicDataset, folder: Path) -> str:
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
        if (digest := sha256(file)) != wanted:
            raise DataError(
                f"{file.name} has the sha256 {digest} where {wanted} was expected. Download it again (with --overwrite "
                "if it lies in the model folder already), or correct --sha256."
            )


def _settle(working: Path, folder: Path) -> None:
    """Move the downloaded files into the model folder. Old weights go first, since they may be split in another way."""
    unmark(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*weight_files(folder), folder / "model.safetensors.index.json"):
        old.unlink(missing_ok=True)
    for path in sorted(working.iterdir()):
        if path.is_file():
            path.replace(folder / path.name)
    shutil.rmtree(working)


def _movielens(name: str, archive: str, sha256: str, terms: str, importer: str, page: str) -> PublicDataset:
    return PublicDataset(
        name=name,
        files=(RemoteFile(url=f"{GROUPLENS}/{archive}", sha256=sha256),),
        terms=terms,
        page=f"https://grouplens.org/datasets/movielens/{page}/",
        importer=importer,
        dataset="movielens",
    )


def _microlens(size: str, titles: str) -> PublicDataset:
    folder = f"{MICROLENS}/MicroLens-{size}-Dataset"
    return PublicDataset(
        name=f"microlens-{size}",
        files=(RemoteFile(url=f"{folder}/MicroLens-{size}_pairs.csv"), RemoteFile(url=f"{folder}/{titles}")),
        terms=MICROLENS_TERMS,
        page="https://github.com/westlake-repl/MicroLens",
        importer="microlens",
        dataset="microlens",
    )


SOURCES = {
    source.name: source
    for source in (
        _movielens(
            "movielens-100k",
            "ml-100k.zip",
            "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
            CLOSED_TERMS,
            "movielens-100k",
            "100k",
        ),
        _movielens(
            "movielens-1m",
            "ml-1m.zip",
            "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
            CLOSED_TERMS,
            "movielens-1m",
            "1m",
        ),
        # The owner calls this one a development set that may change: then the checksum says so, and --sha256 helps.
        _movielens(
            "movielens-latest-small",
            "ml-latest-small.zip",
            "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
            OPEN_TERMS,
            "movielens-latest",
            "latest",
        ),
        _movielens(
            "movielens-25m",
            "ml-25m.zip",
            "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
            OPEN_TERMS,
            "movielens-latest",
            "25m",
        ),
        _movielens(
            "movielens-32m",
            "ml-32m.zip",
            "e4a68655d7386b8f95f2f2424b2ff975dfdd15ffd59e0d864a14dca43e99d6ee",
            OPEN_TERMS,
            "movielens-latest",
            "32m",
        ),
        _microlens("50k", "MicroLens-50k_titles.csv"),
        _microlens("100k", "MicroLens-100k_title_en.csv"),
    )
}
