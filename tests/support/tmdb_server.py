"""A server on loopback with the two faces of TMDB, films and images, that misbehaves by plan and counts."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

JPEG, PNG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 8, b"\x89PNG\r\n\x1a\n" + b"pixels" * 100
KEY, TOKEN = "5ecre7key5ecre7key5ecre7key5ecre", "header.payload.5ecre7signature"


@dataclass
class FakeTmdb:
    """`films` maps a TMDB id to what the API tells, `images` a poster path to its bytes.

    `plans` maps a path of either kind to what its first requests get, one each: a status, (status, headers), "cut"
    or "hang".
    """

    films: dict[str, object] = field(default_factory=dict)
    images: dict[str, bytes] = field(default_factory=dict)
    plans: dict[str, list[object]] = field(default_factory=dict)
    seconds: float = 0.0
    address: str = ""
    requests: list[tuple[str, dict[str, list[str]], dict[str, str], float]] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    peak: int = 0

    def add(self, tmdb_id: str, body: bytes = JPEG, year: int = 2000, suffix: str = "jpg") -> None:
        """A film with a poster."""
        path = f"/poster{tmdb_id}.{suffix}"
        self.films[tmdb_id] = {"id": int(tmdb_id), "poster_path": path, "release_date": f"{year}-05-01"}
        self.images[path] = body + tmdb_id.encode()

    def paths(self) -> list[str]:
        return [path for path, *_ in self.requests]


@contextmanager
def serving(tmdb: FakeTmdb) -> Iterator[FakeTmdb]:
    handler = type("Handler", (TmdbHandler,), {"tmdb": tmdb, "lock": threading.Lock()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        tmdb.address = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield tmdb
        finally:
            server.shutdown()
            thread.join()


class TmdbHandler(BaseHTTPRequestHandler):
    tmdb: FakeTmdb
    lock: threading.Lock
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def get(self) -> None:
        tmdb, url = self.tmdb, urlsplit(self.path)
        with self.lock:
            tmdb.requests.append((url.path, parse_qs(url.query), dict(self.headers), time.monotonic()))
            tmdb.in_flight += 1
            tmdb.peak = max(tmdb.peak, tmdb.in_flight)
            plan = tmdb.plans.get(url.path, [])
            behaviour = plan.pop(0) if plan else 200
        try:
            time.sleep(tmdb.seconds)
            self._behave(url.path, behaviour)
        finally:
            with self.lock:
                tmdb.in_flight -= 1

    do_GET = get  # the name that http.server calls

    def _behave(self, path: str, behaviour: object) -> None:
        if behaviour == "hang":
            time.sleep(1.5)
            self.close_connection = True
        elif isinstance(behaviour, tuple):
            self._answer(behaviour[0], b"", behaviour[1])
        elif behaviour in (200, "cut"):
            self._content(path, cut=behaviour == "cut")
        else:
            self._answer(int(str(behaviour)), b"not now", {})

    def _content(self, path: str, *, cut: bool) -> None:
        kind, _, name = path.removeprefix("/").partition("/movie/" if path.startswith("/3/") else "/")
        if kind == "3":
            film = self.tmdb.films.get(name)
            body = film if isinstance(film, bytes) else json.dumps(film).encode()
            found = film is not None
        else:
            body = self.tmdb.images.get(f"/{name}", b"")
            found = f"/{name}" in self.tmdb.images
        self._answer(200 if found else 404, body, {}, cut=cut)
        if found and not cut:
            with self.lock:
                self.tmdb.answered[path] += 1

    def _answer(self, status: int, body: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True


def times_of(tmdb: FakeTmdb) -> dict[str, list[float]]:
    """When each path was asked for."""
    times = defaultdict[str, list[float]](list)
    for path, _, _, moment in tmdb.requests:
        times[path].append(moment)
    return times
