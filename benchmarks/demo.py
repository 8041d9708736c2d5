"""The demo: seconds of each stage, as their manifests tell them, and the peak memory of the whole process.

    python benchmarks/demo.py [s|m|l]

Runs `mllmrec demo` in an empty folder. The aims, on two free cores: under 5 minutes at size m, and under 3 GB. What the
manifests don't hold (starting up, the world and its posters) is the difference to the whole.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mllmrec.storage.workspace import read_json


def main(size: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mllmrec", "demo", "--size", size]
        began, cores = time.monotonic(), os.getloadavg()[0]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, "the demo failed"
        whole = time.monotonic() - began
        spent = stage_seconds(Path(folder))
    for name, seconds in spent:
        print(f"{seconds:7.1f} s  {name}")
    print(f"{whole - sum(seconds for _, seconds in spent):7.1f} s  the rest")
    print(f"{whole:7.1f} s  in all at size {size}; {usage.ru_utime + usage.ru_stime:.0f} s of processor time")
    print(f"peak {usage.ru_maxrss / 1024:.0f} MB; load average {cores:.1f} before, {os.getloadavg()[0]:.1f} after")


def stage_seconds(root: Path) -> list[tuple[str, float]]:
    """What each manifest says it took, in the order in which they were finished."""
    paths = [*root.rglob("manifest.json"), *root.rglob("*.manifest.json")]
    manifests = sorted((read_json(path) | {"path": path} for path in paths), key=lambda made: made["finished_at"])
    return [(f"{made['verb']} {name_of(made['path'])}", float(made["seconds"])) for made in manifests]


def name_of(path: Path) -> str:
    if path.name != "manifest.json":
        return path.name.removesuffix(".manifest.json")
    return path.parent.parent.name if "result" in path.parts else path.parent.name


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "m")
