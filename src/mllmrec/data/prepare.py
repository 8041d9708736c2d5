"""`prepare`: raw interaction files in, a dataset folder with its data card out.

    find the files -> read -> clean and order -> k-core -> split -> write -> card

The card is the artifact: its manifest is written last and marks the whole folder as finished. Files that prepare
did not write are never replaced without --overwrite. `IMPORTERS` holds the importer of each source name.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

from mllmrec.data.card import card, image_facts, table
from mllmrec.data.importers.amazon import AMAZON
from mllmrec.data.importers.microlens import MICROLENS
from mllmrec.data.importers.movielens import MOVIELENS_1M, MOVIELENS_100K, MOVIELENS_LATEST
from mllmrec.data.importers.netflix import NETFLIX_PRIZE
from mllmrec.data.importers.pairs import PAIRS, SEQUENCES
from mllmrec.data.importers.source import Files, Imported, Importer
from mllmrec.data.importers.splitting import (
    Division,
    clean,
    divide,
    kept_ids,
    ties,
    widest_window,
    with_safe_ids,
    write_dataset,
)
from mllmrec.data.raw_ids import RawIds
from mllmrec.data.sequences import read_catalogue
from mllmrec.errors import ArtifactError
from mllmrec.progress import progress
from mllmrec.records import Summary
from mllmrec.settings.data import PrepareSettings, Source
from mllmrec.storage.locks import locking
from mllmrec.storage.manifests import Manifest, finished, manifest_path, unmark, write_manifest
from mllmrec.storage.workspace import DatasetFiles, Workspace, partial, read_json, sha256, write_json

IMAGE_FOLDERS = ("images", "covers", "posters")
IMPORTERS: dict[Source, Importer] = {
    "movielens-100k": MOVIELENS_100K,
    "movielens-latest": MOVIELENS_LATEST,
    "movielens-1m": MOVIELENS_1M,
    "microlens": MICROLENS,
    "netflix-prize": NETFLIX_PRIZE,
    "amazon": AMAZON,
    "pairs": PAIRS,
    "sequences": SEQUENCES,
}


@locking(lambda settings, workspace: workspace.dataset(settings.dataset).card)
def run(settings: PrepareSettings, workspace: Workspace) -> Summary:
    """Write data/<dataset>/: train.tsv, valid.tsv, test.tsv, titles, pairs, card.json."""
    started = time.monotonic()
    dataset = workspace.dataset(settings.dataset)
    artifact, importer = dataset.card, IMPORTERS[settings.source]
    files = importer.find(Path(settings.raw).expanduser(), settings)
    inputs = hash_inputs(files)
    gone = [path for path in _finished_files(dataset) if not path.exists()]
    if finished(artifact, settings, inputs, remade=[path.name for path in gone]) and not gone:
        partial(artifact).unlink(missing_ok=True)
        return _nothing_to_do(dataset)
    refuse_foreign_files(dataset, overwrite=settings.overwrite)
    imported, raw_ids = with_safe_ids(importer.read(files, settings))
    with progress("Ordering, splitting, writing, counting", 4) as advance:
        rows, cleaned = clean(imported, drop_repeats=settings.drop_repeats, k_core=settings.k_core)
        advance(1)
        division = divide(rows, imported, settings)
        advance(1)
        raw_ids = kept_ids(raw_ids, division.rows)
        _write(dataset, division, imported, raw_ids)
        advance(1)
        facts = card(dataset, window=settings.min_inter)
        facts["import"] = _import_facts(settings, files, imported, cleaned, division)
        facts["import"]["renamed"] = {"users": len(raw_ids.users), "items": len(raw_ids.items)}
        advance(1)
    write_json(artifact, facts)
    counts = {name: facts[name] for name in ("users", "items", "interactions")}
    outputs = [*made_files(dataset), *_raw_ids_file(dataset)]
    write_manifest(artifact, settings, inputs, started=started, counts={**counts, **facts["import"]}, outputs=outputs)
    partial(artifact).unlink(missing_ok=True)
    return _summary(dataset, settings, facts, time.monotonic() - started)


def usual_window(settings: PrepareSettings) -> int:
    """The widest window up to --min-inter, for which leave-one-out keeps most users of the raw files."""
    importer = IMPORTERS[settings.source]
    imported = importer.read(importer.find(Path(settings.raw).expanduser(), settings), settings)
    rows, _ = clean(imported, drop_repeats=settings.drop_repeats, k_core=settings.k_core)
    return widest_window(rows, settings.min_inter)


def hash_inputs(files: Files) -> dict[str, str]:
    """sha256 by role; of several files in one role, over their names and digests."""
    inputs = {}
    for role, paths in files.items():
        digests = {path.name: sha256(path) for path in paths}
        joined = "".join(f"{name} {digest}\n" for name, digest in digests.items())
        inputs[role] = (
            next(iter(digests.values())) if len(digests) == 1 else hashlib.sha256(joined.encode()).hexdigest()
        )
    return inputs


def made_files(dataset: DatasetFiles) -> list[Path]:
    """What prepare writes beside the card."""
    lines = [dataset.split(split) for split in ("train", "valid", "test")]
    return [*lines, dataset.titles, dataset.pairs]


def refuse_foreign_files(dataset: DatasetFiles, *, overwrite: bool) -> None:
    """An ArtifactError where the dataset folder holds files that neither a finished nor a broken-off run wrote."""
    artifact = dataset.card
    there = [str(path) for path in made_files(dataset) if path.exists()]
    there += map(str, _raw_ids_file(dataset))
    ours = overwrite or manifest_path(artifact).exists() or partial(artifact).exists()
    if there and not ours:
        raise ArtifactError(
            f"{', '.join(there)} exist and were not made by `mllmrec prepare`: {artifact} has no manifest. Expected a "
            "new dataset name or an empty folder. Choose another --dataset, or replace the files with --overwrite."
        )


def _finished_files(dataset: DatasetFiles) -> list[Path]:
    """The files of a finished folder: those of every dataset, and the map of ids where the manifest lists it."""
    manifest, ids = Manifest.read(dataset.card), dataset.raw_ids
    mapped = manifest is not None and ids.name in manifest.outputs
    return [*made_files(dataset), *([ids] if mapped else [])]


def _raw_ids_file(dataset: DatasetFiles) -> list[Path]:
    """The map of ids, where there is one."""
    return [path for path in (dataset.raw_ids,) if path.exists()]


def _write(dataset: DatasetFiles, division: Division, imported: Imported, raw_ids: RawIds) -> None:
    """Write the files. A working log marks the half-written folder as prepare's own for the next run."""
    artifact = dataset.card
    unmark(artifact)
    artifact.parent.mkdir(parents=True, exist_ok=True)
    partial(artifact).touch()
    write_dataset(dataset, division, imported.catalogue, raw_ids)


