"""Where a server is and how to be let in. Keys stay out of whatever is shown and stored.

A key belongs in the environment. Some gateways want one in the query of their address; it is sent there, and counts as
a secret wherever the address is shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from mllmrec.errors import SettingsError
from mllmrec.settings.addresses import shown_address
from mllmrec.settings.long import TeacherSettings

DEFAULT_ADDRESS = "https://api.openai.com/v1"
NO_KEY = "none"
SECRET_LETTERS, LONG_LETTERS = 8, 16
"""A key of fewer letters is a placeholder and may be part of any word; a long one is struck even amid other letters."""


@dataclass(frozen=True)
class Access:
    """The address of a server without its query, and the key and the query, which its `repr` doesn't show."""

    address: str
    key: str = field(repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, settings: TeacherSettings) -> Access:
        """What settings and environment say; a server named by address may need no key and gets a placeholder.

        Raises SettingsError for an address that can't be one or holds a password, and for a key that is missing or
        can't be one.
        """
        address = settings.base_url or os.environ.get("OPENAI_BASE_URL", "")
        key = os.environ.get(settings.api_key_env, "").strip()
        if address:
            _check_address(address)
        elif not key:
            raise SettingsError(
                f"{DEFAULT_ADDRESS} needs a key and the environment variable {settings.api_key_env} is empty. Set it, "
                "or name another server with --base-url."
            )
        if not key.isascii() or not key.isprintable():
            raise SettingsError(
                f"The environment variable {settings.api_key_env} holds characters that no key has. Set it again."
            )
        query = dict(parse_qsl(urlsplit(address).query, keep_blank_values=True))
        return cls(address.partition("?")[0].partition("#")[0] or DEFAULT_ADDRESS, key or NO_KEY, query)

    def without_key(self, text: str) -> str:
        """`text`, which the server may have made from what it was sent, fit to be shown.

        >>> Access("http://127.0.0.1/v1", "sk-12345").without_key("Incorrect key Bearer sk-12345.")
        'Incorrect key Bearer [key].'
        >>> Access("http://127.0.0.1/v1", "k").without_key("unknown key")
        'unknown key'
        """
        values = {value for name, value in self.query.items() if "version" not in name.lower()}
        for secret in sorted({self.key, *values} - {NO_KEY, ""}, key=len, reverse=True):
            text = self._pattern(secret).sub("[key]", text)
        return text

    def _pattern(self, secret: str) -> re.Pattern[str]:
        escaped = re.escape(secret)
        if len(secret) >= LONG_LETTERS:
            return re.compile(escaped)
        before = r"(?<![A-Za-z0-9])" if len(secret) >= SECRET_LETTERS else r"(?<=Bearer )"
        return re.compile(rf"{before}{escaped}(?![A-Za-z0-9])")


def _check_address(address: str) -> None:
    try:
        parts = urlsplit(address)
    except ValueError:  # a host in brackets that is no IPv6 address
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise SettingsError(
            f"The address {shown_address(address)!r} can't be used: expected http:// or https:// and a host, without "
            "user and password. Give one such as --base-url http://127.0.0.1:8000/v1; a key belongs in the environment."
        )
