"""Where the server is and with which key; the key is shown nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from mllmrec.errors import SettingsError
from mllmrec.models.server.endpoint import Access
from mllmrec.settings.texts import TeacherSettings

LOCAL = "http://127.0.0.1:8000/v1"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "SOME_KEY"):
        monkeypatch.delenv(name, raising=False)


def access(**knobs: Any) -> Access:
    return Access.of(TeacherSettings(dataset="toy", **knobs))


def test_a_local_server_needs_no_key() -> None:
    assert access(base_url=LOCAL) == Access(LOCAL, "none")


def test_the_key_is_read_from_the_variable_that_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", " sk-12345\n")
    assert access(api_key_env="SOME_KEY") == Access("https://api.openai.com/v1", "sk-12345")
    assert access(base_url=LOCAL, api_key_env="SOME_KEY").key == "sk-12345"
    assert access(base_url=LOCAL).key == "none"


def test_the_public_server_needs_one() -> None:
    with pytest.raises(SettingsError, match=r"variable SOME_KEY is empty\. Set it, or name another server"):
        access(api_key_env="SOME_KEY")


def test_the_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-12345")
    found = access(api_key_env="SOME_KEY")
    assert "12345" not in repr(found)
    assert found.without_key("Incorrect key Bearer sk-12345.") == "Incorrect key Bearer [key]."
    assert access(base_url=LOCAL).without_key("none of it") == "none of it"


@pytest.mark.parametrize(
    ("key", "text", "shown"),
    [
        ("k", "broken key k", "broken key k"),
        ("k", "Bearer k was refused", "Bearer [key] was refused"),
        ("none", "none of it", "none of it"),
        ("EMPTY", "EMPTY is not a key", "EMPTY is not a key"),
        ("lm-studio", "lm-studios, and lm-studio", "lm-studios, and [key]"),
        ("sk-0123456789abcdef", "xsk-0123456789abcdefx", "x[key]x"),
    ],
)
def test_a_key_is_struck_where_it_can_be_no_other_word(key: str, text: str, shown: str) -> None:
    assert Access(LOCAL, key).without_key(text) == shown


def test_a_key_in_the_query_is_sent_and_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    found = access(base_url=f"{LOCAL}?key=sk-query-0123456789&version=2024-02-01#x")
    assert (found.address, dict(found.query)) == (LOCAL, {"key": "sk-query-0123456789", "version": "2024-02-01"})
    assert "0123" not in repr(found)
    assert found.without_key("refused sk-query-0123456789") == "refused [key]"
    monkeypatch.setenv("OPENAI_BASE_URL", f"{LOCAL}?key=sk-query-0123456789")
    assert access().query == {"key": "sk-query-0123456789"}


def test_an_address_of_a_manifest_tells_no_key_and_the_settings_have_it_whole() -> None:
    settings = TeacherSettings(dataset="toy", base_url=f"{LOCAL}?key=sk-query-0123456789")
    assert settings.base_url.endswith("sk-query-0123456789")
    assert "0123" not in settings.model_dump_json()
    assert settings.model_dump(mode="json")["base_url"].startswith(f"{LOCAL}?key=~")
    assert settings.model_dump()["base_url"] == settings.base_url


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:8000/v1",
        "ftp://host/v1",
        "http:///v1",
        "https://me:secret@host/v1",
        "http://[host",
        "host/v1?key=secret",
    ],
)
def test_an_address_that_cannot_be_one_is_refused_without_telling_its_password(address: str) -> None:
    with pytest.raises(SettingsError, match=r"expected http:// or https://") as caught:
        access(base_url=address)
    assert "secret" not in str(caught.value)


def test_a_key_that_cannot_be_one_is_refused_without_telling_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-12345\nX-Evil: 1")
    with pytest.raises(SettingsError, match="characters that no key has") as caught:
        access(api_key_env="SOME_KEY")
    assert "12345" not in str(caught.value)
