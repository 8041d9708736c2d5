"""A headless Chromium driven through pipes, by the protocol of its developer tools: no socket and no driver."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60.0


def find_browser() -> str | None:
    """The path of a Chromium, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page of a running browser; `told` gathers what it wrote to its console and every request it made."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive, self._buffer, self._number = send, receive, b"", 0
        self._session: str | None = None
        self.told: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, page: Path | str, *, width: int = 1440, height: int = 900, dark: bool = False) -> None:
        """Show a file or an address in a window of this size, and wait until it is loaded."""
        url = page if isinstance(page, str) else page.resolve().as_uri()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call("Page.navigate", url=url)
        self.wait(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url.split('#')[0])})")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true; meanwhile the page may be replaced by another."""
        deadline = time.monotonic() + SECONDS
        while not self.run(condition):
            assert time.monotonic() < deadline, f"this never came true: {condition}"
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """The value of an expression."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def screenshot(self, path: Path, *, whole: bool = True, height: int | None = None) -> None:
        """A PNG of the whole page, or of its first `height` pixels."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole, clip=clip)["data"]
        path.write_bytes(base64.b64decode(data))

    def pdf(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"]))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command; events that come in the meantime are put down."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._send, data) :]
        while (answer := self._read()).get("id") != self._number:
            self._put_down(answer)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._receive], [], [], SECONDS)
            block = os.read(self._receive, 1 << 20) if ready else b""
            assert block, "the browser doesn't answer"
            self._buffer += block
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def _put_down(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.told.append(str(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.told.append(str(params["args"]))
            case "Log.entryAdded":
                self.told.append(str(params["entry"]))
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """A browser with a profile of its own in `folder`, gone afterwards."""
    path = find_browser()
    assert path is not None
    commands, send = os.pipe()
    receive, answers = os.pipe()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
    flags += ["--no-first-run", "--disable-extensions", "--disable-background-networking", "--hide-scrollbars"]
    # The browser reads commands from descriptor 3 and writes answers to descriptor 4.
    shell = ["bash", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "browser"]
    process = subprocess.Popen(
        [*shell, path, *flags, f"--user-data-dir={folder}"],
        pass_fds=(commands, answers),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(commands)
    os.close(answers)
    try:
        yield Browser(send, receive)
    finally:
        process.terminate()
        process.wait(timeout=20)
        os.close(send)
        os.close(receive)
