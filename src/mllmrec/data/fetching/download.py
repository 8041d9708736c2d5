"""Downloads: files from a server, and model folders from a hub.

A cut download of a file goes on where it stopped, and only a checked file takes its name. pooch checks the sha256 and
moves the finished file. Its own HTTP downloader starts over after a cut, so it is given another one, which keeps what
has arrived in `<file>.part` and asks for the rest with a Range request. The rest is taken only when the server confirms
(If-Range with the ETag or date kept beside it) that the file is still the same.

`asked_pause` reads the pause that a busy server asks for.

Of a model at the Hugging Face hub or ModelScope, configuration, tokenizer and safetensors are fetched, nothing else.
Pickled weights (.bin, .pt) can run code when they are read and are never downloaded. The clients mend a cut
connection themselves; after a failure the same command fetches the files that had not arrived whole. `HF_ENDPOINT`
names a mirror of the hub, and a key, which only closed models need, is taken from `HF_TOKEN` or `MODELSCOPE_API_TOKEN`
by the clients.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import pooch
import requests

from mllmrec.errors import BackendError, DataError, SettingsError, install_command
from mllmrec.progress import note, progress
from mllmrec.settings.base import shown_address

BLOCK_BYTES = 1 << 14  # a cut loses what had arrived of one block
BACKOFF_SECONDS = 1.0
TIMEOUT_SECONDS = (15.0, 60.0)
LONGEST_PAUSE_SECONDS = 366 * 86400.0
ALLOWED = ["*.safetensors", "*.json", "*.jinja", "merges.txt", "vocab.txt", "tokenizer.model", "LICENSE*"]
IGNORED = ["*/*", "consolidated*"]
"""Folders hold the same weights in other formats, and `consolidated` files hold them a second time."""


def download(url: str, path: Path, sha256: str | None = None, retries: int = 4) -> Path:
    """Fetch `url` into `path`, which appears whole and checked or not at all.

    Raises DataError for a wrong checksum, and BackendError when the server can't be reached, refuses, or breaks off
    more than `retries` times; what had arrived then waits in `<path>.part` for the next call.
    """
    pooch.get_logger().setLevel("WARNING")
    try:
        pooch.retrieve(url, sha256, path.name, path.parent, downloader=ResumingDownloader(part_of(path), retries))
    except DataError:
        raise
    except ValueError as error:  # what pooch raises for a wrong checksum, with both sums in its text
        raise DataError(
            f"{shown_address(url)} did not deliver the file that was expected: {error} Run the command again; if the "
            "owner has published a new release that you trust, give its checksum with --sha256."
        ) from error
    return path


def part_of(path: Path) -> Path:
    """The file that holds the beginning of a download until the rest has arrived."""
    return path.with_name(f"{path.name}.part")


class BrokenTransferError(Exception):
    """A passing failure, after which the download is tried again."""


class ResumingDownloader:
    """A downloader for `pooch.retrieve` that goes on after a cut."""

    def __init__(self, part: Path, retries: int) -> None:
        self.part, self.retries = part, retries
        self._validator = part.with_name(f"{part.name}.validator")

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        for attempt in range(self.retries + 1):
            try:
                self._attempt(url)
                break
            except BrokenTransferError as failure:
                if attempt == self.retries:
                    raise BackendError(self._given_up(url, failure)) from failure
                seconds = BACKOFF_SECONDS * 2**attempt
                note(f"{shown_address(url)}: {failure}; trying again in {seconds:.0f} s.")
                time.sleep(seconds)
        self._validator.unlink(missing_ok=True)
        os.replace(self.part, output_file)

    def _attempt(self, url: str) -> None:
        headers = {"Accept-Encoding": "identity", **self._rest_wanted()}
        try:
            with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
                if not self._complete(response):
                    self._refuse(url, response)
                    self._receive(response)
        except requests.exceptions.ChunkedEncodingError as error:
            raise BrokenTransferError("the connection was cut") from error
        except (requests.ConnectionError, requests.Timeout) as error:
            raise BrokenTransferError(f"the connection failed ({_reason(error)})") from error
        except requests.RequestException as error:
            shown = shown_address(url)
            reason = str(error).replace(url, shown)
            raise BackendError(f"{shown} can't be downloaded: {reason}. Check the address.") from error

    def _rest_wanted(self) -> dict[str, str]:
        """Headers that ask for the missing bytes, provided that the file is still the same."""
        if not self.part.exists() or not self._validator.exists() or not self.part.stat().st_size:
            return {}
        return {"Range": f"bytes={self.part.stat().st_size}-", "If-Range": self._validator.read_text(encoding="utf-8")}

    def _complete(self, response: requests.Response) -> bool:
        """Whether the server says that nothing is missing: no bytes come after the ones that are here."""
        size = self.part.stat().st_size if self.part.exists() else 0
        return response.status_code == 416 and response.headers.get("Content-Range") == f"bytes */{size}"

    def _refuse(self, url: str, response: requests.Response) -> None:
        status = response.status_code
        if status == 416:
            self.part.unlink(missing_ok=True)
            raise BrokenTransferError("the server has less than what arrived before")
        if status == 429 or status >= 500:
            raise BrokenTransferError(f"the server answered {status} {response.reason}")
        if status not in (200, 206):
            raise BackendError(
                f"{shown_address(url)} can't be downloaded: the server answered {status} {response.reason} where 200 "
                "was expected. Check the address in a browser; `mllmrec fetch dataset NAME --url ADDRESS` takes "
                "another."
            )

    def _receive(self, response: requests.Response) -> None:
        resumed = response.status_code == 206
        start = self.part.stat().st_size if resumed else 0
        self._keep_validator(response)
        plain = "Content-Encoding" not in response.headers
        expected = start + (int(response.headers.get("Content-Length", 0)) if plain else 0)
        _require_space(self.part.parent, expected - start)
        with self.part.open("ab" if resumed else "wb") as file, progress(self.part.stem, expected) as advance:
            advance(start)
            for block in response.iter_content(BLOCK_BYTES):
                file.write(block)
                advance(len(block))
        if self.part.stat().st_size < expected:
            raise BrokenTransferError("the connection was cut")

    def _keep_validator(self, response: requests.Response) -> None:
        etag = response.headers.get("ETag", "")
        validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
        if validator and "Content-Encoding" not in response.headers:
            self._validator.write_text(validator, encoding="utf-8")
        else:
            self._validator.unlink(missing_ok=True)

    def _given_up(self, url: str, failure: BrokenTransferError) -> str:
        arrived = self.part.stat().st_size if self.part.exists() else 0
        kept = f" {arrived:,} bytes are kept in {self.part}." if arrived else ""
        return (
            f"{shown_address(url)} can't be downloaded: {failure} (attempts: {self.retries + 1}).{kept} Check the "
            "network and run the same command again, which goes on from there."
        )


def asked_pause(value: str | None, now: float) -> float | None:
    """The seconds that a Retry-After header asks to wait at the time `now`; None where it has no valid value.

    Takes seconds and dates; the result lies between 0 and a year.

    >>> asked_pause("1.5", 0.0), asked_pause("Thu, 01 Jan 1970 00:00:30 GMT", 10.0), asked_pause("-3", 0.0)
    (1.5, 20.0, 0.0)
    >>> asked_pause("soon", 0.0), asked_pause(None, 0.0)
    (None, None)
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return None if math.isnan(seconds) else min(max(0.0, seconds), LONGEST_PAUSE_SECONDS)


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise BackendError(
            f"The download needs {needed / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB free. Free some space, or "
            "choose a folder on another disk."
        )


