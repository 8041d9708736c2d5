"""Manifests: the settings and inputs that made an artifact, written last, so that its existence means finished.

A stage calls `finished` before it works and `write_manifest` after. An interrupted stage leaves no manifest, and the
next run goes on from its working log or checkpoint. A manifest also vouches for the files that it marks as finished,
so that a file that is gone or altered later is noticed.

An artifact without a manifest belongs to the user: it is read, and never replaced without --overwrite. So that the
leftovers of a killed stage aren't taken for the user's, `.<artifact>.making` lies beside an artifact from before its
first file until after its manifest. For a folder this is the draft into which all files are written first: a model
folder is a model only when it is whole.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mllmrec.errors import ArtifactError
from mllmrec.settings.base import StageSettings
from mllmrec.storage.locks import holding
from mllmrec.storage.workspace import read_json, sha256, sweep_drafts, write_json

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "mllmrec-r1")
SAMPLED_BYTES = 1 << 20
WORKING_SUFFIXES = (".partial.jsonl", ".lock", ".tmp")
CONFIGURATIONS = ("config.json", "adapter_config.json")

Outputs = dict[str, dict[str, Any]]


@dataclass(kw_only=True)
class Manifest:
    """The facts of one finished artifact.

    `settings` are all resolved settings, `result_settings` the part that decides the result, `inputs` maps a role
    (train, titles, model ...) to the sha256 of what was read, `counts` says what went in, came out and failed.
    `outputs` maps each file that the manifest vouches for, by its path relative to a folder or to the folder of a
    file, to `bytes`, `sha256` and `mtime_ns`; it is empty in a manifest of an earlier version, which vouches for none.
    `seal` is a hash of all the rest, by which a later edit is seen; empty in a manifest of an earlier version.
    """

    verb: str
    settings: dict[str, Any]
    result_settings: dict[str, Any]
    inputs: dict[str, str]
    counts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    revision: str | None = None
    finished_at: str = ""
    outputs: Outputs = field(default_factory=dict)
    seal: str = ""

    def sealed(self) -> Manifest:
        """The manifest with the seal of what it says now."""
        content = json.dumps(asdict(replace(self, seal="")), sort_keys=True)
        return replace(self, seal=hashlib.sha256(content.encode()).hexdigest())

    @classmethod
    def read(cls, artifact: Path) -> Manifest | None:
        """The manifest of `artifact`, or None when it is not finished; an ArtifactError when it isn't ours."""
        path = manifest_path(artifact)
        if not path.exists():
            return None
        value = read_json(path)
        content = value if isinstance(value, dict) else {}
        known = {name: content[name] for name in cls.__dataclass_fields__ if name in content}
        if not {"verb", "settings", "result_settings", "inputs"} <= known.keys():
            raise ArtifactError(f"{path} is not a manifest of this program: it lacks verb, settings or inputs.")
        return cls(**known)


def manifest_path(artifact: Path) -> Path:
    """`X/manifest.json` for a folder, `X.manifest.json` for a file (distinguished by the suffix)."""
    if is_file(artifact):
        return artifact.with_name(f"{artifact.name}.manifest.json")
    return artifact / "manifest.json"


def finished(
    artifact: Path, settings: StageSettings, inputs: Mapping[str, str], *, remade: Collection[str] = ()
) -> Manifest | None:
    """The manifest of an artifact that these settings and inputs already made; None when there is work to do.

    A manifest whose artifact is gone counts for nothing. A setting that a manifest doesn't know, because it came into
    the program later, counts as its default, which is what was done before.

    Raises ArtifactError, naming each difference, when the artifact was made with other result-affecting settings
    or from other inputs, or when outputs are gone or altered, and `--overwrite` was not given. Outputs that the caller
    makes again by itself are named in `remade`.
    """
    if settings.overwrite or not artifact.exists():
        return None
    manifest = Manifest.read(artifact)
    if manifest is None:
        return None
    changes = [
        *differences("setting", settings.completed(manifest.result_settings), settings.result_settings()),
        *differences("input", manifest.inputs, dict(inputs)),
    ]
    if changes:
        raise ArtifactError(
            f"{artifact} was already made by `mllmrec {manifest.verb}` in another way: {'; '.join(changes)}. "
            "Expected the same settings and inputs. Give the same ones, choose another name, or replace it with "
            "--overwrite."
        )
    refuse_altered(artifact, manifest, manifest.outputs.keys() - {*remade})
    return manifest


