"""How long a long stage takes to find out what is done, and how much memory that and writing the artifact take.

    python benchmarks/resume.py

The promise is a start over 100,000 finished records in under 2 s, and memory that grows by keys and places alone, never
by records. Each record is as large as a refined chain of thought; each size is measured in a process of its own, whose
peak of memory is told beside that of one with no record at all.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mllmrec.settings.texts import TeacherSettings
from mllmrec.storage.json_streams import write_list
from mllmrec.storage.record_log import open_work

SIZES = (0, 10_000, 100_000)
REASONING = " ".join(
    f"Step {step}: {'warm and slow pictures of the sea with small figures, ' * 5}" for step in range(1, 5)
)


def record(key: str) -> dict[str, Any]:
    history = [{"item_id": str(number), "title": f"The Harbour of Lost Kites {number}"} for number in range(9)]
    target = {"item_id": "10", "title": "A Lamp for the Night Ferry"}
    return {
        "line_idx": int(key, 16),
        "user_id": key,
        "target_item": target,
        "history_items": history,
        "reasoning": REASONING,
        "example_id": key,
        "writer": "made up",
        "answer_conditioned": False,
    }


def keys(count: int) -> list[str]:
    return [f"{number:016x}" for number in range(count)]


def settings() -> TeacherSettings:
    return TeacherSettings(dataset="bench", model="writer")


def fill(artifact: Path, count: int) -> None:
    with open_work(artifact, settings(), {"train": "a"}, lambda: ()) as work:
        for key in keys(count):
            work.done(key, record(key), {"calls": 1, "prompt_tokens": 900, "completion_tokens": 260, "seconds": 2.31})


def resume(artifact: Path, count: int) -> None:
    """Start over `count` records, then write the artifact; prints seconds and peaks of memory in megabytes."""
    wanted = keys(count)
    begun = time.perf_counter()
    with open_work(artifact, settings(), {"train": "a"}, lambda: ()) as work:
        assert work.todo(wanted) == []
        found = {"start_seconds": time.perf_counter() - begun, "start_megabytes": peak_megabytes()}
        begun = time.perf_counter()
        if count:
            work.complete(wanted, lambda rows: write_list(artifact, (row for _, row in rows)), started=0.0)
    print(json.dumps({**found, "write_seconds": time.perf_counter() - begun, "write_megabytes": peak_megabytes()}))


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measurements() -> Iterator[tuple[int, dict[str, float]]]:
    for count in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            artifact = Path(folder) / "texts.json"
            fill(artifact, count)
            command = [sys.executable, __file__, str(artifact), str(count)]
            yield count, json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    bytes_each = len(json.dumps(record("0")))
    print(f"records of {bytes_each} bytes")
    empty = 0.0
    for count, found in measurements():
        empty = empty or found["start_megabytes"]
        print(
            f"{count:7d} records: start {found['start_seconds']:.2f} s, +{found['start_megabytes'] - empty:.0f} MB; "
            f"artifact {found['write_seconds']:.2f} s, +{found['write_megabytes'] - empty:.0f} MB "
            f"(all records take {count * bytes_each / 1e6:.0f} MB)"
        )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        resume(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
