"""A teacher behind any server that speaks the OpenAI chat protocol.

A call that may succeed later (a busy or broken server, a timeout, a cut line, an empty or garbled answer) is made again
after an exponentially growing, fully jittered wait on top of what the server asks for; the library's own retries are
off, so that each is counted. Nothing is sent but the model's name, the sampling settings, text and pictures.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncOpenAI

from mllmrec.backends.access import DEFAULT_ADDRESS, Access
from mllmrec.backends.base import Picture, Reply, Request
from mllmrec.backends.completions import Outcome, is_passing, read_completion, refusal
from mllmrec.backends.inflight import in_flight
from mllmrec.backends.waiting import jittered, retry_after_seconds
from mllmrec.errors import BackendError, SettingsError
from mllmrec.progress import note
from mllmrec.settings.long import TeacherSettings

FATAL_STATUSES = (401, 402)
FATAL_AT_FIRST = (403, 404)
NO_CREDIT = "insufficient_quota"
RENAMED = "max_tokens_refused"
SHOWN_CHARACTERS = 300


class EndpointTeacher:
    """A [`Teacher`][mllmrec.backends.base.Teacher] that asks a server, `max_inflight` requests at a time.

    Raises SettingsError when the name of the model, or a key that is needed, is missing.
    """

    def __init__(self, settings: TeacherSettings) -> None:
        if not settings.model:
            raise SettingsError("An endpoint needs the name of a model it serves. Give it with --model.")
        self.name = settings.model
        self._settings = settings
        self._access = Access.of(settings)
        self._limit_name = "max_tokens"
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
        refused = not self._alive and failure.startswith("http_4")
        return (is_passing(failure) or refused) and not reply.usage.get("prompt_tokens")

    def _client(self) -> AsyncOpenAI:
        client = AsyncOpenAI(
            api_key=self._access.key,
            base_url=self._access.address,
            timeout=self._settings.timeout,
            max_retries=0,
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
            if outcome.failure == RENAMED:
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
        settings, limit_name = self._settings, self._limit_name
        body = {
            "model": self.name,
            "messages": [{"role": "user", "content": _content(request)}],
            "temperature": settings.temperature,
            limit_name: settings.max_new_tokens,
        }
        try:
            async with asyncio.timeout(settings.timeout):
                content = await client.post("/chat/completions", cast_to=str, body=body)
        except (APITimeoutError, TimeoutError):
            return Outcome(failure="timeout")
        except APIConnectionError as error:
            return Outcome(failure="connection", detail=str(error.__cause__ or error))
        except APIStatusError as error:
            if error.param == limit_name == "max_tokens":
                self._limit_name = "max_completion_tokens"
                return Outcome(failure=RENAMED)
            wait_seconds = retry_after_seconds(error.response.headers.get("retry-after"), time.time())
            said = error.body or error.message
            return refusal(error.status_code, said, code=error.code or "", wait_seconds=wait_seconds)
        return read_completion(content, request)

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
        self._last_words = f"The last words were: {self._shown(outcome.detail).rstrip('.')}."
        if outcome.failure not in self._told:
            self._told.add(outcome.failure)
            note(f"{self.name}: a request failed ({outcome.failure}). {self._last_words}")


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
