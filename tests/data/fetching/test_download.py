"""Downloads from a loopback server that cuts, refuses, forgets and lies."""

from __future__ import annotations

import hashlib
import random
import socket
from pathlib import Path

import pytest
from file_server import Files, serving

from mllmrec.data.fetching.download import BLOCK_BYTES, download, part_of
from mllmrec.errors import BackendError, DataError

pytestmark = pytest.mark.sockets
BODY = random.Random(5).randbytes(700_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mllmrec.data.fetching.download.BACKOFF_SECONDS", 0.001)


def test_a_whole_download_arrives_byte_for_byte_in_one_request(tmp_path: Path) -> None:
    with serving(Files({"set.zip": BODY})) as server:
        path = download(f"{server.address}/set.zip", tmp_path / "set.zip", SHA256)
    assert path.read_bytes() == BODY
    assert [entry.name for entry in tmp_path.iterdir()] == ["set.zip"]
    assert server.requests == [("/set.zip", None)]


def test_a_cut_is_mended_in_the_same_call(tmp_path: Path) -> None:
    with serving(Files({"set.zip": BODY}, cuts=[300_000, 250_000])) as server:
        download(f"{server.address}/set.zip", tmp_path / "set.zip", SHA256)
    assert (tmp_path / "set.zip").read_bytes() == BODY
    starts = [int(wanted.removeprefix("bytes=").rstrip("-")) for _, wanted in server.requests if wanted]
    assert len(server.requests) == 3
    assert 0 <= 300_000 - starts[0] < BLOCK_BYTES
    assert 0 <= starts[0] + 250_000 - starts[1] < BLOCK_BYTES
    assert server.sent_bytes < len(BODY) + 2 * BLOCK_BYTES


def test_what_arrived_before_a_cut_waits_for_the_next_call(tmp_path: Path) -> None:
    target = tmp_path / "set.zip"
    with serving(Files({"set.zip": BODY}, cuts=[400_000])) as server:
        with pytest.raises(
            BackendError, match=r"cut \(attempts: 1\)\. 39\d,\d\d\d bytes are kept in .*set\.zip\.part.*same"
        ):
            download(f"{server.address}/set.zip", target, SHA256, retries=0)
        kept = part_of(target).stat().st_size
        assert 0 <= 400_000 - kept < BLOCK_BYTES
        assert not target.exists()
        download(f"{server.address}/set.zip", target, SHA256, retries=0)
    assert target.read_bytes() == BODY
    assert server.requests[1] == ("/set.zip", f"bytes={kept}-")
    assert server.sent_bytes == 400_000 + len(BODY) - kept
    assert [entry.name for entry in tmp_path.iterdir()] == ["set.zip"]


def test_a_server_that_ignores_range_is_read_from_the_start(tmp_path: Path) -> None:
    with serving(Files({"set.zip": BODY}, cuts=[400_000], honours_range=False)) as server:
        download(f"{server.address}/set.zip", tmp_path / "set.zip", SHA256)
    assert (tmp_path / "set.zip").read_bytes() == BODY
    assert server.sent_bytes == 400_000 + len(BODY)


def test_two_releases_are_never_mixed(tmp_path: Path) -> None:
    newer = BODY[::-1]
    with serving(Files({"set.zip": BODY}, cuts=[400_000])) as server:
        with pytest.raises(BackendError):
            download(f"{server.address}/set.zip", tmp_path / "set.zip", retries=0)
        server.content["set.zip"], server.etag = newer, '"two"'
        download(f"{server.address}/set.zip", tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == newer


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_validator_the_download_starts_over(tmp_path: Path, etag: str | None) -> None:
    with serving(Files({"set.zip": BODY}, cuts=[400_000], etag=etag)) as server:
        download(f"{server.address}/set.zip", tmp_path / "set.zip")
    assert [wanted for _, wanted in server.requests] == [None, None]
    assert (tmp_path / "set.zip").read_bytes() == BODY


def test_a_part_that_is_whole_already_is_taken_as_it_is(tmp_path: Path) -> None:
    target = tmp_path / "set.zip"
    with serving(Files({"set.zip": BODY}, cuts=[10])) as server:
        with pytest.raises(BackendError):
            download(f"{server.address}/set.zip", target, retries=0)
        part_of(target).write_bytes(BODY)
        download(f"{server.address}/set.zip", target, SHA256, retries=0)
    assert target.read_bytes() == BODY
    assert server.sent_bytes == 10


def test_a_part_longer_than_the_file_is_thrown_away(tmp_path: Path) -> None:
    target = tmp_path / "set.zip"
    with serving(Files({"set.zip": BODY}, cuts=[10])) as server:
        with pytest.raises(BackendError):
            download(f"{server.address}/set.zip", target, retries=0)
        part_of(target).write_bytes(BODY + b"more")
        download(f"{server.address}/set.zip", target, SHA256, retries=1)
    assert target.read_bytes() == BODY


def test_a_wrong_checksum_names_both_and_leaves_nothing(tmp_path: Path) -> None:
    wanted = "0" * 64
    with (
        serving(Files({"set.zip": BODY})) as server,
        pytest.raises(DataError, match=f"expected {wanted} but got {SHA256}.*Deleted.*--sha256"),
    ):
        download(f"{server.address}/set.zip", tmp_path / "set.zip", wanted)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_told_at_once(tmp_path: Path) -> None:
    with (
        serving(Files({})) as server,
        pytest.raises(BackendError, match="the server answered 404 Not Found where 200 was expected"),
    ):
        download(f"{server.address}/set.zip", tmp_path / "set.zip")
    assert len(server.requests) == 1


def test_a_server_in_trouble_is_asked_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Files({"set.zip": BODY}, statuses=[500, 503, 429])) as server:
        download(f"{server.address}/set.zip", tmp_path / "set.zip", SHA256)
    assert (tmp_path / "set.zip").read_bytes() == BODY
    assert capsys.readouterr().err.count("trying again") == 3


def test_a_server_that_stays_in_trouble_is_given_up(tmp_path: Path) -> None:
    with (
        serving(Files({"set.zip": BODY}, statuses=[500, 500, 500])) as server,
        pytest.raises(BackendError, match=r"the server answered 500 Internal Server Error \(attempts: 3\)\. Check"),
    ):
        download(f"{server.address}/set.zip", tmp_path / "set.zip", retries=2)


def test_nobody_there_is_one_plain_paragraph(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(BackendError, match=r"the connection failed \(\[Errno 111\] Connection refused\)") as caught:
            download(f"http://127.0.0.1:{port}/set.zip", tmp_path / "set.zip", retries=1)
    assert "\n" not in str(caught.value)
    assert "HTTPConnectionPool" not in str(caught.value)


def test_a_download_larger_than_the_disk_is_refused_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: type("Usage", (), {"free": 100_000}))
    with (
        serving(Files({"set.zip": BODY})) as server,
        pytest.raises(BackendError, match=r"needs 0\.0 GB and .* has 0\.0 GB free"),
    ):
        download(f"{server.address}/set.zip", tmp_path / "set.zip")
