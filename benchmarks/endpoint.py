"""Requests a second at 32 in flight against a server on loopback that takes 200 ms for each.

    python benchmarks/endpoint.py

The bound is 32 / 0.2 = 160 requests a second; the promise is 90 % of it. The requests are as long as those of
`mllmrec refine` and go the stage's whole way: built, asked, checked, appended to the working log. The server is a
process of its own. Start-up (the client is imported, the connections are opened) is inside the time of the whole and
outside that of the later rounds.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mllmrec.models.base import Request
from mllmrec.models.server.asking import ask_all
from mllmrec.models.server.endpoint import EndpointTeacher
from mllmrec.settings.texts import TeacherSettings
from mllmrec.storage.record_log import open_work

SERVER = Path(__file__).parents[1] / "tests" / "faulty_server.py"
IN_FLIGHT, SERVER_MILLISECONDS, NUM_REQUESTS, WARM_REQUESTS, ROUNDS = 32, 200, 3200, 320, 3
BOUND = IN_FLIGHT / (SERVER_MILLISECONDS / 1000)
HISTORY = "".join(
    f"{number}. [ITEM_{number}] The Harbour of Lost Kites {number}: A wide, warm picture with a red boat below a pale "
    "sky; two figures stand small at the edge of the water, and large letters run across the top.\n"
    for number in range(1, 10)
)


@contextmanager
def server() -> Iterator[str]:
    command = [sys.executable, str(SERVER), str(SERVER_MILLISECONDS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


def measure(address: str, folder: Path) -> tuple[float, float]:
    """Requests a second over the whole start, and over what came after the first `WARM_REQUESTS`."""
    settings = TeacherSettings(
        dataset="bench", model="writer", base_url=address, api_key_env="NO_KEY", max_inflight=IN_FLIGHT
    )
    finished: list[float] = []

    def request_of(key: str, _rule: str | None) -> Request:
        return Request(key=key, text=f"{HISTORY}Write four steps for user {key}.")

    def accept(key: str, text: str) -> dict[str, str]:
        finished.append(time.perf_counter())
        return {"key": key, "reasoning": text}

    begun = time.perf_counter()
    with open_work(folder / "texts.json", settings, {}, lambda: ()) as work:
        keys = [str(number) for number in range(NUM_REQUESTS)]
        ask_all(work, keys, EndpointTeacher(settings), request_of, accept, None, "asking")
        assert work.usage["calls"] == NUM_REQUESTS, "a call failed and was made again"
    later = (NUM_REQUESTS - WARM_REQUESTS) / (finished[-1] - finished[WARM_REQUESTS - 1])
    return NUM_REQUESTS / (time.perf_counter() - begun), later


def main() -> None:
    whole, later = [], []
    for _ in range(ROUNDS):
        with server() as address, tempfile.TemporaryDirectory() as folder:
            rates = measure(address, Path(folder))
        whole.append(rates[0])
        later.append(rates[1])
    for name, found in (("whole", whole), (f"after {WARM_REQUESTS}", later)):
        median = statistics.median(found)
        print(
            f"{name:10s} median {median:.1f} requests/s ({min(found):.1f} to {max(found):.1f}), "
            f"{median / BOUND:.0%} of {BOUND:.0f}"
        )


if __name__ == "__main__":
    main()
