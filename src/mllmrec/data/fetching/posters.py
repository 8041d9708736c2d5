"""`mllmrec fetch images`: the posters of a MovieLens dataset from TMDB, one image an item, into images/.

Items come in the order of the catalogue, those for which links.csv has a film at TMDB. An image that is there already
stays as it is. A poster is written whole, after a look at its first bytes; then a record of its origin is appended, so
that a crash loses only what was on its way. Years are compared, because links of another numbering of films would fill
the folder with wrong posters. <dataset>_posters.json, the artifact, holds the origin of every image.

Several requests run at a time; one record is kept for each item, and the stage ends early where going on makes no
sense.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from mllmrec.data.fetching.tmdb import Links, PosterError, Tmdb, find_links, moment
from mllmrec.data.item_files import ImagesFolder
from mllmrec.data.sequences import PREPARE, Catalogue, read_catalogue
from mllmrec.errors import BackendError, DataError, SettingsError
from mllmrec.progress import note, progress
from mllmrec.records import Summary, Table
from mllmrec.settings.resources import FetchImagesSettings
from mllmrec.storage.json_streams import write_object
from mllmrec.storage.manifests import Manifest, hash_files
from mllmrec.storage.record_log import Work, open_work
from mllmrec.storage.workspace import Workspace, require

TERMS = (
    "Terms of TMDB: free for use that isn't commercial, with attribution; posters belong to their studios and may not "
    "be passed on (https://www.themoviedb.org/api-terms-of-use). This product uses the TMDB API but is not endorsed or "
    "certified by TMDB."
)
PLACING = "being placed"
OTHER_FILM = "another film by its year"
UNREACHABLE = re.compile(r"the connection failed|timed out|HTTP (?:429|5\d\d)")
YEARS_APART, FEWEST_FILMS, FAILURES_IN_A_ROW = 2, 20, 8
_YEAR = re.compile(r"\((\d{4})\)\s*$")
Poster = tuple[dict[str, Any], bytes, str]
"""The record of a poster, its bytes and the suffix of its file."""


def run_images(settings: FetchImagesSettings, workspace: Workspace) -> Summary:
    """Fill images/ and write <dataset>_posters.json. Raises BackendError where TMDB can't be reached or refuses."""
    started, dataset = time.monotonic(), settings.dataset
    files = workspace.dataset(dataset)
    catalogue = read_catalogue(require(files.titles, "The titles file", PREPARE))
    links = find_links(files, catalogue, settings.links)
    known = _linked(catalogue, links)
    keys = known[: settings.limit]
    folder = ImagesFolder(files.images, files.folder / f"{dataset}_posters.json")
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


class Fetcher:
    """Asks for one item's poster; called from several threads."""

    def __init__(self, client: Tmdb, catalogue: Catalogue, links: Links) -> None:
        self.client, self._catalogue, self._tmdb_ids = client, catalogue, links.tmdb_ids

    def __call__(self, item: str) -> Poster:
        """The record of an item's poster, its bytes and suffix; no bytes where there is none. Raises PosterError."""
        row: dict[str, Any] = {"tmdb_id": self._tmdb_ids[item]}
        film = self.client.film(self._tmdb_ids[item])
        if film is None:
            return row | {"missing": "no such film"}, b"", ""
        year = _YEAR.search(self._catalogue.title(item))
        if year and film.year and abs(int(year[1]) - film.year) > YEARS_APART:
            raise PosterError(OTHER_FILM)
        if film.poster_path is None:
            return row | {"missing": "no poster"}, b"", ""
        body, suffix = self.client.poster(film.poster_path)
        return row | {"poster_path": film.poster_path, "bytes": len(body)}, body, suffix


def fetch_all(work: Work, todo: Sequence[str], fetch: Fetcher, folder: ImagesFolder, max_inflight: int) -> None:
    """Bring every item to a record, `max_inflight` at a time; records and files are written by this thread alone."""
    left, pending, monitor = iter(todo), dict[Future[Poster], str](), FailureMonitor()
    pool = ThreadPoolExecutor(max_inflight)
    try:
        with progress("fetching posters", len(todo)) as advance:
            while True:
                for item in itertools.islice(left, max_inflight - len(pending)):
                    pending[pool.submit(fetch, item)] = item
                if not pending:
                    return
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    _record(work, folder, pending.pop(future), future, monitor)
                    advance(1)
    finally:
        fetch.client.stop.set()
        pool.shutdown(cancel_futures=True)


class FailureMonitor:
    """Ends the stage when the server doesn't answer or refuses everything, or when the links number other films."""

    def __init__(self) -> None:
        self._reasons, self._in_a_row, self._succeeded = Counter[str](), 0, 0

    def succeeded(self) -> None:
        """Count a poster, or a film without one."""
        self._in_a_row, self._succeeded = 0, self._succeeded + 1

    def failed(self, failure: PosterError) -> None:
        """Count a failure. Raises BackendError or DataError at one too many."""
        reason = str(failure)
        self._in_a_row = self._in_a_row + 1 if UNREACHABLE.fullmatch(reason) else 0
        self._reasons[reason] += 1
        if self._in_a_row >= FAILURES_IN_A_ROW:
            raise BackendError(
                f"TMDB doesn't answer: {self._in_a_row} items in a row failed ({reason}). {_advice(failure)} with the "
                "same command and --retry-failed; what is done is kept."
            )
        others = self._reasons[OTHER_FILM]
        if others >= FEWEST_FILMS and others > self._succeeded:
            raise DataError(
                f"{others} of the first {others + self._succeeded} films are of another year than the catalogue says. "
                "Expected links whose movie ids are the dataset's (the ids of ml-100k are others than those of later "
                "releases). Give the right file with --links and start over with --overwrite."
            )


def _linked(catalogue: Catalogue, links: Links) -> list[str]:
    linked = [item for item in catalogue if item in links.tmdb_ids]
    if not linked:
        raise DataError(
            f"{links.path} links none of the {len(catalogue)} items of the catalogue, such as {next(iter(catalogue))}. "
            "Expected links whose movie ids are the dataset's; give the right file with --links."
        )
    return linked


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
    """The records, counted by kind into `counts` as they pass."""
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


def _record(
    work: Work,
    folder: ImagesFolder,
    item: str,
    future: Future[Poster],
    monitor: FailureMonitor,
) -> None:
    """Record the result of an item. The mark before a file shows a later start that the file is ours."""
    try:
        row, body, suffix = future.result()
    except PosterError as failure:
        monitor.failed(failure)
        work.failed(item, str(failure))
        return
    monitor.succeeded()
    if body:
        work.again(item, PLACING)
        row = {"file": folder.put(item, body, suffix), **row}
    work.done(item, row, {"bytes": len(body)})


def _advice(failure: PosterError) -> str:
    """When to go on; a sentence without its end."""
    if failure.pause:
        return f"Come back after {moment(failure.pause)}, when the pause is over that it asks for,"
    return "Come back in an hour" if "HTTP" in str(failure) else "Check the network, and go on"
