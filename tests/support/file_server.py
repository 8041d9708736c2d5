"""A web server on loopback that misbehaves on demand, and counts what it sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Files:
    """What the server offers and how. `cuts` (bytes sent) and `statuses` are used up, one for each request."""

    content: dict[str, bytes]
    cuts: list[int | None] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    cut_suffix: str = ""
    honours_range: bool = True
    etag: str | None = '"one"'
    sent_bytes: int = 0
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""


@contextmanager
def serving(files: Files, handler_class: type[FilesHandler] | None = None) -> Iterator[Files]:
    handler = type("Handler", (handler_class or FilesHandler,), {"files": files})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        files.address = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield files
        finally:
            server.shutdown()
            thread.join()


class FilesHandler(BaseHTTPRequestHandler):
    files: Files
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def get(self) -> None:
        files, wanted = self.files, self.headers.get("Range")
        files.requests.append((self.path, wanted))
        status = files.statuses.pop(0) if files.statuses else 200
        body = files.content.get(self.path.lstrip("/"))
        if status != 200 or body is None:
            self._answer(404 if body is None else status, b"", {})
            return
        same = self.headers.get("If-Range", files.etag) == files.etag
        headers = {"ETag": files.etag} if files.etag else {}
        if not (wanted and files.honours_range and same):
            self._answer(200, body, headers)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body):
            self._answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
            return
        self._answer(206, body[start:], headers | {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"})

    do_GET = get  # the name that http.server calls

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        cuttable = body and self.files.cuts and self.path.endswith(self.files.cut_suffix)
        cut = self.files.cuts.pop(0) if cuttable else None
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        part = body if cut is None else body[:cut]
        self.wfile.write(part)
        self.files.sent_bytes += len(part)
        self.close_connection = True
