"""How long `import mllmrec` and `mllmrec --help` take, as whole processes, beside a bare interpreter.

    python benchmarks/startup.py

The promise is under 0.5 s each. A bare `python -c pass` is timed in turn with them, since a machine's own speed
drifts; the ratio to it is what can be compared between machines.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import mllmrec": [sys.executable, "-c", "import mllmrec"],
    "mllmrec --help": [sys.executable, "-m", "mllmrec", "--help"],
}
ROUNDS = 9


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    bare = statistics.median(times["python -c pass"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:16s} median {median:.3f} s ({min(values):.3f} to {max(values):.3f}), {median / bare:.1f}x bare")


if __name__ == "__main__":
    main()
