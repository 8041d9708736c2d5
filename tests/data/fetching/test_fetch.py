"""`mllmrec fetch` against loopback servers: a data set's owner, and a hub of models."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from file_server import Files, FilesHandler, serving
from pydantic import ValidationError

from mllmrec.data.fetching import stage as sources
from mllmrec.data.fetching.stage import PublicDataset, RemoteFile, find_source, run_backbone, run_dataset
from mllmrec.data.model_folders import lacking, stored_parameters
from mllmrec.errors import ArtifactError, BackendError, DataError, SettingsError
from mllmrec.settings.resources import FetchBackboneSettings, FetchDatasetSettings
from mllmrec.storage.workspace import Workspace, read_json

RATINGS = b"1::10::5::978300760\n"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mllmrec.data.fetching.download.BACKOFF_SECONDS", 0.001)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.sockets
def test_a_known_data_set_shows_its_terms_and_lands_unpacked(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = zipped({"films/ratings.dat": RATINGS, "films/movies.dat": b"10::A Film::Drama\n"})
    with serving(Files({"films.zip": archive, "titles.csv": b"item,title\n"})) as server:
        source = PublicDataset(
            name="films",
            files=(
                RemoteFile(url=f"{server.address}/films.zip", sha256=hashlib.sha256(archive).hexdigest()),
                RemoteFile(url=f"{server.address}/titles.csv?download=1"),
            ),
            terms="for research alone",
            page="https://example.org/films",
            importer="movielens-1m",
            dataset="films",
        )
        server.content["titles.csv?download=1"] = server.content["titles.csv"]
        monkeypatch.setitem(sources.SOURCES, "films", source)
        summary = run_dataset(FetchDatasetSettings(name="films"), workspace)
        asked = len(server.requests)
        again = run_dataset(FetchDatasetSettings(name="films"), workspace)
        assert len(server.requests) == asked == 2
    folder = workspace.root / "raw" / "films"
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json",
        "movies.dat",
        "ratings.dat",
        "titles.csv",
    ]
    assert (folder / "ratings.dat").read_bytes() == RATINGS
    told = capsys.readouterr().err
    assert told.startswith("Terms of films: for research alone (https://example.org/films).")
    digest = hashlib.sha256(b"item,title\n").hexdigest()
    assert f"No checksum is known for titles.csv; what came has the sha256 {digest}." in told
    assert f"mllmrec prepare --source movielens-1m --raw {folder} --dataset films" in summary.headline
    assert "nothing to do" in again.headline
    manifest = read_json(folder / "manifest.json")
    assert manifest["counts"] == {"files": 3, "bytes": len(RATINGS) + 18 + 11}
    assert manifest["details"]["sha256"]["films.zip"] == hashlib.sha256(archive).hexdigest()
    assert manifest["details"]["terms"] == "for research alone"


@pytest.mark.sockets
def test_any_address_can_be_fetched_under_a_name_and_into_a_folder(workspace: Workspace, tmp_path: Path) -> None:
    with serving(Files({"shop.csv": b"user,item,timestamp\n"})) as server:
        url = f"{server.address}/shop.csv"
        run_dataset(FetchDatasetSettings(url=url), workspace)
        run_dataset(FetchDatasetSettings(name="mine", url=url, raw=str(tmp_path / "elsewhere")), workspace)
    assert (tmp_path / "raw" / "shop" / "shop.csv").exists()
    assert (tmp_path / "elsewhere" / "shop.csv").read_bytes() == b"user,item,timestamp\n"


@pytest.mark.sockets
def test_a_cut_is_taken_up_by_the_same_command(workspace: Workspace) -> None:
    archive = zipped({"x.csv": bytes(200_000)})
    with serving(Files({"x.zip": archive}, cuts=[150_000])) as server:
        settings = FetchDatasetSettings(url=f"{server.address}/x.zip", retries=0)
        with pytest.raises(BackendError, match="the same command again"):
            run_dataset(settings, workspace)
        assert not (workspace.root / "raw" / "x" / "manifest.json").exists()
        run_dataset(settings, workspace)
        assert server.requests[1][1] is not None
        assert server.sent_bytes < len(archive) + 20_000
    assert (workspace.root / "raw" / "x" / "x.csv").stat().st_size == 200_000
    assert not (workspace.root / "raw" / "x" / ".fetching").exists()


@pytest.mark.sockets
def test_a_wrong_checksum_leaves_no_file_and_no_manifest(workspace: Workspace) -> None:
    with (
        serving(Files({"x.csv": b"1"})) as server,
        pytest.raises(DataError, match=r"expected f{64} but got 6b86b273"),
    ):
        run_dataset(FetchDatasetSettings(url=f"{server.address}/x.csv", sha256="F" * 64), workspace)
    assert [path for path in workspace.root.rglob("*") if path.is_file()] == []


@pytest.mark.sockets
def test_a_hostile_archive_leaves_nothing_behind(workspace: Workspace) -> None:
    with (
        serving(Files({"x.zip": zipped({"good.csv": b"1", "../evil.csv": b"2"})})) as server,
        pytest.raises(DataError, match=r"'\.\./evil\.csv', which would be written outside the folder"),
    ):
        run_dataset(FetchDatasetSettings(url=f"{server.address}/x.zip"), workspace)
    assert [path for path in workspace.root.rglob("*") if path.is_file()] == []


@pytest.mark.sockets
def test_another_address_needs_overwrite_and_then_replaces(workspace: Workspace) -> None:
    with serving(Files({"a.csv": b"old", "new/a.csv": b"new"})) as server:
        run_dataset(FetchDatasetSettings(name="a", url=f"{server.address}/a.csv"), workspace)
        other = FetchDatasetSettings(name="a", url=f"{server.address}/new/a.csv")
        with pytest.raises(ArtifactError, match="setting url was"):
            run_dataset(other, workspace)
        run_dataset(other.model_copy(update={"overwrite": True}), workspace)
    assert (workspace.root / "raw" / "a" / "a.csv").read_bytes() == b"new"


def test_every_known_data_set_has_an_https_address_terms_and_an_importer() -> None:
    importers = {"movielens-100k", "movielens-1m", "movielens-latest", "microlens"}
    for name, source in sources.SOURCES.items():
        assert source.name == name
        assert source.terms
        assert source.importer in importers
        assert all(file.url.startswith("https://") for file in source.files)
        assert all(file.sha256 is None or len(file.sha256) == 64 for file in source.files)


def test_a_name_nobody_knows_is_answered_with_the_nearest_and_the_list() -> None:
    with pytest.raises(SettingsError, match=r"Did you mean movielens-1m\? Expected one of movielens-100k, .* --url"):
        find_source("movielens1m", None, None)


def test_a_data_set_behind_an_account_is_explained() -> None:
    with pytest.raises(SettingsError, match=r"netflix-prize can't be fetched.*prepare --source netflix-prize"):
        find_source("netflix-prize", None, None)


def test_a_checksum_given_by_hand_replaces_the_known_one() -> None:
    known = sources.SOURCES["movielens-latest-small"]
    source = find_source(known.name, None, "a" * 64)
    assert source == replace(known, files=(replace(known.files[0], sha256="a" * 64),))
    with pytest.raises(SettingsError, match="consists of 2 files"):
        find_source("microlens-50k", None, "a" * 64)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "name is required"),
        ({"url": "ftp://example.org/x"}, "expected an address that starts with http"),
        ({"url": "https://me:secret@example.org/x"}, "user name or password"),
        ({"name": "a", "sha256": "abc"}, "sha256"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, str], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        FetchDatasetSettings.model_validate(values)


COMMIT = "c0ffee" + "0" * 34


def weights(shape: tuple[int, int] = (4, 3)) -> bytes:
    """A safetensors file by hand: length of the header, the header, the numbers."""
    num_bytes = 4 * shape[0] * shape[1]
    header = json.dumps({"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, num_bytes]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(range(256)) * (num_bytes // 256) + bytes(num_bytes % 256)


class HubHandler(FilesHandler):
    """The few endpoints of a model hub that a snapshot needs; a file's etag is its sha256."""

    def head(self) -> None:
        self.files.requests.append((f"HEAD {self.path}", None))
        body = self.files.content.get(self.path.rsplit(f"/resolve/{COMMIT}/", 1)[-1])
        self._file(body, head=True)

    def get(self) -> None:
        path = urlsplit(self.path).path
        if not path.startswith("/api/"):
            self.files.requests.append((self.path, self.headers.get("Range")))
            self._file(self.files.content.get(path.rsplit(f"/resolve/{COMMIT}/", 1)[-1]))
            return
        self.files.requests.append((self.path, None))
        known = path.startswith("/api/models/maker/Small-1.5B")
        if known and f"/tree/{COMMIT}" in path:
            self._json(
                [
                    {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                    for name, body in self.files.content.items()
                ]
            )
        elif known and path.endswith(("Small-1.5B", "/revision/main", f"/revision/{COMMIT}")):
            self._json({"id": "maker/Small-1.5B", "sha": COMMIT, "tags": ["license:apache-2.0"], "siblings": []})
        else:
            code = "RevisionNotFound" if known else "RepoNotFound"
            self._json({"error": code}, status=404, headers={"X-Error-Code": code})

    do_HEAD, do_GET = head, get  # the names that http.server calls

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _file(self, body: bytes | None, head: bool = False) -> None:
        if body is None:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if head:
            self.send_response(200)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
        elif wanted:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self._answer(206, body[start:], headers)
        else:
            self._answer(200, body, headers)


@pytest.fixture
def hub() -> Iterator[Files]:
    content = {
        "model.safetensors": weights((300, 200)),
        "config.json": b'{"model_type": "qwen3"}',
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b"{}",
        "pytorch_model.bin": b"pickled",
        "consolidated.safetensors": b"twice",
        "onnx/model.safetensors": b"other form",
        "README.md": b"# Small",
    }
    with serving(Files(content), HubHandler) as files:
        yield files


def fetch_in_a_fresh_process(root: Path, hub: Files, *flags: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """huggingface_hub reads its environment when it is imported, so each call gets a process of its own."""
    program = (
        "import json, sys\n"
        "from mllmrec.storage.workspace import Workspace\n"
        "from mllmrec.data.fetching.stage import run_backbone\n"
        "from mllmrec.settings.resources import FetchBackboneSettings\n"
        "settings = FetchBackboneSettings.model_validate(json.loads(sys.argv[2]))\n"
        "print(run_backbone(settings, Workspace(sys.argv[1])).headline)\n"
    )
    environment = os.environ | {
        "HF_ENDPOINT": hub.address,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(root / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(root), json.dumps({"id": "maker/Small-1.5B", **settings})],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.sockets
def test_a_backbone_arrives_as_a_model_folder_without_pickles(tmp_path: Path, hub: Files) -> None:
    checksum = hashlib.sha256(hub.content["model.safetensors"]).hexdigest()
    done = fetch_in_a_fresh_process(tmp_path, hub, sha256=checksum)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "Small-1.5B"
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "manifest.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert (folder / "model.safetensors").read_bytes() == hub.content["model.safetensors"]
    assert "Licence of maker/Small-1.5B: apache-2.0." in done.stderr
    assert read_json(folder / "manifest.json")["details"] == {"commit": COMMIT}
    assert not any(path.endswith((".bin", "onnx/model.safetensors", "README.md")) for path, _ in hub.requests)
    assert Workspace(tmp_path).model("Small-1.5B") == folder
    assert lacking(folder) == []
    assert stored_parameters(folder) == 300 * 200
    hub.requests.clear()
    again = run_backbone(FetchBackboneSettings(id="maker/Small-1.5B", sha256=(checksum,)), Workspace(tmp_path))
    assert "nothing to do" in again.headline
    assert hub.requests == []


@pytest.mark.sockets
def test_a_backbone_with_a_wrong_checksum_takes_no_place(tmp_path: Path, hub: Files) -> None:
    done = fetch_in_a_fresh_process(tmp_path, hub, sha256="e" * 64)
    found = hashlib.sha256(hub.content["model.safetensors"]).hexdigest()
    assert f"model.safetensors has the sha256 {found} where {'e' * 64} was expected" in done.stderr
    assert not (tmp_path / "Small-1.5B").exists()
    assert not (tmp_path / ".Small-1.5B.fetching").exists()


def ranges_of_the_weights(hub: Files) -> list[str]:
    return [wanted for path, wanted in hub.requests if path.endswith("model.safetensors") and wanted]


@pytest.mark.sockets
def test_a_cut_backbone_is_mended_in_the_same_call(tmp_path: Path, hub: Files) -> None:
    hub.content["model.safetensors"] = weights((2_600, 2_500))  # the client keeps what came in pieces of 10 MiB
    hub.cuts, hub.cut_suffix = [12_000_000], "model.safetensors"
    done = fetch_in_a_fresh_process(tmp_path, hub)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "Small-1.5B" / "model.safetensors").read_bytes() == hub.content["model.safetensors"]
    assert ranges_of_the_weights(hub) == ["bytes=10485760-"]


@pytest.mark.slow
def test_after_a_failure_the_same_command_fetches_what_is_missing(tmp_path: Path, hub: Files) -> None:
    for shard in ("model-1.safetensors", "model-2.safetensors"):
        hub.content[shard] = hub.content["model.safetensors"]
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    hub.content["model.safetensors.index.json"] = json.dumps(index).encode()
    del hub.content["model.safetensors"]
    hub.cuts, hub.cut_suffix = [1_000] * 20, "model-2.safetensors"
    stopped = fetch_in_a_fresh_process(tmp_path, hub)
    assert "run the same command again; the files that arrived whole are kept" in stopped.stderr.splitlines()[-1]
    assert not (tmp_path / "Small-1.5B").exists()
    hub.cuts, hub.requests = [], []
    done = fetch_in_a_fresh_process(tmp_path, hub)
    assert done.returncode == 0, done.stderr
    resolved = f"/maker/Small-1.5B/resolve/{COMMIT}/"
    fetched = [path.removeprefix(resolved) for path, _ in hub.requests if path.startswith(resolved)]
    assert fetched == ["model-2.safetensors"]
    assert lacking(tmp_path / "Small-1.5B") == []


@pytest.mark.sockets
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"id": "maker/Nothing"}, "BackendError: The hub has no model maker/Nothing, or keeps it private."),
        ({"revision": "v9"}, "BackendError: maker/Small-1.5B has no revision 'v9'."),
        ({"sha256": f"{'a' * 64},{'b' * 64}"}, "DataError: --sha256 gives 2 checksums for 1 weight files"),
    ],
)
def test_a_hub_that_says_no_is_one_paragraph(tmp_path: Path, hub: Files, settings: dict[str, str], told: str) -> None:
    done = fetch_in_a_fresh_process(tmp_path, hub, **settings)
    assert told in done.stderr.splitlines()[-1]


