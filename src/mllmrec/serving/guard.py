"""What every request passes before a route sees it: the key, the limit of its body, and what every answer bears.

A body is read whole before anything is done with it, so that one that comes slowly holds up nobody but its sender.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mllmrec.serving.metrics import Metrics

OPEN = ("/", "/healthz", "/readyz", "/favicon.ico")
"""Paths that ask for no key: whether the server lives, and the page, which bears no data of its own."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; object-src 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
IDENTITY = {"Accept-Encoding": "identity"}
log = logging.getLogger("mllmrec.serving")


class RefusedError(Exception):
    """A request that is answered here; status and paragraph."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, headers


def problem(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer to a request that wasn't served: one paragraph under both names that clients look for."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return JSONResponse({"detail": text, "message": text}, status, headers)


class Guard:
    """An app behind a key (none: nobody is asked for one), names that it goes by (none: any), and a limit of bodies.

    Without the names a page of another site, whose name was pointed at this machine, could read a server that asks for
    no key because it listens on this machine alone.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        key: str,
        hosts: Collection[str],
        max_body: int,
        body_seconds: float,
        metrics: Metrics,
    ) -> None:
        self.app, self.key, self.hosts, self.metrics = app, key, hosts, metrics
        self.max_body, self.body_seconds = max_body, body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._serve(scope, receive, answered)
        except RefusedError as refused:
            await problem(refused.status, refused.text, refused.headers)(scope, receive, answered)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if status:
                raise
            await problem(500, "The server failed at this request; its log says where.")(scope, receive, answered)
        finally:
            route = route_of(scope)
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - started)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("host", "")
        if self.hosts and re.sub(r":\d*$", "", host).lower() not in self.hosts:
            raise RefusedError(421, f"This server isn't {host!r}. Ask it by the address that it told when it began.")
        if self.key and not is_open(scope["path"]) and not bears(Headers(scope=scope), self.key):
            raise RefusedError(
                401, "This server asks for a key: Authorization: Bearer KEY.", {"WWW-Authenticate": "Bearer"}
            )
        if (coding := Headers(scope=scope).get("content-encoding", "identity")).lower() != "identity":
            raise RefusedError(
                415, f"The body is packed as {coding!r}. Expected one as it is, without Content-Encoding.", IDENTITY
            )
        try:
            async with asyncio.timeout(self.body_seconds):
                body = await self._body(scope, receive)
        except TimeoutError:
            raise RefusedError(408, f"The body didn't arrive within {self.body_seconds:g} s.") from None
        if body is None:
            return
        replayed = False

        async def again() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, again, send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None where the client left before it was there."""
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > self.max_body:
            raise self._too_large()
        parts, size = [], 0
        while True:
            message: MutableMapping[str, Any] = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.max_body:
                raise self._too_large()
            if not message.get("more_body", False):
                return b"".join(parts)

    def _too_large(self) -> RefusedError:
        return RefusedError(413, f"The body is too large. Expected at most {self.max_body // 1024:,} KiB.")


def is_open(path: str) -> bool:
    """Whether a path asks for no key."""
    return path in OPEN or path.startswith("/static/")


def bears(headers: Headers, key: str) -> bool:
    """Whether a request bears the key; the time this takes doesn't depend on where a wrong one differs."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return hmac.compare_digest(given.strip().encode(), key.encode()) and scheme.lower() == "bearer"


def route_of(scope: Scope) -> str:
    """The route as it was declared, so that the number of names stays small whatever is asked for."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "/static" if scope["path"].startswith("/static/") else "none"