def write_manifest(
    artifact: Path,
    settings: StageSettings,
    inputs: Mapping[str, str],
    *,
    started: float,
    counts: Mapping[str, Any] | None = None,
    details: Mapping[str, Any] | None = None,
    outputs: Iterable[Path] | None = None,
) -> Manifest:
    """Mark `artifact` as finished, under its lock. `started` is the `time.monotonic()` at which the stage began.

    `outputs` are the files that it vouches for; without them those of [`vouched`][mllmrec.storage.manifests.vouched].
    """
    manifest = Manifest(
        verb=settings.verb,
        settings=settings.model_dump(mode="json"),
        result_settings=settings.result_settings(),
        inputs=dict(inputs),
        counts=dict(counts or {}),
        seconds=round(time.monotonic() - started, 3),
        details=dict(details or {}),
        packages=_package_versions(),
        revision=_git_revision(),
        finished_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        outputs=vouched(artifact, outputs),
    )
    return write_sealed(artifact, manifest)


def write_sealed(artifact: Path, manifest: Manifest) -> Manifest:
    """Write a manifest, sealed, under the artifact's lock."""
    manifest = manifest.sealed()
    with holding(artifact):
        write_json(manifest_path(artifact), asdict(manifest))
        folder = artifact.parent if is_file(artifact) else artifact
        sweep_drafts(folder / name for name in manifest.outputs)
    return manifest


def unmark(artifact: Path) -> None:
    """Take the manifest away before an artifact is made again."""
    manifest_path(artifact).unlink(missing_ok=True)


def vouched(artifact: Path, outputs: Iterable[Path] | None = None) -> Outputs:
    """The outputs of a manifest with bytes, sha256 and mtime_ns: those given, else the file, else the folder's files.

    Of a folder that is every file at its top but the manifest, hidden files and working files.
    """
    folder = artifact.parent if is_file(artifact) else artifact
    paths = _own_files(artifact) if outputs is None else outputs
    known: Outputs = {}
    for path in sorted(paths):
        stat = path.stat()
        facts = {"bytes": stat.st_size, "sha256": sha256(path), "mtime_ns": stat.st_mtime_ns}
        known[Path(os.path.relpath(path, folder)).as_posix()] = facts
    return known


def altered(artifact: Path, manifest: Manifest, *, thorough: bool = False) -> list[str]:
    """The outputs that are gone or no longer hold the bytes that the manifest vouches for, by their names in it.

    Sizes and times are compared first, and a file is read only when its time differs: a copy of a workspace is as good
    as the first one. With `thorough` every file is read. Nothing is known of what an earlier version made.
    """
    folder = artifact.parent if is_file(artifact) else artifact
    return [name for name, facts in manifest.outputs.items() if not _is_unchanged(folder / name, facts, thorough)]


def refuse_altered(artifact: Path, manifest: Manifest, names: Collection[str]) -> None:
    """Raise an ArtifactError where one of these outputs is gone or no longer what the manifest vouches for."""
    if lost := [name for name in altered(artifact, manifest) if name in names]:
        raise ArtifactError(
            f"{artifact} is no longer what `mllmrec {manifest.verb}` finished: {_fates(artifact, lost)}. Expected the "
            f"files that {manifest_path(artifact)} vouches for. Put them back, or make it again with --overwrite."
        )


def refuse_altered_weights(folder: Path) -> None:
    """Raise an ArtifactError where weights aren't those that were made; a model without a manifest passes."""
    if (manifest := Manifest.read(folder)) is not None:
        refuse_altered(folder, manifest, [name for name in manifest.outputs if name.endswith(".safetensors")])


