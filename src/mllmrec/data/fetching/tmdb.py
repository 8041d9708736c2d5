"""The client of TMDB's API for posters, and the links from items to films.

The key goes into a header or a query and nowhere else: error messages are written here and never quote the HTTP
library, whose texts hold addresses with their queries. A busy server (429, 5xx, a cut, a timeout) is asked again after
a pause that doubles each time. A pause that the server names is kept by all threads, and a very long one ends the
stage. Redirects aren't followed.

The links.csv of a MovieLens release says which film an item is. Releases number films alike from 1m on (latest, 25m
and 32m too), so that the links of one serve the others; 100k has numbers of its own.
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from mllmrec.data.fetching.download import asked_pause
from mllmrec.data.quoting import csv_rows, read_text
from mllmrec.data.sequences import Catalogue
from mllmrec.errors import ArtifactError, BackendError, DataError
from mllmrec.settings.resources import FetchImagesSettings
from mllmrec.storage.workspace import DatasetFiles, require

BACKOFF_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 120.0
BLOCK_BYTES = 1 << 14
RESPONSE_BYTES = 1 << 20
MAGIC = ((b"\xff\xd8\xff", ".jpg"), (b"\x89PNG\r\n\x1a\n", ".png"))
_POSTER = re.compile(r"/[A-Za-z0-9_-]+\.[a-z]{3,4}")
LINK_COLUMNS = ("movieId", "tmdbId")
ATTRIBUTE = "tmdb_id"
"""The column of the titles file in which `prepare` keeps these ids."""


class PosterError(Exception):
    """A poster that can't be fetched; the text is a few stable words, by which failures are counted.

    `pause` is what a busy server asked for last, in seconds.
    """

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


class BusyError(Exception):
    """A failure that may pass; `pause` is what the server asks for, in seconds."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.pause = reason, pause


@dataclass(frozen=True, kw_only=True)
class Film:
    """A film at TMDB: its year and the path of its poster, each None where TMDB has none."""

    year: int | None
    poster_path: str | None


class Tmdb:
    """A client for several threads. `stop` ends all waiting."""

    def __init__(self, settings: FetchImagesSettings, key: str) -> None:
        self._settings, self._key = settings, key
        self._sessions = threading.local()
        self._open_at = 0.0
        self.stop = threading.Event()

    def film(self, tmdb_id: str) -> Film | None:
        """The film of an id, None where TMDB knows none. Raises PosterError, BackendError when the key is refused."""
        url = f"{self._settings.api_url.rstrip('/')}/3/movie/{tmdb_id}"
        body = self._get(url, RESPONSE_BYTES, secret=True)
        return None if body is None else _film(body)

    def poster(self, path: str) -> tuple[bytes, str]:
        """The bytes of a poster and the suffix that they call for. Raises PosterError."""
        url = f"{self._settings.image_url.rstrip('/')}/{self._settings.size}{path}"
        body = self._get(url, int(self._settings.max_mb * 1e6), secret=False)
        if body is None:
            raise PosterError("HTTP 404")
        return body, suffix_of(body)

    def _get(self, url: str, limit: int, *, secret: bool) -> bytes | None:
        """The body of an answer, None for 404, asking again where that may help."""
        for attempt in range(self._settings.max_retries + 1):
            self._wait_for_opening()
            try:
                return self._attempt(url, limit, secret=secret)
            except BusyError as busy:
                self._refuse_long(busy)
                self._pause(busy, attempt)
                if attempt == self._settings.max_retries:
                    raise PosterError(busy.reason, busy.pause) from None
        raise AssertionError("the loop returns or raises")

    def _attempt(self, url: str, limit: int, *, secret: bool) -> bytes | None:
        """One request. The key is sent to the API alone, as a token or as a v3 key."""
        token = secret and "." in self._key
        params = {"api_key": self._key} if secret and not token else {}
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {self._key}"} if token else {})
        try:
            with self._session().get(
                url, params=params, headers=headers, stream=True, allow_redirects=False, timeout=self._settings.timeout
            ) as response:
                if response.status_code == 404:
                    return None
                self._refuse(response, secret=secret)
                return self._body(response, limit)
        except requests.Timeout:
            raise BusyError("timed out") from None
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError):
            raise BusyError("the connection was cut") from None
        except requests.ConnectionError:
            raise BusyError("the connection failed") from None
        except requests.RequestException:
            raise PosterError("the request can't be sent") from None

    def _refuse(self, response: requests.Response, *, secret: bool) -> None:
        status = response.status_code
        if secret and status in (401, 403):
            raise BackendError(
                f"TMDB refuses the key in {self._settings.api_key_env} (HTTP {status}). Expected an API key or a read "
                "access token of your account, see https://www.themoviedb.org/settings/api; what is done is kept."
            )
        if status == 429 or status >= 500:
            raise BusyError(f"HTTP {status}", asked_pause(response.headers.get("Retry-After"), time.time()))
        if status != 200:
            raise PosterError(f"HTTP {status}")

    def _body(self, response: requests.Response, limit: int) -> bytes:
        """The body, as far as it keeps to the limit of bytes and comes in time."""
        body, deadline = bytearray(), time.monotonic() + self._settings.timeout
        for block in response.iter_content(BLOCK_BYTES):
            body += block
            if len(body) > limit:
                raise PosterError("too large")
            if time.monotonic() > deadline or self.stop.is_set():
                raise BusyError("timed out")
        return bytes(body)

    def _refuse_long(self, busy: BusyError) -> None:
        if busy.pause is not None and busy.pause > LONGEST_PAUSE_SECONDS:
            raise BackendError(
                f"TMDB asks to wait for {busy.pause:,.0f} s ({busy.reason}), longer than is waited here. Start the "
                f"same command again after {moment(busy.pause)}; what is done is kept."
            )

    def _pause(self, busy: BusyError, attempt: int) -> None:
        """Wait before another request; where the server asked for it, all threads do before their next one."""
        seconds = max(busy.pause or 0.0, BACKOFF_SECONDS * 2**attempt * (1 + random.random()))
        if busy.pause is not None:
            self._open_at = max(self._open_at, time.monotonic() + seconds)
        elif attempt < self._settings.max_retries and self.stop.wait(seconds):
            raise PosterError("stopped")

    def _wait_for_opening(self) -> None:
        while (left := self._open_at - time.monotonic()) > 0:
            self.stop.wait(left)
            if self.stop.is_set():
                break
        if self.stop.is_set():
            raise PosterError("stopped")

    def _session(self) -> requests.Session:
        """The session of this thread, which keeps its connections."""
        session: requests.Session | None = getattr(self._sessions, "session", None)
        if session is None:
            session = self._sessions.session = requests.Session()
            session.auth = _as_it_is
        return session