def _import_facts(
    settings: PrepareSettings, files: Files, imported: Imported, cleaned: dict[str, Any], division: Division
) -> dict[str, Any]:
    names = [path.name for paths in files.values() for path in paths]
    return {
        "source": settings.source,
        "files": names if len(names) <= 10 else [*names[:9], f"... {len(names)} files in all"],
        "split": settings.split,
        "min_inter": settings.min_inter,
        "duplicate_title_rows": imported.catalogue.num_duplicates,
        **cleaned,
        **division.facts,
        "ties": ties(division.rows) if imported.timed else None,
    }


def _nothing_to_do(dataset: DatasetFiles) -> Summary:
    """The card as it was made, with the images counted anew, because they come later than the card."""
    artifact = dataset.card
    facts = read_json(artifact)
    images = image_facts(dataset, read_catalogue(dataset.titles))
    if any(facts.get(name) != value for name, value in images.items()):
        facts |= images
        write_json(artifact, facts)
    headline = f"{dataset.name} is already prepared with these settings from these files; nothing to do."
    return Summary(
        headline=headline,
        artifact=artifact,
        tables=(table(facts),),
        warnings=tuple(_image_warnings(facts)),
        facts=facts,
    )


def _summary(dataset: DatasetFiles, settings: PrepareSettings, facts: dict[str, Any], seconds: float) -> Summary:
    raw = Path(settings.raw).expanduser()
    figures = f"{facts['users']:,} users, {facts['items']:,} items, {facts['interactions']:,} interactions"
    return Summary(
        headline=f"Prepared {settings.dataset} in {seconds:.1f} s: {figures}.",
        artifact=dataset.card,
        tables=(table(facts),),
        warnings=(
            *_warnings(facts),
            *_image_warnings(facts),
            *_unlinked_images(dataset.images, raw),
        ),
        facts=facts,
    )


def _warnings(facts: dict[str, Any]) -> list[str]:
    warnings = []
    untitled, tied = facts["without_title"]["count"], facts["import"]["ties"]
    if untitled:
        warnings.append(f"{untitled:,} items have no title; they are kept and named by their id.")
    if lower := facts["import"].get("users_by_lower_window"):
        dropped = sum(facts["import"]["dropped_users"].values())
        kept = ", ".join(f"{users:,} with {window}" for window, users in lower.items())
        warnings.append(
            f"{dropped:,} of {facts['users'] + dropped:,} users fall away because they have fewer than --min-inter + 2 "
            f"interactions. A lower --min-inter than {facts['window']} would keep: {kept}."
        )
    if any((renamed := facts["import"]["renamed"]).values()):
        warnings.append(
            f"{renamed['users']:,} users and {renamed['items']:,} items have ids that can't be words of a line or "
            f"names of files; they were given others, and {facts['dataset']}_ids.csv tells which."
        )
    if tied and tied["users_last"]["count"]:
        users = tied["users_last"]
        warnings.append(
            f"{users['count']:,} users ({users['share']:.1%}) end on a tied timestamp: which item is their target is "
            "decided by the order of rows in the file."
        )
    return warnings


def _image_warnings(facts: dict[str, Any]) -> list[str]:
    if not (count := facts["images_of_no_item"]):
        return []
    return [
        f"{count:,} files in images/ are named by no item of {facts['dataset']} and are never read. Expected names of "
        "item ids, such as 42.jpg, or of raw ids."
    ]


def _unlinked_images(images: Path, raw: Path) -> list[str]:
    """A warning about an image folder among the raw files, which is large and therefore not copied."""
    folders = [path for path in raw.glob("*") if path.is_dir() and path.name.lower().endswith(IMAGE_FOLDERS)]
    if images.exists() or not folders:
        return []
    return [f"{folders[0]} looks like a folder of images; it was not copied. Link or copy it to {images}."]