def differences(kind: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One clause for each setting or input (`kind`) that isn't what it was."""
    return [
        f"{kind} {name} was {before.get(name)!r} and is now {now.get(name)!r}"
        if kind == "setting"
        else f"the {kind} {name} has changed since"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def hash_files(**files: Path) -> dict[str, str]:
    """sha256 of each file that exists, by role."""
    return {role: sha256(path) for role, path in files.items() if path.exists()}


def hash_model(folder: Path) -> str:
    """A hash of a model folder: its configuration and tokenizer whole, of each weight file the size and both ends.

    Reading the ends (1 MiB each) distinguishes trained models at once, where hashing 8 GB would take a minute.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.suffix == ".safetensors":
            size = path.stat().st_size
            digest.update(f"{path.name}:{size}".encode())
            with path.open("rb") as file:
                digest.update(file.read(SAMPLED_BYTES))
                file.seek(max(0, size - SAMPLED_BYTES))
                digest.update(file.read(SAMPLED_BYTES))
        elif path.name in ("config.json", "adapter_config.json", "tokenizer.json", "chat_template.jinja"):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def is_file(artifact: Path) -> bool:
    """Whether an artifact of this name is a file and no folder, before it exists."""
    return artifact.suffix in (".json", ".jsonl", ".csv", ".tsv", ".html")


@contextmanager
def making(artifact: Path, settings: StageSettings) -> Iterator[Path]:
    """Mark `artifact` as being made for the block, which ends with its manifest; yields the draft of a folder.

    Raises ArtifactError when the user's own file or model is there and `--overwrite` wasn't given. A block that fails
    or is interrupted leaves no draft.
    """
    marker = marker_of(artifact)
    if _is_foreign(artifact) and not settings.overwrite:
        raise ArtifactError(
            f"{artifact} is there and `mllmrec {settings.verb}` didn't make it: it has no manifest. Expected nothing "
            "of that name. Choose another one, move it away, or replace it with --overwrite."
        )
    drop_marker(artifact)
    if is_file(artifact):
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    else:
        marker.mkdir(parents=True)
    try:
        yield marker
    except BaseException:
        if not _holds_something(artifact) or Manifest.read(artifact) is not None:
            drop_marker(artifact)
        raise
    drop_marker(artifact)


def settle(draft: Path, folder: Path) -> None:
    """Put the files of a draft into their folder, in place of the weights that were there.

    The configuration goes first and comes last: without one the folder is no model.
    """
    unmark(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*(folder / name for name in CONFIGURATIONS), *folder.glob("*.safetensors*")):
        old.unlink(missing_ok=True)
    for path in sorted(draft.iterdir(), key=lambda path: (path.name in CONFIGURATIONS, path.name)):
        path.replace(folder / path.name)


def drop_marker(artifact: Path) -> None:
    """Remove what is left of a making, also of one that was killed after its manifest."""
    marker = marker_of(artifact)
    if marker.is_dir():
        shutil.rmtree(marker)
    else:
        marker.unlink(missing_ok=True)


def marker_of(artifact: Path) -> Path:
    return artifact.with_name(f".{artifact.name}.making")


def _own_files(artifact: Path) -> list[Path]:
    if is_file(artifact):
        return [artifact]
    others = [path for path in artifact.iterdir() if path.is_file() and path != manifest_path(artifact)]
    return [path for path in others if not path.name.startswith(".") and not path.name.endswith(WORKING_SUFFIXES)]


def _is_unchanged(path: Path, facts: Mapping[str, Any], thorough: bool) -> bool:
    if not path.is_file():
        return False
    stat = path.stat()
    if stat.st_size != facts.get("bytes"):
        return False
    return (stat.st_mtime_ns == facts.get("mtime_ns") and not thorough) or sha256(path) == facts.get("sha256")


def _fates(artifact: Path, names: Iterable[str]) -> str:
    folder = artifact.parent if is_file(artifact) else artifact
    return "; ".join(f"{name} {'was altered' if (folder / name).exists() else 'is gone'}" for name in names)


def _package_versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _git_revision() -> str | None:
    """The commit of the source tree this package runs from, when it runs from one.

    A copy installed below somebody's own repository is not part of it, so the file has to be tracked.
    """
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        for command in (["ls-files", "--error-unmatch", Path(__file__).name], ["rev-parse", "HEAD"]):
            result = subprocess.run([*git, *command], capture_output=True, text=True, timeout=5, check=False)
            if result.returncode != 0:
                return None
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


def _is_foreign(artifact: Path) -> bool:
    """Whether a file or a model is there that no stage of this program makes or made."""
    return _holds_something(artifact) and not marker_of(artifact).exists() and Manifest.read(artifact) is None


def _holds_something(artifact: Path) -> bool:
    if is_file(artifact):
        return artifact.exists()
    return any((artifact / name).exists() for name in CONFIGURATIONS) or any(artifact.glob("*.safetensors"))
