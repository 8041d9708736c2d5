"""A teacher behind any server that speaks the OpenAI chat protocol.

A call that may succeed later (a busy or broken server, a timeout, a cut line, an empty or garbled answer) is made again
after an exponentially growing, fully jittered wait on top of what the server asks for; the library's own retries are
off, so that each is counted. A setting that the server refuses is named with the flag that mends it; where it only
wants another name for the limit of tokens, it gets that. Nothing is sent but the model's name, the sampling settings,
text and pictures, and to no other server than the one that was named: a redirect to another origin ends the stage,
since the text would go along.

Where a server is and how to be let in. Keys stay out of whatever is shown and stored.

A key belongs in the environment. Some gateways want one in the query of their address; it is sent there, and counts as
a secret wherever the address is shown.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncOpenAI, DefaultAsyncHttpxClient

from mllmrec.errors import BackendError, SettingsError
from mllmrec.models.base import Picture, Reply, Request
from mllmrec.models.server.completions import ADVICE, Outcome, is_passing, read_completion, refusal, refused_setting
from mllmrec.models.server.inflight import in_flight, jittered, retry_after_seconds
from mllmrec.progress import note
from mllmrec.settings.base import shown_address
from mllmrec.settings.texts import TeacherSettings

FATAL_STATUSES = (401, 402)
FATAL_AT_FIRST = (403, 404)
NO_CREDIT = "insufficient_quota"
CHANGED = "asked_otherwise"
"""A call that is made again at once, because the request is put in another way."""
CONTEXT = "context_length"
SHOWN_CHARACTERS = 300

DEFAULT_ADDRESS = "https://api.openai.com/v1"
NO_KEY = "none"
SECRET_LETTERS, LONG_LETTERS = 8, 16
"""A key of fewer letters is a placeholder and may be part of any word; a long one is struck even amid other letters."""


class EndpointTeacher:
    """A [`Teacher`][mllmrec.models.base.Teacher] that asks a server, `max_inflight` requests at a time.

    Raises SettingsError when the name of the model, or a key that is needed, is missing.
    """

    def __init__(self, settings: TeacherSettings) -> None:
        if not settings.model:
            raise SettingsError("An endpoint needs the name of a model it serves. Give it with --model.")
        self.name = settings.model
        self._settings = settings
        self._access = Access.of(settings)
        self._limit_name = "max_tokens"
        self._sends_temperature = True
        self._alive = False
        self._told: set[str] = set()
        self._last_words = ""

    def answer(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield replies as they finish.

        Passing failures that took no tokens wait here until the server shows that it lives, and so do refusals before
        the first answer, which a wrong setting brings on every request. When there are more than twice `max_inflight`
        of them, or nothing was ever reached, a BackendError is raised and they count as not asked.
        """
        client, limit = self._client(), self._settings.max_inflight
        held: list[Reply] = []
        for reply in in_flight(lambda request: self._ask(client, request), client.close, requests, limit):
            if self._may_be_the_server(reply):
                held.append(reply)
                if len(held) > 2 * limit:
                    raise self._gone(held)
                continue
            yield from held
            held.clear()
            yield reply
        if not self._alive and any(reply.failure == "connection" for reply in held):
            raise self._gone(held)
        yield from held

    def _may_be_the_server(self, reply: Reply) -> bool:
        """Whether a failure may be the server's, or the settings', and none of this request."""
        failure = reply.failure or ""
        return (is_passing(failure) or (not self._alive and _is_refusal(failure))) and not reply.usage.get(
            "prompt_tokens"
        )

    def _client(self) -> AsyncOpenAI:
        client = AsyncOpenAI(
            api_key=self._access.key,
            base_url=self._access.address,
            timeout=self._settings.timeout,
            max_retries=0,
            default_query=dict(self._access.query),
            http_client=DefaultAsyncHttpxClient(event_hooks={"response": [self._stay_at_the_origin]}),
        )
        if self._access.address != DEFAULT_ADDRESS:
            client.organization = client.project = None  # which the library would send to any server
        return client

    async def _ask(self, client: AsyncOpenAI, request: Request) -> Reply:
        """The reply to one request, after as many calls as it takes."""
        usage: Counter[str] = Counter()
        attempt = 0
        while True:
            begun = time.monotonic()
            outcome = await self._call(client, request)
            usage.update({"calls": 1, "milliseconds": round(1000 * (time.monotonic() - begun)), **outcome.usage})
            self._check(outcome)
            if outcome.failure == CHANGED:
                continue
            if attempt == self._settings.max_retries or not outcome.is_passing:
                break
            usage.update({"retries": 1, f"retries_{outcome.failure}": 1})
            await asyncio.sleep(outcome.wait_seconds + jittered(attempt))
            attempt += 1
        self._tell(outcome)
        seconds = usage.pop("milliseconds") / 1000
        return Reply(key=request.key, text=outcome.text, failure=outcome.failure, usage={**usage, "seconds": seconds})

    async def _call(self, client: AsyncOpenAI, request: Request) -> Outcome:
        """What came of one call. The timeout is for the whole of it, however slowly the answer drips."""
        body = {
            "model": self.name,
            "messages": [{"role": "user", "content": _content(request)}],
            self._limit_name: self._settings.max_new_tokens,
            **({"temperature": self._settings.temperature} if self._sends_temperature else {}),
        }
        outcome = self._without_keys(await self._post(client, request, body))
        return self._understood(outcome, request, body)

    def _without_keys(self, outcome: Outcome) -> Outcome:
        """The outcome as it may be shown and stored, since a server may echo what it was sent, escaped or not."""
        plain = self._access.without_key
        return replace(
            outcome,
            text=None if outcome.text is None else plain(outcome.text),
            failure=None if outcome.failure is None else plain(outcome.failure),
            detail=plain(outcome.detail),
        )

    async def _stay_at_the_origin(self, response: Any) -> None:
        """Refuse, before anything is sent there, a redirect to another scheme, host or port."""
        if not response.has_redirect_location:
            return
        here, there = response.request.url, response.request.url.join(response.headers["location"])
        if (here.scheme, here.host, here.port) != (there.scheme, there.host, there.port):
            moved = f"{there.scheme}://{there.netloc.decode().rpartition('@')[2]}{there.path}"
            raise BackendError(
                f"The server at {self._access.address} sends requests on to {self._access.without_key(moved)} (status "
                f"{response.status_code}), another origin, to which texts, pictures and the key would go along. "
                "Expected it to answer itself. Name the right server with --base-url if you trust it; nothing was sent "
                "there, and what is done is kept."
            )

    async def _post(self, client: AsyncOpenAI, request: Request, body: Mapping[str, Any]) -> Outcome:
        try:
            async with asyncio.timeout(self._settings.timeout):
                content = await client.post("/chat/completions", cast_to=str, body=body)
        except (APITimeoutError, TimeoutError):
            return Outcome(failure="timeout")
        except APIConnectionError as error:
            if isinstance(error.__cause__, BackendError):
                raise error.__cause__ from None
            return Outcome(failure="connection", detail=str(error.__cause__ or error))
        except APIStatusError as error:
            wait_seconds = retry_after_seconds(error.response.headers.get("retry-after"), time.time())
            said = error.body or error.message
            return refusal(error.status_code, said, code=error.code or "", wait_seconds=wait_seconds)
        return read_completion(self._access.without_key(content), request)

    def _understood(self, outcome: Outcome, request: Request, body: Mapping[str, Any]) -> Outcome:
        """The outcome with what to do about a refused setting; `CHANGED` where the request can be put otherwise.

        A temperature of 1 is what servers take where none is sent, so one that takes no temperature at all gets none.
        """
        if outcome.status is None:
            return outcome
        limit_name = "max_tokens" if "max_tokens" in body else "max_completion_tokens"
        refused = refused_setting(
            outcome.status, outcome.parameter, outcome.detail, limit_name=limit_name, pictures=bool(request.pictures)
        )
        if refused == "renamed":
            self._limit_name = "max_completion_tokens"
            return Outcome(failure=CHANGED)
        if refused == "temperature" and body.get("temperature") == 1:
            if self._sends_temperature:
                note(f"{self.name}: the server takes no temperature; none is sent, and its own default counts.")
            self._sends_temperature = False
            return Outcome(failure=CHANGED)
        if refused is None:
            return outcome
        settings = self._settings
        advice = ADVICE[refused].format(temperature=settings.temperature, max_new_tokens=settings.max_new_tokens)
        if refused in ("temperature", "max_tokens") and not self._alive:
            raise BackendError(
                f"The server at {self._access.address} refuses the request to {self.name!r} with status "
                f"{outcome.status}: {self._shown(outcome.detail).rstrip('.')}. {advice} Then start the command again; "
                "what is done is kept."
            )
        return replace(outcome, failure=CONTEXT if refused == "context" else outcome.failure, advice=advice)

    def _check(self, outcome: Outcome) -> None:
        """Raise when no request can succeed any more: a wrong key, no credit, an unknown model."""
        self._alive = self._alive or outcome.text is not None
        fatal = FATAL_STATUSES if self._alive else (*FATAL_STATUSES, *FATAL_AT_FIRST)
        if outcome.status in fatal or outcome.code == NO_CREDIT:
            raise BackendError(
                f"The server at {self._access.address} refused {self.name!r} with status {outcome.status}: "
                f"{self._shown(outcome.detail)} Expected a model it serves and, where it needs one, a "
                f"valid key with credit in the environment variable {self._settings.api_key_env}. Mend --model, "
                "--base-url or the key and start the same command again; what is done is kept."
            )

    def _gone(self, held: list[Reply]) -> BackendError:
        reasons = ", ".join(f"{word} ({count})" for word, count in Counter(reply.failure for reply in held).items())
        if all(_is_refusal(reply.failure or "") for reply in held):
            return BackendError(
                f"The server at {self._access.address} refuses every request: the last {len(held)} failed with "
                f"{reasons}. {self._last_words} Expected settings that it takes. Change what it names and start the "
                "same command again; what is done is kept, and these requests count as not asked."
            )
        return BackendError(
            f"The server at {self._access.address} doesn't answer: the last {len(held)} requests failed after all "
            f"retries: {reasons}. {self._last_words} Expected an OpenAI-compatible server. See that it runs and that "
            "--base-url is right, then start the same command again; what is done is kept, and these requests count "
            "as not asked."
        )

    def _shown(self, detail: str) -> str:
        """What a server said, without the key and then cut: a key across the cut would be shown in part."""
        return self._access.without_key(detail)[:SHOWN_CHARACTERS]

    def _tell(self, outcome: Outcome) -> None:
        """Tell the first failure of each kind as the server worded it; records keep the kind alone."""
        if outcome.failure is None or not outcome.detail:
            return
        self._last_words = f"The last words were: {self._shown(outcome.detail).rstrip('.')}. {outcome.advice}".strip()
        if outcome.failure not in self._told:
            self._told.add(outcome.failure)
            note(f"{self.name}: a request failed ({outcome.failure}). {self._last_words}")


def _is_refusal(failure: str) -> bool:
    """Whether the server refused a request for what it holds."""
    return failure == CONTEXT or (failure.startswith("http_4") and not is_passing(failure))


def _content(request: Request) -> Any:
    """A user's turn: the parts of the request, pictures as data URIs."""
    if not request.pictures:
        return request.text
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": _data_uri(part)}}
        for part in request.parts()
    ]


def _data_uri(picture: Picture) -> str:
    return f"data:{picture.media_type};base64,{base64.b64encode(picture.encoded).decode()}"


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
