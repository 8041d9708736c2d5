"""Where a server is and how to be let in. The key stays in the environment, and out of whatever is told."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from mllmrec.errors import SettingsError
from mllmrec.settings.long import TeacherSettings

DEFAULT_ADDRESS = "https://api.openai.com/v1"
NO_KEY = "none"
SECRET_LETTERS, LONG_LETTERS = 8, 16
"""A key of fewer letters is a placeholder and may be part of any word; a long one is struck even amid other letters."""


@dataclass(frozen=True)
class Access:
    """The address of a server, and the key that its `repr` doesn't show."""

    address: str
    key: str = field(repr=False)

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
        return cls(address or DEFAULT_ADDRESS, key or NO_KEY)

    def without_key(self, text: str) -> str:
        """`text`, which the server may have made from what it was sent, fit to be shown.

        >>> Access("http://127.0.0.1/v1", "sk-12345").without_key("Incorrect key Bearer sk-12345.")
        'Incorrect key Bearer [key].'
        >>> Access("http://127.0.0.1/v1", "k").without_key("unknown key")
        'unknown key'
        """
        if len(self.key) >= LONG_LETTERS:
            return text.replace(self.key, "[key]")
        if len(self.key) < SECRET_LETTERS:
            return re.sub(rf"(?<=Bearer ){re.escape(self.key)}(?!\w)", "[key]", text) if self.key != NO_KEY else text
        return re.sub(rf"(?<![A-Za-z0-9]){re.escape(self.key)}(?![A-Za-z0-9])", "[key]", text)


def _check_address(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        raise SettingsError(
            f"The address {shown!r} can't be used: expected http:// or https:// and a host, without user and password. "
            "Give one such as --base-url http://127.0.0.1:8000/v1; a key belongs in the environment."
        )
