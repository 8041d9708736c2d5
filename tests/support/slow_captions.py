"""`mllmrec caption` in a process of its own, slow enough to be killed in the middle.

    python slow_captions.py ROOT BACKEND CALLS

Each image takes four milliseconds; every caption that is begun is told in the file CALLS.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from mllmrec import Workspace
from mllmrec.models.base import Reply, Request
from mllmrec.settings.texts import CaptionSettings
from mllmrec.vision import captions, pixels

SECONDS = 0.004


class Tally:
    """One byte for each call, written at once."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def count(self) -> None:
        os.write(self._file, b".")
        time.sleep(SECONDS)


class SlowTeacher:
    """Answers in fours, the last one first; every fifth item names its title once and is asked again."""

    name = "slow"

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def answer(self, requests: Iterable[Request]) -> Iterator[Reply]:
        requests = iter(requests)
        while four := [request for _, request in zip(range(4), requests, strict=False)]:
            for request in reversed(four):
                self._tally.count()
                again = "An earlier answer was refused" in request.text
                item = captions.item_of(request.key)
                names = int(item) % 5 == 0 and not again
                text = f"Thing {item} stands here." if names else f"A quiet place, the {item}th of many."
                yield Reply(key=request.key, text=text, usage={"calls": 1})


def main(root: str, backend: Any, calls: str) -> None:
    tally, describe = Tally(calls), pixels.describe

    def slowly(*arguments: Any) -> str:
        tally.count()
        return describe(*arguments)

    pixels.describe = slowly
    settings = CaptionSettings(dataset="shop", root=root, backend=backend)
    captions.run(settings, Workspace(root), None if backend == "pixels" else SlowTeacher(tally))


if __name__ == "__main__":
    main(*sys.argv[1:])
