"""Many calls at a time for a caller that knows nothing of event loops.

The calls run on an event loop in a thread of its own; requests are drawn and replies handed out in the thread that
asks, so the caller's files and tables need no lock, and an answer goes on arriving while the caller writes another
one down. Ctrl-C comes in line behind the replies that are there: they are handed out first, then it is raised, so
nothing that came back is lost. A second Ctrl-C is raised at once.

How long to wait before a call is made again.
"""

from __future__ import annotations

import asyncio
import random
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from queue import SimpleQueue
from types import FrameType
from typing import Any

from mllmrec.data.fetching.download import asked_pause
from mllmrec.models.base import Reply, Request

Ask = Callable[[Request], Coroutine[Any, Any, Reply]]
Close = Callable[[], Awaitable[None]]
Results = SimpleQueue[Reply | BaseException]

BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 30.0
LONGEST_WAIT_SECONDS = 120.0


def in_flight(ask: Ask, close: Close, requests: Iterable[Request], limit: int) -> Iterator[Reply]:
    """Yield the reply of each request as it finishes, with at most `limit` asked at a time.

    What `ask` raises is raised here, and ends the others. `close` is awaited last.
    """
    results: Results = SimpleQueue()
    with _interrupts_in_line(results), _calling(ask, close, results) as call:
        waiting, asked = iter(requests), 0
        while True:
            for request in islice(waiting, limit - asked):
                call(request)
                asked += 1
            if not asked:
                return
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            asked -= 1
            yield result


@contextmanager
def _interrupts_in_line(results: Results) -> Iterator[None]:
    """Queue the first Ctrl-C behind the results that are there, unless the program handles it in its own way."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def first(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        results.put(KeyboardInterrupt())

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _calling(ask: Ask, close: Close, results: Results) -> Iterator[Callable[[Request], None]]:
    """A function that starts a call whose result goes to `results`; calls that haven't ended with the block are cut."""
    loop = asyncio.new_event_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def run(request: Request) -> None:
        try:
            results.put(await ask(request))
        except Exception as error:
            results.put(error)

    def start(request: Request) -> None:
        task = loop.create_task(run(request))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def stop() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await close()
        await loop.shutdown_default_executor()

    def call(request: Request) -> None:
        loop.call_soon_threadsafe(start, request)

    thread = threading.Thread(target=loop.run_forever, name="calls", daemon=True)
    thread.start()
    try:
        yield call
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def jittered(attempt: int) -> float:
    """Anything between nothing and a bound that doubles with each attempt, so that calls don't come back in step."""
    return random.uniform(0.0, min(LONGEST_BACKOFF_SECONDS, BACKOFF_SECONDS * 2.0 ** min(attempt, 30)))


def retry_after_seconds(value: str | None, now: float) -> float:
    """The wait that a Retry-After header asks for at the time `now`, in seconds or by date, at most two minutes.

    >>> retry_after_seconds("1.5", 0.0), retry_after_seconds("Thu, 01 Jan 1970 00:00:30 GMT", 10.0)
    (1.5, 20.0)
    >>> retry_after_seconds("86400", 0.0), retry_after_seconds("soon", 0.0), retry_after_seconds(None, 0.0)
    (120.0, 0.0, 0.0)
    """
    return min(asked_pause(value, now) or 0.0, LONGEST_WAIT_SECONDS)
