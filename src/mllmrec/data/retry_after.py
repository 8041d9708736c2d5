"""The pause that a busy server asks for."""

from __future__ import annotations

import math
from email.utils import parsedate_to_datetime

LONGEST_SECONDS = 366 * 86400.0


def asked_pause(value: str | None, now: float) -> float | None:
    """The seconds to wait by a Retry-After header at the time `now`; None where it asks for nothing that makes sense.

    Seconds and dates are understood; nothing is longer than a year, nor shorter than nothing.

    >>> asked_pause("1.5", 0.0), asked_pause("Thu, 01 Jan 1970 00:00:30 GMT", 10.0), asked_pause("-3", 0.0)
    (1.5, 20.0, 0.0)
    >>> asked_pause("soon", 0.0), asked_pause(None, 0.0)
    (None, None)
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return None if math.isnan(seconds) else min(max(0.0, seconds), LONGEST_SECONDS)
