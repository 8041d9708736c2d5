"""`transformers serve` on loopback, offline, for models of the tests.

The library's processor of Qwen3-VL asks for torchvision for its video half alone, so the plain command can't serve such
a model where torchvision isn't installed. Run as a program, this file is that command with the video half left out; all
else, from reading the request to writing the answer, is the library's.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, Qwen3VLConfig, Qwen3VLProcessor

START_SECONDS = 120


class WithoutVideo(Qwen3VLProcessor):
    """The library's processor for images and text."""

    def check_argument_for_proper_class(self, _name: str, argument: Any) -> Any:
        return type(argument)

    @classmethod
    def from_pretrained(cls, source: str | Path, **_options: Any) -> WithoutVideo:
        tokenizer = AutoTokenizer.from_pretrained(source)
        images = AutoImageProcessor.from_pretrained(source, backend="pil")
        return cls(images, tokenizer, None, chat_template=tokenizer.chat_template)


@contextmanager
def model_server(log: Path, *options: str) -> Iterator[str]:
    """Start `transformers serve`, yield the address of its API, and end it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, __file__, "serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("w") as output:
        server = subprocess.Popen([*command, *options], stdout=output, stderr=output, env=environment)
    try:
        _wait(server, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Until the server answers; an error with the end of its log when it never does."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            with urlopen(address, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"the server didn't start: {log.read_text()[-2000:]}")


if __name__ == "__main__":
    from transformers.cli.transformers import main

    AutoProcessor.register(Qwen3VLConfig, WithoutVideo, exist_ok=True)
    sys.exit(main())
