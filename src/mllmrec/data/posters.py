"""`mllmrec fetch images`: the posters of a MovieLens dataset from TMDB, one image an item, into images/.

Items come in the order of the catalogue, those that links.csv leads to a film at TMDB. An image that is there already
stays as it is. A poster takes its place whole and after a look at its first bytes; then a record of where it came from
is appended, so that a crash costs what was on its way. Years are compared, because links of another numbering of films
would fill the folder with wrong posters. <dataset>_posters.json, the artifact, tells the origin of every image.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mllmrec.artifacts import Workspace, require
from mllmrec.data.images_folder import ImagesFolder
from mllmrec.data.movie_links import Links, find_links
from mllmrec.data.poster_queue import PLACING, Fetcher, fetch_all
from mllmrec.data.sequences import PREPARE, Catalogue, read_catalogue
from mllmrec.data.tmdb import Tmdb
from mllmrec.errors import DataError, SettingsError
from mllmrec.manifests import Manifest, hash_files
from mllmrec.progress import note
from mllmrec.records import Summary, Table
from mllmrec.settings.resources import FetchImagesSettings
from mllmrec.streams import write_object
from mllmrec.work import Work, open_work

TERMS = (
    "Terms of TMDB: free for use that isn't commercial, with attribution; posters belong to their studios and may not "
    "be passed on (https://www.themoviedb.org/api-terms-of-use). This product uses the TMDB API but is not endorsed or "
    "certified by TMDB."
)


def run_images(settings: FetchImagesSettings, workspace: Workspace) -> Summary:
    """Fill images/ and write <dataset>_posters.json."""
    started, dataset = time.monotonic(), settings.dataset
    catalogue = read_catalogue(require(workspace.titles(dataset), "The titles file", PREPARE))
    links = find_links(workspace, dataset, catalogue, settings.links)
    known = _linked(catalogue, links)
    keys = known[: settings.limit]
    folder = ImagesFolder(workspace.images(dataset), workspace.dataset(dataset) / f"{dataset}_posters.json")
    with open_work(folder.origins, settings, hash_files(links=links.path), folder.recall) as work:
        if work.nothing_to_do(keys):
            headline = f"{folder.origins.name} tells the origin of every poster there is; nothing to do."
            return Summary(headline=headline, artifact=folder.origins)
        _keep_present(work, keys, folder)
        if todo := work.todo(keys):
            client = Tmdb(settings, _key(settings))
            note(TERMS)
            folder.clean()
            fetch_all(work, todo, Fetcher(client, catalogue, links), folder, settings.max_inflight)
        counts = Counter(items=len(catalogue), unlinked=sum(item not in links.tmdb_ids for item in catalogue))
        manifest = work.complete(
            keys,
            lambda rows: write_object(folder.origins, _counted(rows, counts)),
            started=started,
            counts=counts,
            details={"terms": TERMS, "links": str(links.path)},
            known=known,
        )
    return _summary(folder, manifest, dataset)


def _linked(catalogue: Catalogue, links: Links) -> list[str]:
    found = [item for item in catalogue if item in links.tmdb_ids]
    if not found:
        raise DataError(
            f"{links.path} links none of the {len(catalogue)} items of the catalogue, such as {next(iter(catalogue))}. "
            "Expected links whose movie ids are the dataset's; give the right file with --links."
        )
    return found


def _key(settings: FetchImagesSettings) -> str:
    key = os.environ.get(settings.api_key_env, "").strip()
    if not key:
        raise SettingsError(
            f"The environment variable {settings.api_key_env} is empty, and TMDB wants a key. Get one for free at "
            "https://www.themoviedb.org/settings/api and export it; --api-key-env names another variable."
        )
    return key


def _keep_present(work: Work, keys: Sequence[str], folder: ImagesFolder) -> None:
    """Record the images that somebody else put there; one that an interrupted start was placing is fetched again."""
    for item in work.todo(keys):
        name = folder.name(item)
        if name is not None and not folder.fetched(item) and work.reason_again(item) != PLACING:
            work.done(item, {"file": name, "was_there": True})


def _counted(rows: Iterable[tuple[str, dict[str, Any]]], counts: Counter[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records as they are written, counted by kind on the way."""
    for item, row in rows:
        kind = "no_poster" if "missing" in row else "was_there" if "was_there" in row else "fetched"
        counts[kind] += 1
        yield item, row


def _summary(folder: ImagesFolder, manifest: Manifest | None, dataset: str) -> Summary:
    if manifest is None:
        return Summary(headline=f"{folder.origins.name} is written by the first process.", artifact=folder.origins)
    counts = manifest.counts
    rows = [
        ("posters fetched", counts.get("fetched", 0)),
        ("images that were there", counts.get("was_there", 0)),
        ("films without a poster", counts.get("no_poster", 0)),
        ("items without a link", counts["unlinked"]),
        *((f"failed: {reason}", count) for reason, count in counts.get("failed_by_reason", {}).items()),
    ]
    return Summary(
        headline=f"{counts.get('fetched', 0):,} posters in {folder.path}. Next: mllmrec caption --dataset {dataset}",
        artifact=folder.origins,
        tables=(Table(title="Images", columns=("what", "items"), rows=tuple((name, f"{n:,}") for name, n in rows)),),
        facts=dict(counts),
    )
