"""An OpenAI-compatible server on loopback that answers, or fails in a way that a plan chooses, and records all it saw.

As a program it answers everything after some milliseconds, prints its address, and ends with its standard input:

    python tests/support/faulty_server.py 200
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

Plan = Callable[[str, int], str]
PROMPT_TOKENS, COMPLETION_TOKENS = 100, 10
HANG_SECONDS = 60.0
FAULTS = (
    *("http_429", "http_429_after", "http_429_date", "http_500", "http_503", "http_408", "http_409", "hang", "cut"),
    *("cut_body", "no_choices", "invalid_json", "not_json", "error_body", "empty", "unfinished_think"),
    *("aborted", "out_of_resource"),
)
"""Faults that may pass. What ends a request at once: http_400, http_404, http_422, truncated, filtered."""
WRITTEN = {
    "kimi": "◁think▷Let me think.◁/think▷{}",
    "mistral": "[THINK]Let me think.[/THINK]{}",
    "harmony": "<|channel|>analysis<|message|>Let me.<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>",
    "harmony_stripped": "analysisLet me think.assistantfinal{}",
    "wrapped": "<think>Let me think.</think><answer>{}</answer>",
    "boxed": "<think>Let me think.</think><|begin_of_box|>{}<|end_of_box|>",
}
"""How an answer stands in the content, among marks of reasoning."""
REFUSALS = {
    "limit_refused": {"message": "not supported", "param": "max_tokens", "code": "unsupported_parameter"},
    "limit_refused_in_words": {
        "message": "'max_tokens' is off. Use 'max_completion_tokens'.",
        "param": None,
        "code": 400,
    },
    "limit_too_large": {
        "message": "max_tokens is too large: 64. This model supports at most 32.",
        "param": "max_tokens",
    },
    "temperature_refused": {"message": "Only the default (1) value is supported.", "param": "temperature"},
    "context_refused": {
        "message": "'max_tokens' or 'max_completion_tokens' is too large: 64. This model's maximum context length is "
        "60 tokens and your request has 20 input tokens."
    },
}
"""Error objects of status 400, each about one setting."""
VARIANTS = ("answer", "reasoning_field", "think", "slow", "parts", "no_usage", *WRITTEN)


@dataclass(kw_only=True)
class Received:
    """One request as the server saw it. `answered` once a good answer was written out whole."""

    text: str
    pictures: list[str]
    body: dict[str, Any]
    headers: dict[str, str]
    behaviour: str
    began: float
    target: str
    answered: bool = False


@dataclass
class FaultyServer:
    """`plan(text, number)` names the behaviour for the `number`-th request (from 0) with this text."""

    plan: Plan
    answer: Callable[[str], str]
    seconds: float = 0.0
    retry_after: float = 0.2
    address: str = ""
    moved_to: str = ""
    requests: list[Received] = field(default_factory=list)
    in_flight: int = 0
    peak: int = 0
    _seen: dict[str, int] = field(default_factory=dict)

    def behaviours(self, text: str) -> list[str]:
        return [request.behaviour for request in self.requests if request.text == text]

    def times_answered(self, text: str) -> int:
        return sum(request.answered for request in self.requests if request.text == text)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept alive."""
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection stays."""
        head = await reader.readuntil(b"\r\n\r\n")
        lines = [line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:] if line]
        headers = {name.lower(): value.strip() for name, _, value in lines}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", "0"))) or b"{}")
        text, pictures = _text_and_pictures(body)
        number = self._seen.get(text, 0)
        self._seen[text] = number + 1
        behaviour = self.plan(text, number)
        received = Received(
            text=text,
            pictures=pictures,
            body=body,
            headers=headers,
            behaviour=behaviour,
            began=time.monotonic(),
            target=head.decode("latin-1").split()[1],
        )
        self.requests.append(received)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            if behaviour == "hang":
                await asyncio.wait_for(reader.read(1), HANG_SECONDS)  # the client has gone when this returns
                return False
            return await self._respond(writer, received)
        finally:
            self.in_flight -= 1

    async def _respond(self, writer: asyncio.StreamWriter, received: Received) -> bool:
        behaviour = received.behaviour
        if behaviour == "cut":
            return False
        await asyncio.sleep(0.2 if behaviour == "slow" else self.seconds)
        status, extra, body = self._response(behaviour, received)
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        if behaviour == "cut_body":
            writer.write(head.encode() + body[: len(body) // 2])
            await writer.drain()
            return False
        writer.write(head.encode() + body)
        await writer.drain()
        received.answered = behaviour in VARIANTS
        return True

    def _response(self, behaviour: str, received: Received) -> tuple[int, str, bytes]:
        """(status, further header lines, body)."""
        if behaviour == "moved":
            return 307, f"Location: {self.moved_to}\r\n", b""
        if behaviour in REFUSALS:
            return 400, "", _bytes({"error": REFUSALS[behaviour]})
        if behaviour == "limit_refused_with_200":
            return 200, "", _bytes({"error": REFUSALS["limit_refused_in_words"]})
        if behaviour == "no_credit":
            return 429, "", _bytes({"error": {"message": "you have used it up", "code": "insufficient_quota"}})
        if behaviour.startswith("http_"):
            kind, _, when = behaviour.removeprefix("http_").partition("_")
            date = formatdate(time.time() + self.retry_after, usegmt=True)
            wait = {"after": f"Retry-After: {self.retry_after}\r\n", "date": f"Retry-After: {date}\r\n"}.get(when, "")
            said = f"no luck with {kind} for {received.headers.get('authorization')}"
            return int(kind), wait, _bytes({"error": {"message": said, "type": "fault"}})
        if behaviour == "invalid_json":
            return 200, "", b'{"choices": [{"mess'
        if behaviour == "not_json":
            return 200, "", b"<html>It works!</html>"
        if behaviour == "error_body":
            return 200, "", _bytes({"error": {"message": "overloaded", "code": 502}})
        return 200, "", _bytes(self._completion(behaviour, self.answer(received.text)))

    def _completion(self, behaviour: str, answer: str) -> dict[str, Any]:
        usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS, "total_tokens": 110}
        if behaviour == "no_choices":
            return {"choices": []}
        message: dict[str, Any] = {"role": "assistant", "content": answer}
        reasons = {"truncated": "length", "filtered": "content_filter", "aborted": "abort"}
        reason = (reasons | {"out_of_resource": "insufficient_system_resource"}).get(behaviour, "stop")
        if behaviour.startswith("finish_"):
            reason = behaviour.removeprefix("finish_")
        message |= {
            "reasoning_field": {"reasoning_content": "Let me think about that."},
            "think": {"content": f"<think>Let me think.</think>\n\n{answer}"},
            "unfinished_think": {"content": "<think>Let me think"},
            "parts": {"content": [{"type": "text", "text": answer}]},
            "empty": {"content": None},
            "only_field": {"content": None, "reasoning_content": "Let me think about that."},
            **{name: {"content": template.format(answer)} for name, template in WRITTEN.items()},
        }.get(behaviour, {})
        completion = {
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        }
        return completion if behaviour in ("no_usage", "empty", "unfinished_think") else completion | {"usage": usage}


@contextmanager
def faulty_server(
    plan: Plan | None = None,
    answer: Callable[[str], str] = lambda text: f"answer to {text}",
    *,
    seconds: float = 0.0,
    retry_after: float = 0.2,
) -> Iterator[FaultyServer]:
    """Serve from a thread for the block; `seconds` is what every answer takes."""
    server = FaultyServer(plan or (lambda _text, _number: "answer"), answer, seconds, retry_after)
    loop = asyncio.new_event_loop()

    async def listen() -> asyncio.Server:
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=512)
        server.address = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
        return listener

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    listener = asyncio.run_coroutine_threadsafe(listen(), loop).result()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(_end_all(listener), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def script(**behaviours: Sequence[str]) -> Plan:
    """A plan that goes through the behaviours given for a text (its last word), and answers when they are used up."""

    def plan(text: str, number: int) -> str:
        listed = behaviours.get(text.split()[-1], ())
        return listed[number] if number < len(listed) else "answer"

    return plan


def storm(seed: int, share: float, faults: Sequence[str] = FAULTS) -> Plan:
    """A plan in which `share` of all requests fail, each drawn by the seed, the text and its number alone."""

    def plan(text: str, number: int) -> str:
        draw = random.Random(f"{seed} {text} {number}")
        return draw.choice(faults) if draw.random() < share else draw.choice(VARIANTS)

    return plan


async def _end_all(listener: asyncio.Server) -> None:
    listener.close()
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _text_and_pictures(body: dict[str, Any]) -> tuple[str, list[str]]:
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content, []
    texts = [part["text"] for part in content if part["type"] == "text"]
    return "\n".join(texts), [part["image_url"]["url"] for part in content if part["type"] == "image_url"]


def _bytes(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()


if __name__ == "__main__":
    with faulty_server(seconds=int(sys.argv[1]) / 1000) as told:
        print(told.address, flush=True)
        sys.stdin.read()
