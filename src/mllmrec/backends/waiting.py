"""How long to wait before a call is made again."""

from __future__ import annotations

import random

from mllmrec.data.retry_after import asked_pause

BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 30.0
LONGEST_WAIT_SECONDS = 120.0


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
