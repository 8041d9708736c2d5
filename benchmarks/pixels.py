"""How many images the pixels captioner takes a second on one core.

    OMP_NUM_THREADS=1 python benchmarks/pixels.py [FOLDER OF IMAGES]

Made-up posters of 128 x 192, or the images of a folder. Timed are the three parts (reading and decoding the file,
measuring, putting into words) together, the parts alone, and the whole stage as `mllmrec caption` runs it, with its
hashes, log and artifact. Seconds are those of the processor in this process, so that neighbours on a shared machine
count less; the files are in the system's cache. The promise is 150 images a second.
"""

from __future__ import annotations

import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from mllmrec.settings.texts import CaptionSettings
from mllmrec.storage.workspace import Workspace, write_text
from mllmrec.vision import captions
from mllmrec.vision.images import read_rgb
from mllmrec.vision.pixels import WORKING_PIXELS, describe, measure

COUNT, ROUNDS = 400, 5


def main() -> None:
    with tempfile.TemporaryDirectory() as root:
        workspace = Workspace(root)
        folder = workspace.dataset("posters").images
        folder.parent.mkdir(parents=True)
        if len(sys.argv) > 1:
            folder.symlink_to(Path(sys.argv[1]).resolve())
        else:
            folder.mkdir()
            for number in range(COUNT):
                (folder / f"{number}.jpg").write_bytes(poster(number))
        files = sorted(folder.iterdir())
        write_text(workspace.dataset("posters").titles, "item,title\n" + "".join(f"{path.stem},\n" for path in files))
        compare(files)
        rates = [stage_rate(workspace, len(files)) for _ in range(ROUNDS)]
        print(f"the whole stage over {len(files):,} images: {spread(rates)}")


def poster(number: int) -> bytes:
    """A JPEG with blurred shapes and lettering, about as detailed as a film poster."""
    rng = np.random.default_rng(number)
    blocks = Image.fromarray(rng.integers(0, 256, (12, 8, 3), dtype=np.uint8))
    image = blocks.resize((128, 192), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        x, y = rng.integers(0, 128), rng.integers(0, 192)
        draw.ellipse((x, y, x + rng.integers(3, 40), y + rng.integers(3, 40)), fill=tuple(rng.integers(0, 256, 3)))
    image = image.filter(ImageFilter.GaussianBlur(1))
    ImageDraw.Draw(image).text((6, 150), f"POSTER {number}", fill="white", font=ImageFont.load_default(20))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def compare(files: Sequence[Path]) -> None:
    """Time the parts in turn, so that a busy machine slows them alike."""
    data = [path.read_bytes() for path in files]
    arrays = [read_rgb(each, WORKING_PIXELS) for each in data]
    parts: dict[str, Callable[[], object]] = {
        "read, measure and word": lambda: [describe(read_rgb(path.read_bytes(), WORKING_PIXELS)) for path in files],
        "decode alone": lambda: [read_rgb(each, WORKING_PIXELS) for each in data],
        "measure alone": lambda: [measure(each) for each in arrays],
    }
    rates: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(ROUNDS):
        for name, part in parts.items():
            started = time.process_time()
            part()
            rates[name].append(len(files) / (time.process_time() - started))
    for name, values in rates.items():
        print(f"{name}: {spread(values)}")


def stage_rate(workspace: Workspace, count: int) -> float:
    started = time.process_time()
    captions.run(CaptionSettings(dataset="posters", root=str(workspace.root), overwrite=True), workspace)
    return count / (time.process_time() - started)


def spread(rates: Sequence[float]) -> str:
    return f"median {statistics.median(rates):.0f} images/s ({min(rates):.0f} to {max(rates):.0f})"


if __name__ == "__main__":
    assert os.environ.get("OMP_NUM_THREADS") == "1", "set OMP_NUM_THREADS=1: the promise is for one core"
    main()
