"""`mllmrec serve`: a socket, who may come in, and how it ends.

SIGTERM and Ctrl-C end it: what was accepted is still answered, and the status is 0 after SIGTERM.
"""

from __future__ import annotations

import ipaddress
import math
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from mllmrec.errors import SettingsError
from mllmrec.progress import remark
from mllmrec.serving.app import make_app
from mllmrec.settings.serving import ServeSettings

BACKLOG = 1024
LOCAL = ("localhost", "127.0.0.1", "[::1]")


def serve(settings: ServeSettings) -> None:
    """Serve until a signal comes. Raises SettingsError for an address that may not or can't be listened on."""
    key = os.environ.get(settings.api_key_env, "")
    if not (key or settings.insecure or is_local(settings.host)):
        raise SettingsError(
            f"--host {settings.host} lets other machines in, and {settings.api_key_env} holds no key. Put a key into "
            "it, listen on 127.0.0.1, or let everybody in with --insecure."
        )
    with listening(settings.host, settings.port) as listener:
        config = uvicorn.Config(
            make_app(settings, key=key, hosts=() if key or settings.insecure else (*LOCAL, settings.host)),
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=math.ceil(settings.deadline) + 5,
        )
        server = uvicorn.Server(config)

        def end(*_: object) -> None:
            server.should_exit = True

        before = signal.signal(signal.SIGTERM, end)
        try:
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            remark(f"Serving {settings.dataset} at http://{shown}:{port} (stop with Ctrl-C).")
            server.run(sockets=[listener])
        finally:
            signal.signal(signal.SIGTERM, before)


def is_local(host: str) -> bool:
    """Whether an address is reached from this machine alone.

    >>> [is_local(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "example.com", "")]
    [True, True, True, False, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens on an address; port 0 takes any free one."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"Nothing can listen on {host}, port {port}: {error.strerror or error}. Choose another --port (0: any free "
            "one) or --host."
        ) from None
    with listener:
        yield listener
