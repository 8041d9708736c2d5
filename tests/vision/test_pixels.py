"""The captioner without weights: known images, real posters, determinism."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import BLACK, RED, WHITE, flat, noisy
from workspaces import SUPPORT

from mllmrec.vision.images import ImageFolder, read_rgb
from mllmrec.vision.pixels import WORKING_PIXELS, describe


def test_a_red_image() -> None:
    assert describe(flat(RED)) == (
        "Red (100%) makes a dark, warm, vivid image of no contrast and no detail, symmetric, evenly lit."
    )


def test_half_black_and_half_white() -> None:
    picture = flat(BLACK)
    picture[:, 64:] = WHITE
    assert describe(picture) == (
        "Black (50%) and white (50%) make a mid-toned, colourless image of strong contrast and little detail, "
        "lopsided, brightest down the right."
    )
    assert "brightest at the top, white above and black below" in describe(np.rot90(picture)[:, :])


def test_a_gradient() -> None:
    ramp = np.broadcast_to((np.arange(128) * 2).astype(np.uint8)[None, :, None], (192, 128, 3))
    text = describe(ramp)
    assert "colourless image of medium contrast and no detail, lopsided, brightest down the right" in text
    assert text.startswith("Grey (30%), white (20%) and light grey (20%) make")


def test_a_picture_and_its_mirror_image_differ_in_the_side_alone() -> None:
    picture = flat((200, 200, 255))
    picture[40:, :50] = (40, 10, 10)
    assert describe(picture).replace("upper right", "upper left") == describe(picture[:, ::-1])


def test_words_that_are_taken_are_only_avoided_where_they_would_occur() -> None:
    assert describe(flat(RED), lambda words: "blue" in words.lower()) == describe(flat(RED))
    assert describe(flat(RED), lambda words: "red" in words.lower()).startswith("Scarlet (100%) makes")


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_any_image_has_a_sentence_of_at_most_fifty_words(height: int, width: int, seed: int) -> None:
    text = describe(noisy(seed, height, width))
    assert text == describe(noisy(seed, height, width).copy())
    assert 5 < len(text.split()) <= 50
    assert text.endswith(".")


@pytest.mark.slow
def test_other_processes_and_thread_counts_say_the_same() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pictures import noisy; "
        "from mllmrec.vision.pixels import describe; print([describe(noisy(seed)) for seed in range(40)])"
    )
    expected = f"{[describe(noisy(seed)) for seed in range(40)]}\n"
    for threads in ("1", "4"):
        environment = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PYTHONPATH": str(SUPPORT)}
        command = [sys.executable, "-c", program, str(SUPPORT)]
        assert subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout == expected


@pytest.mark.real_data
def test_posters_are_told_apart(real_data: Path) -> None:
    images = ImageFolder(real_data / "movielens" / "images")
    names = sorted(path.stem for path in images.folder.iterdir())[::8]
    found = [describe(read_rgb(images.read(name), WORKING_PIXELS)) for name in names]
    assert len(set(found)) >= 0.98 * len(names)
    assert max(len(text.split()) for text in found) <= 50
