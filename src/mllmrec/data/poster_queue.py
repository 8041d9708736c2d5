"""Posters by the dozen: several requests at a time, one record for each item, and an early end where none will come."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from mllmrec.data.images_folder import ImagesFolder
from mllmrec.data.movie_links import Links
from mllmrec.data.sequences import Catalogue
from mllmrec.data.tmdb import PosterError, Tmdb, moment
from mllmrec.errors import BackendError, DataError
from mllmrec.progress import progress
from mllmrec.work import Work

PLACING = "being placed"
OTHER_FILM = "another film by its year"
UNREACHABLE = re.compile(r"the connection failed|timed out|HTTP (?:429|5\d\d)")
YEARS_APART, FEWEST_FILMS, FAILURES_IN_A_ROW = 2, 20, 8

_YEAR = re.compile(r"\((\d{4})\)\s*$")
Answer = tuple[dict[str, Any], bytes, str]


class Fetcher:
    """Asks for one item's poster; called from several threads."""

    def __init__(self, client: Tmdb, catalogue: Catalogue, links: Links) -> None:
        self.client, self._catalogue, self._tmdb_ids = client, catalogue, links.tmdb_ids

    def __call__(self, item: str) -> Answer:
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
    left, pending, watch = iter(todo), dict[Future[Answer], str](), Watch()
    pool = ThreadPoolExecutor(max_inflight)
    try:
        with progress("fetching posters", len(todo)) as advance:
            while True:
                for item in itertools.islice(left, max_inflight - len(pending)):
                    pending[pool.submit(fetch, item)] = item
                if not pending:
                    return
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    _record(work, folder, pending.pop(future), future, watch)
                    advance(1)
    finally:
        fetch.client.stop.set()
        pool.shutdown(cancel_futures=True)


def _record(
    work: Work,
    folder: ImagesFolder,
    item: str,
    future: Future[Answer],
    watch: Watch,
) -> None:
    """Write down what became of an item. The mark before a file tells a later start that the file is ours."""
    try:
        row, body, suffix = future.result()
    except PosterError as failure:
        watch.failed(failure)
        work.failed(item, str(failure))
        return
    watch.went_well()
    if body:
        work.again(item, PLACING)
        row = {"file": folder.place(item, body, suffix), **row}
    work.done(item, row, {"bytes": len(body)})


class Watch:
    """Notices early when going on makes no sense: nobody answers or only with refusals, or the links number others."""

    def __init__(self) -> None:
        self._reasons, self._in_a_row, self._well = Counter[str](), 0, 0

    def went_well(self) -> None:
        self._in_a_row, self._well = 0, self._well + 1

    def failed(self, failure: PosterError) -> None:
        """Raises BackendError or DataError in place of the failure that is one too many."""
        reason = str(failure)
        self._in_a_row = self._in_a_row + 1 if UNREACHABLE.fullmatch(reason) else 0
        self._reasons[reason] += 1
        if self._in_a_row >= FAILURES_IN_A_ROW:
            raise BackendError(
                f"TMDB doesn't answer: {self._in_a_row} items in a row failed ({reason}). {_advice(failure)} with the "
                "same command and --retry-failed; what is done is kept."
            )
        others = self._reasons[OTHER_FILM]
        if others >= FEWEST_FILMS and others > self._well:
            raise DataError(
                f"{others} of the first {others + self._well} films are of another year than the catalogue says. "
                "Expected links whose movie ids are the dataset's (the ids of ml-100k are others than those of later "
                "releases). Give the right file with --links and start over with --overwrite."
            )


def _advice(failure: PosterError) -> str:
    """When to go on; a sentence without its end."""
    if failure.pause:
        return f"Come back after {moment(failure.pause)}, when the pause is over that it asks for,"
    return "Come back in an hour" if "HTTP" in str(failure) else "Check the network, and go on"