def moment(seconds: float) -> str:
    """The minute that begins in so many seconds or a little later, as a text."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time.time() + seconds + 59))


def suffix_of(body: bytes) -> str:
    """The suffix of an image by its first bytes. Raises PosterError when it is none, or none that is read here.

    >>> suffix_of(b"\\x89PNG\\r\\n\\x1a\\n...")
    '.png'
    """
    for magic, suffix in MAGIC:
        if body.startswith(magic):
            return suffix
    if body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        return ".webp"
    raise PosterError("no image")


@dataclass(frozen=True, kw_only=True)
class Links:
    """TMDB's id of each item that has one, and the file that they were read from."""

    path: Path
    tmdb_ids: dict[str, str]


def find_links(files: DatasetFiles, catalogue: Catalogue, given: str | None) -> Links:
    """The links in `given`, else in data/<dataset>/links.csv, the titles file, or the only links.csv under raw/."""
    if given is not None:
        what = "The file of links to TMDB"
        return read_links(require(Path(given).expanduser(), what, "Give links.csv of a MovieLens release by --links."))
    own = files.folder / "links.csv"
    if own.exists():
        return read_links(own)
    if titled := _titled(catalogue):
        return Links(path=files.titles, tmdb_ids=titled)
    paths = sorted((files.workspace.root / "raw").glob("**/links.csv"))
    if len(paths) == 1:
        return read_links(paths[0])
    several = f"; there are {len(paths)} under raw/: {', '.join(map(str, paths))}" if paths else ""
    raise ArtifactError(
        f"No links from items to TMDB are known: {own} does not exist, and the titles file has no column "
        f"{ATTRIBUTE}{several}. Give the links.csv of a MovieLens release whose movie ids are the dataset's with "
        "--links, or fetch one with `mllmrec fetch dataset movielens-latest-small`."
    )


def read_links(path: Path) -> Links:
    """The rows of links.csv that have a TMDB id; of several rows of an item the first counts."""
    rows = csv_rows(read_text(path), path)
    _, header = next(rows, (1, []))
    header = [name.strip() for name in header]
    if not set(LINK_COLUMNS) <= set(header):
        raise DataError(f"{path}:1: expected the columns {', '.join(LINK_COLUMNS)}; found {', '.join(header)}.")
    tmdb_ids: dict[str, str] = {}
    for number, row in rows:
        fields = dict(zip(header, row, strict=False))
        item, tmdb_id = (fields.get(name, "").strip() for name in LINK_COLUMNS)
        if tmdb_id and not _is_number(tmdb_id):
            raise DataError(f"{path}:{number}: tmdbId is {tmdb_id[:40]!r}. Expected a number, or nothing.")
        if tmdb_id:
            tmdb_ids.setdefault(item, tmdb_id)
    return Links(path=path, tmdb_ids=tmdb_ids)


def _film(body: bytes) -> Film:
    try:
        reply: Any = json.loads(body)
        path, released = reply["poster_path"], reply.get("release_date") or ""
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise PosterError("an odd answer") from None
    if path is not None and not (isinstance(path, str) and _POSTER.fullmatch(path)):
        raise PosterError("an odd answer")
    year = released[:4] if isinstance(released, str) else ""
    return Film(year=int(year) if year.isascii() and year.isdigit() else None, poster_path=path)


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """No credentials of a .netrc file in place of ours."""
    return request


def _titled(catalogue: Catalogue) -> dict[str, str]:
    """TMDB ids among the attributes of the titles file, where `prepare` puts them."""
    ids = {item_id: dict(item.attributes).get(ATTRIBUTE, "").strip() for item_id, item in catalogue.items()}
    return {item_id: tmdb_id for item_id, tmdb_id in ids.items() if _is_number(tmdb_id)}


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
