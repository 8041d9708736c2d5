"""Addresses of servers as they may be shown and written to manifests: without passwords, keys and tokens."""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import PlainSerializer

DIGITS = 8


def shown_address(address: str) -> str:
    """The address without fragment, user and password, and with a few digits of a hash for each value of its query.

    Another value still makes another address, and none can be read off it.

    >>> shown_address("https://me:secret@api.example.com/v1?key=abc&v#x"), shown_address("http://127.0.0.1/v1")
    ('https://api.example.com/v1?key=~ba7816bf&~4c94485e', 'http://127.0.0.1/v1')
    """
    location, question, query = address.partition("#")[0].partition("?")
    scheme, slashes, rest = location.rpartition("//")
    host, slash, path = rest.partition("/")
    shown = scheme + slashes + host.rpartition("@")[2] + slash + path
    return shown + question + "&".join(map(_hidden, query.split("&"))) if query else shown


def _hidden(pair: str) -> str:
    name, equals, value = pair.rpartition("=")
    return f"{name}{equals}~{hashlib.sha256(value.encode()).hexdigest()[:DIGITS]}"


Address = Annotated[str, PlainSerializer(shown_address, when_used="json-unless-none")]
"""An address that manifests hold as it may be shown; the program itself has it whole."""