@pytest.mark.sockets
def test_a_model_of_pickles_alone_is_refused(tmp_path: Path, hub: Files) -> None:
    del hub.content["model.safetensors"], hub.content["consolidated.safetensors"]
    done = fetch_in_a_fresh_process(tmp_path, hub)
    assert "lacks weights (model.safetensors). Expected a causal language model with safetensors" in done.stderr
    assert not (tmp_path / "Small-1.5B").exists()


def test_offline_is_told_as_such(workspace: Workspace) -> None:
    with pytest.raises(BackendError, match="while HF_HUB_OFFLINE is set"):
        run_backbone(FetchBackboneSettings(id="maker/Small"), workspace)


def test_an_id_that_is_none_is_told(workspace: Workspace) -> None:
    with pytest.raises(SettingsError, match="no id of a model"):
        run_backbone(FetchBackboneSettings(id="maker/Sm--all"), workspace)


def test_modelscope_missing_names_the_command(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(BackendError, match=r"pip install -c requirements\.lock -e '\.\[modelscope\]'"):
        run_backbone(FetchBackboneSettings(id="maker/Small", from_="modelscope"), workspace)


def test_a_folder_that_is_something_else_is_not_touched(workspace: Workspace) -> None:
    folder = workspace.root / "Small"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match="is no model folder"):
        run_backbone(FetchBackboneSettings(id="maker/Small"), workspace)
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def model_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights())
    return folder


def test_a_complete_folder_put_there_by_hand_is_left_alone(workspace: Workspace) -> None:
    model_folder(workspace.root / "Small")
    settings = FetchBackboneSettings(id="maker/Small", sha256=(hashlib.sha256(weights()).hexdigest(),))
    assert "nothing to do" in run_backbone(settings, workspace).headline
    with pytest.raises(DataError, match="was expected"):
        run_backbone(settings.model_copy(update={"sha256": ("0" * 64,)}), workspace)


def test_what_a_model_folder_lacks(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    assert lacking(folder) == []
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-1])
    assert lacking(folder) == [f"a whole model.safetensors ({len(whole) - 1} of {len(whole)} bytes are here)"]
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert lacking(folder) == ["a whole model.safetensors (it is no safetensors file)"]
    (folder / "model.safetensors").unlink()
    (folder / "tokenizer.json").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert lacking(folder) == [
        "a tokenizer (tokenizer.json)",
        "weights (model.safetensors); the .bin files here are not read",
    ]
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-1.safetensors").write_bytes(weights())
    assert lacking(folder) == ["a tokenizer (tokenizer.json)", "model-2.safetensors"]