def _reason(error: requests.RequestException) -> str:
    """The innermost reason, without the wrappers of the HTTP stack."""
    cause: BaseException = error
    while cause.args and isinstance(cause.args[0], BaseException):
        cause = cause.args[0]
    return str(getattr(cause, "reason", None) or cause).rsplit(": ", 1)[-1]


def from_huggingface(model_id: str, revision: str | None, folder: Path) -> str:
    """Download a snapshot into `folder` and return the commit it was taken from."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub import errors as hub
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        info = HfApi().model_info(model_id, revision=revision)
        note(f"Licence of {model_id}: {_licence(info.tags or [])}.")
        snapshot_download(
            model_id, revision=info.sha, local_dir=folder, allow_patterns=ALLOWED, ignore_patterns=IGNORED
        )
    except hub.HFValidationError as error:
        raise SettingsError(f"{model_id!r} is no id of a model at the hub: {error}") from error
    except hub.GatedRepoError as error:
        raise BackendError(
            f"{model_id} is open only to those who accept its licence. Accept it on the model's page, set the "
            "environment variable HF_TOKEN to a key of your account, and run the command again."
        ) from error
    except hub.RevisionNotFoundError as error:
        raise BackendError(f"{model_id} has no revision {revision!r}. Choose another --revision.") from error
    except hub.RepositoryNotFoundError as error:
        raise BackendError(f"The hub has no model {model_id}, or keeps it private. Check the id.") from error
    except hub.OfflineModeIsEnabled as error:
        raise BackendError(
            f"{model_id} can't be downloaded while HF_HUB_OFFLINE is set. Unset it and run the command again."
        ) from error
    except Exception as error:
        raise _unreachable(model_id, os.environ.get("HF_ENDPOINT", "https://huggingface.co"), error) from error
    return str(info.sha)


def from_modelscope(model_id: str, revision: str | None, folder: Path) -> str:
    """Download a snapshot into `folder` and return the revision asked for; ModelScope has no commits."""
    try:
        from modelscope import snapshot_download
    except ImportError as error:
        raise BackendError(
            "Downloading from ModelScope needs the package modelscope, which is not installed. Run "
            f"`{install_command('modelscope')}`, or use --from huggingface."
        ) from error
    note(f"Licence of {model_id}: see https://modelscope.cn/models/{model_id}.")
    try:
        snapshot_download(
            model_id, revision=revision, local_dir=str(folder), allow_patterns=ALLOWED, ignore_patterns=IGNORED
        )
    except Exception as error:
        raise _unreachable(model_id, "ModelScope", error) from error
    return revision or "master"


def _licence(tags: list[str]) -> str:
    return next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), "not stated")


def _unreachable(model_id: str, where: str, error: Exception) -> BackendError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return BackendError(
        f"{model_id} can't be downloaded from {where}: {reason.rstrip('.')}. Check the network and run the same "
        "command again; the files that arrived whole are kept."
    )
