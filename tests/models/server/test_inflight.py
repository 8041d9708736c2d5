"""Calls on a loop of their own: bounded, in the order of finishing, from any thread, with errors passed on."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mllmrec.models.base import Reply, Request
from mllmrec.models.server.inflight import in_flight


class Calls:
    """Calls that take the seconds in their text, or raise; `closed` counts how often the end was told."""

    def __init__(self) -> None:
        self.running = self.peak = self.closed = self.cut = 0

    async def ask(self, request: Request) -> Reply:
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await asyncio.sleep(float(request.text))
        except asyncio.CancelledError:
            self.cut += 1
            raise
        finally:
            self.running -= 1
        return Reply(key=request.key, text=request.text, usage={})

    async def close(self) -> None:
        self.closed += 1

    def keys(self, *seconds: Any, limit: int = 3) -> Iterator[str]:
        requests = (Request(key=str(number), text=str(text)) for number, text in enumerate(seconds))
        return (reply.key for reply in in_flight(self.ask, self.close, requests, limit))


def test_replies_come_as_they_finish_and_no_more_than_the_limit_run() -> None:
    calls = Calls()
    assert list(calls.keys(0.3, 0.05, 0.12, 0.01)) == ["1", "3", "2", "0"]
    assert (calls.peak, calls.running, calls.closed, calls.cut) == (3, 0, 1, 0)


def test_no_requests_no_replies() -> None:
    calls = Calls()
    assert list(calls.keys()) == []
    assert calls.closed == 1


def test_what_a_call_raises_is_raised_behind_earlier_replies_and_cuts_the_others() -> None:
    calls, got = Calls(), []
    with pytest.raises(ValueError, match="could not convert string to float: 'word'"):
        got.extend(calls.keys(30, 0.0, "word", limit=2))
    assert got == ["1"]
    assert (calls.cut, calls.closed) == (1, 1)


def test_what_the_requests_raise_is_raised_and_cuts_the_calls() -> None:
    calls = Calls()

    def broken() -> Iterator[Request]:
        yield Request(key="0", text="30")
        raise RuntimeError("no such picture")

    with pytest.raises(RuntimeError, match="no such picture"):
        list(in_flight(calls.ask, calls.close, broken(), 2))
    assert calls.closed == 1
    assert calls.running == 0


def test_it_works_from_another_thread_and_beside_a_running_loop() -> None:
    calls, got = Calls(), []
    thread = threading.Thread(target=lambda: got.extend(calls.keys(0.02, 0.0)))
    thread.start()
    thread.join()
    assert got == ["1", "0"]

    async def in_a_notebook() -> list[str]:
        return list(Calls().keys(0.02, 0.0))

    assert asyncio.run(in_a_notebook()) == ["1", "0"]


def test_a_first_interrupt_waits_in_line_and_a_second_one_is_raised_at_once() -> None:
    calls, got = Calls(), []

    def interrupting(times: int) -> Iterator[str]:
        for key in calls.keys(0.0, 30, 30):
            yield key
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
            got.append(f"behind {key}")

    for times, expected in ((1, ["behind 0"]), (2, [])):
        got.clear()
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            list(interrupting(times))
        assert got == expected
        assert time.monotonic() - begun < 5
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_program_with_its_own_way_of_handling_interrupts_keeps_it() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: seen.append(number))
    try:
        keys = Calls().keys(0.0, 0.05)
        assert next(keys) == "0"
        os.kill(os.getpid(), signal.SIGINT)
        assert list(keys) == ["1"]
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]
