"""Captioning is killed, started twice and spread over processes: the same bytes come out and no call is made twice."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pictures import encoded, noisy, write_pictures
from workspaces import SUPPORT

from mllmrec import ArtifactError, Workspace
from mllmrec.settings.texts import CaptionSettings
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import partial
from mllmrec.vision import captions

PROGRAM = SUPPORT / "slow_captions.py"
COUNT, KILLS = 200, 10
pytestmark = pytest.mark.slow


def shop(root: Path) -> Workspace:
    files = {f"{number}.png": encoded(noisy(number, 32, 48)) for number in range(1, COUNT + 1)}
    files |= {"7.png": b"<html>", "8.png": b""}
    return write_pictures(root, files, {str(number): f"Thing {number}" for number in range(1, COUNT + 1)})


def command(workspace: Workspace, backend: str) -> list[str]:
    return [sys.executable, str(PROGRAM), str(workspace.root), backend, str(workspace.root / "calls")]


def calls(workspace: Workspace) -> int:
    return (workspace.root / "calls").stat().st_size


def records(workspace: Workspace) -> int:
    """Finished lines of the working log, its header left out."""
    log = partial(workspace.dataset("shop").captions)
    return max(0, log.read_bytes().count(b"\n") - 1) if log.exists() else 0


def wait_for(workspace: Workspace, process: subprocess.Popen[bytes], count: int) -> None:
    deadline = time.monotonic() + 60
    while records(workspace) < count and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("backend", ["pixels", "endpoint"])
def test_killed_ten_times_it_makes_the_same_bytes_and_repeats_no_finished_call(tmp_path: Path, backend: str) -> None:
    whole, torn = shop(tmp_path / "whole"), shop(tmp_path / "torn")
    subprocess.run(command(whole, backend), check=True)
    rng, places = random.Random(backend), sorted(random.Random(backend).sample(range(1, COUNT - 10), KILLS))
    for place in places:
        process = subprocess.Popen(command(torn, backend))
        wait_for(torn, process, place)
        time.sleep(rng.random() * 0.004)
        process.kill()
        assert process.wait() < 0, "it was killed before it was through"
        before = records(torn)
        assert before >= place
        assert not torn.dataset("shop").captions.exists()
    subprocess.run(command(torn, backend), check=True)
    assert torn.dataset("shop").captions.read_bytes() == whole.dataset("shop").captions.read_bytes()
    assert calls(whole) <= calls(torn) <= calls(whole) + KILLS, "only what was in flight was asked again"
    first, second = (Manifest.read(workspace.dataset("shop").captions) for workspace in (whole, torn))
    assert first is not None
    assert second is not None
    assert second.counts == first.counts
    assert second.details == first.details
    assert not partial(torn.dataset("shop").captions).exists()


def test_a_second_process_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    workspace = shop(tmp_path)
    process = subprocess.Popen(command(workspace, "pixels"))
    wait_for(workspace, process, 5)
    with pytest.raises(ArtifactError, match=rf"process {process.pid}, started \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"):
        captions.run(CaptionSettings(dataset="shop", root=str(tmp_path)), workspace)
    assert process.wait() == 0
    assert calls(workspace) == COUNT - 2


@pytest.mark.sockets
def test_processes_of_one_launch_share_the_images(tmp_path: Path) -> None:
    alone, shared = shop(tmp_path / "alone"), shop(tmp_path / "shared")
    subprocess.run(command(alone, "pixels"), check=True)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, *command(shared, "pixels")[1:]], check=True, env=environment, capture_output=True)
    assert shared.dataset("shop").captions.read_bytes() == alone.dataset("shop").captions.read_bytes()
    assert calls(shared) == calls(alone)
