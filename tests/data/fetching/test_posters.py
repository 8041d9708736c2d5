"""Posters from a server that has all of TMDB's moods: nothing is lost, doubled, half written or told of the key."""

from __future__ import annotations

import calendar
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from tmdb_server import JPEG, KEY, PNG, TOKEN, FakeTmdb, serving, times_of

from mllmrec import ArtifactError, DataError, Workspace
from mllmrec.data.fetching.posters import run_images
from mllmrec.data.fetching.tmdb import PosterError, suffix_of
from mllmrec.errors import BackendError, SettingsError
from mllmrec.records import Summary
from mllmrec.settings.resources import FetchImagesSettings
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import read_json, write_text
from mllmrec.vision.images import ImageFolder

pytestmark = pytest.mark.sockets
NAME = "films"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mllmrec.data.fetching.tmdb.BACKOFF_SECONDS", 0.001)
    monkeypatch.setenv("TMDB_API_KEY", KEY)


@pytest.fixture
def server() -> Iterator[FakeTmdb]:
    with serving(FakeTmdb()) as tmdb:
        yield tmdb


def films(root: Path, count: int = 3, year: int = 2000) -> Workspace:
    """Items 1 to `count`, of which n is 100n at TMDB, and one that has no link."""
    workspace = Workspace(root)
    ids = range(1, count + 1)
    titles = "".join(f"{number},Film {number} ({year})\n" for number in (*ids, 99))
    write_text(workspace.dataset(NAME).titles, f"item,title\n{titles}")
    links = "".join(f"{number},00{number},{number}00\r\n" for number in ids)
    write_text(workspace.dataset(NAME).folder / "links.csv", f"movieId,imdbId,tmdbId\r\n{links}99,0099,\r\n")
    return workspace


def fill(server: FakeTmdb, count: int = 3) -> None:
    for number in range(1, count + 1):
        server.add(f"{number}00")


def fetch(workspace: Workspace, server: FakeTmdb, **knobs: Any) -> Summary:
    chosen = {"max_failure_share": 1.0, "api_url": server.address, "image_url": server.address} | knobs
    return run_images(FetchImagesSettings(dataset=NAME, root=str(workspace.root), **chosen), workspace)


def images(workspace: Workspace) -> dict[str, bytes]:
    """Everything that lies in images/, hidden files included."""
    return {path.name: path.read_bytes() for path in sorted(workspace.dataset(NAME).images.iterdir())}


def origins(workspace: Workspace) -> Any:
    return read_json(workspace.dataset(NAME).folder / f"{NAME}_posters.json")


def failures(workspace: Workspace) -> dict[str, str]:
    manifest = Manifest.read(workspace.dataset(NAME).folder / f"{NAME}_posters.json")
    assert manifest is not None
    return manifest.details["failures"]


def test_posters_take_their_places_and_their_origin_is_told(tmp_path: Path, server: FakeTmdb) -> None:
    workspace = films(tmp_path)
    server.add("100")
    server.add("200", PNG, suffix="jpg")
    server.films["300"] = {"poster_path": None, "release_date": ""}
    summary = fetch(workspace, server)
    assert images(workspace) == {"1.jpg": JPEG + b"100", "2.png": PNG + b"200"}
    assert origins(workspace) == {
        "1": {"file": "1.jpg", "tmdb_id": "100", "poster_path": "/poster100.jpg", "bytes": len(JPEG) + 3},
        "2": {"file": "2.png", "tmdb_id": "200", "poster_path": "/poster200.jpg", "bytes": len(PNG) + 3},
        "3": {"tmdb_id": "300", "missing": "no poster"},
    }
    assert summary.facts == {
        "in": 3,
        "done": 3,
        "failed": 0,
        "items": 4,
        "unlinked": 1,
        "fetched": 2,
        "no_poster": 1,
    }
    asked = {path: query for path, query, *_ in server.requests}
    assert asked["/3/movie/100"] == {"api_key": [KEY]}
    assert asked["/w342/poster100.jpg"] == {}
    assert len(server.requests) == 5


def test_a_finished_folder_asks_nothing_and_needs_no_key(
    tmp_path: Path, server: FakeTmdb, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = films(tmp_path)
    fill(server)
    fetch(workspace, server)
    before, asked = images(workspace), len(server.requests)
    monkeypatch.delenv("TMDB_API_KEY")
    assert "nothing to do" in fetch(workspace, server).headline
    assert (images(workspace), len(server.requests)) == (before, asked)


def test_an_access_token_goes_into_a_header(tmp_path: Path, server: FakeTmdb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_KEY", TOKEN)
    netrc = tmp_path / "netrc"
    write_text(netrc, "machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    fill(server)
    fetch(films(tmp_path), server, api_key_env="OWN_KEY")
    for path, query, headers, _ in server.requests:
        assert query == {}
        assert headers.get("Authorization") == (f"Bearer {TOKEN}" if path.startswith("/3/") else None)


# ---- what may pass


@pytest.mark.parametrize("path", ["/3/movie/200", "/w342/poster200.jpg"])
@pytest.mark.parametrize("plan", [[500, 503], ["cut", "cut"], [429], [502, "cut", 429], [(429, {"Retry-After": "x"})]])
def test_what_may_pass_is_asked_again(tmp_path: Path, server: FakeTmdb, path: str, plan: list[object]) -> None:
    workspace = films(tmp_path)
    fill(server)
    server.plans[path] = list(plan)
    fetch(workspace, server)
    assert images(workspace) == {f"{number}.jpg": JPEG + f"{number}00".encode() for number in (1, 2, 3)}
    assert server.paths().count(path) == len(plan) + 1


def test_a_hanging_server_is_asked_again(tmp_path: Path, server: FakeTmdb) -> None:
    workspace = films(tmp_path)
    fill(server)
    server.plans["/3/movie/100"] = ["hang"]
    fetch(workspace, server, timeout=0.3)
    assert sorted(images(workspace)) == ["1.jpg", "2.jpg", "3.jpg"]


@pytest.mark.parametrize("as_date", [False, True])
def test_the_pause_that_a_server_asks_for_is_kept_by_all(tmp_path: Path, server: FakeTmdb, as_date: bool) -> None:
    workspace = films(tmp_path, 12)
    fill(server, 12)
    after = formatdate(time.time() + 2, usegmt=True) if as_date else "1"
    server.plans["/3/movie/100"] = [(429, {"Retry-After": after})]
    fetch(workspace, server, max_inflight=2)
    (first, again), moments = times_of(server)["/3/movie/100"], sorted(moment for *_, moment in server.requests)
    assert again - first >= 0.99
    silence = max(later - earlier for earlier, later in itertools.pairwise(moments))
    assert silence > 0.9, "the other thread waits too"
    assert len(images(workspace)) == 12


def test_a_pause_of_nothing_is_a_pause_all_the_same(
    tmp_path: Path, server: FakeTmdb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice refused, the request comes again after .2 s and .4 s at least."""
    monkeypatch.setattr("mllmrec.data.fetching.tmdb.BACKOFF_SECONDS", 0.2)
    fill(server, 1)
    server.plans["/3/movie/100"] = [(429, {"Retry-After": "0"})] * 2
    fetch(films(tmp_path, 1), server)
    first, second, third = times_of(server)["/3/movie/100"]
    assert second - first >= 0.19
    assert third - second >= 0.39


# ---- what stays wrong


@pytest.mark.parametrize(
    ("path", "behaviour", "reason"),
    [
        ("/3/movie/200", 500, "HTTP 500"),
        ("/3/movie/200", "cut", "the connection was cut"),
        ("/3/movie/200", 418, "HTTP 418"),
        ("/3/movie/200", (302, {"Location": "/3/movie/100"}), "HTTP 302"),
        ("/w342/poster200.jpg", 404, "HTTP 404"),
        ("/w342/poster200.jpg", 401, "HTTP 401"),
        ("/w342/poster200.jpg", "cut", "the connection was cut"),
        ("/w342/poster200.jpg", 503, "HTTP 503"),
    ],
)
def test_a_failure_is_a_record_with_its_reason(
    tmp_path: Path, server: FakeTmdb, path: str, behaviour: object, reason: str
) -> None:
    workspace = films(tmp_path)
    fill(server)
    server.plans[path] = [behaviour] * 20
    fetch(workspace, server)
    assert failures(workspace) == {"2": reason}
    assert sorted(images(workspace)) == ["1.jpg", "3.jpg"]
    server.plans.clear()
    fetch(workspace, server, retry_failed=True)
    assert images(workspace)["2.jpg"] == JPEG + b"200"
    assert failures(workspace) == {}
    assert list(origins(workspace)) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("film", "reason"),
    [
        (b"<html>", "an odd answer"),
        (b"[]", "an odd answer"),
        (b"{}", "an odd answer"),
        (b"[" * 3000, "an odd answer"),
        ({"poster_path": 7}, "an odd answer"),
        ({"poster_path": "/../../secrets"}, "an odd answer"),
        ({"poster_path": "http://elsewhere/x.jpg"}, "an odd answer"),
        ({"poster_path": "/none.jpg"}, "HTTP 404"),
        ({"poster_path": "/poster100.jpg", "release_date": "1997-01-01"}, "another film by its year"),
    ],
)
def test_an_odd_answer_is_a_failure(tmp_path: Path, server: FakeTmdb, film: object, reason: str) -> None:
    workspace = films(tmp_path)
    fill(server)
    server.films["200"] = film
    fetch(workspace, server)
    assert failures(workspace) == {"2": reason}
    assert sorted(images(workspace)) == ["1.jpg", "3.jpg"]


@pytest.mark.parametrize(("released", "kept"), [("1998-01-01", True), ("2002-12-31", True), ("", True), (None, True)])
def test_years_two_apart_or_unknown_are_the_same_film(
    tmp_path: Path, server: FakeTmdb, released: object, kept: bool
) -> None:
    workspace = films(tmp_path, 1)
    fill(server, 1)
    server.films["100"] = {"poster_path": "/poster100.jpg", "release_date": released}
    fetch(workspace, server)
    assert ("1.jpg" in images(workspace)) == kept


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<html>no</html>", "no image"),
        (b"", "no image"),
        (b"GIF89a" + b"x" * 99, "no image"),
        (JPEG * 99, "too large"),
    ],
)
def test_what_is_no_image_or_too_large_is_not_kept(tmp_path: Path, server: FakeTmdb, body: bytes, reason: str) -> None:
    workspace = films(tmp_path)
    fill(server)
    server.images["/poster200.jpg"] = body
    fetch(workspace, server, max_mb=0.1)
    assert failures(workspace) == {"2": reason}
    assert sorted(images(workspace)) == ["1.jpg", "3.jpg"]


def test_a_film_that_tmdb_does_not_know_has_no_poster(tmp_path: Path, server: FakeTmdb) -> None:
    workspace = films(tmp_path)
    fill(server)
    del server.films["200"]
    summary = fetch(workspace, server)
    assert origins(workspace)["2"] == {"tmdb_id": "200", "missing": "no such film"}
    assert (summary.facts["no_poster"], summary.facts["failed"]) == (1, 0)


def test_too_many_failures_fail_the_stage_and_keep_the_rest(tmp_path: Path, server: FakeTmdb) -> None:
    workspace = films(tmp_path)
    fill(server)
    server.images["/poster200.jpg"] = b"no"
    with pytest.raises(BackendError, match=r"1 of 3 records failed: no image \(1\)"):
        fetch(workspace, server, max_failure_share=0.1)
    server.images["/poster200.jpg"] = JPEG
    fetch(workspace, server, retry_failed=True)
    assert len(images(workspace)) == 3
    assert server.answered["/w342/poster100.jpg"] == 1


# ---- what ends the stage


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_ends_the_stage_without_being_told(
    tmp_path: Path, server: FakeTmdb, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    workspace = films(tmp_path, 30)
    server.plans = {f"/3/movie/{number}00": [status] for number in range(1, 31)}
    with pytest.raises(BackendError, match=f"refuses the key in TMDB_API_KEY.*{status}") as error:
        fetch(workspace, server)
    assert len(server.requests) < 12
    assert KEY not in "".join(traceback.format_exception(error.value)) + "".join(capfd.readouterr())
    fill(server, 30)
    server.plans.clear()
    fetch(workspace, server)
    assert len(images(workspace)) == 30


@pytest.mark.parametrize("status", [429, 503])
def test_a_pause_that_is_too_long_ends_the_stage_and_tells_when_to_come_back(
    tmp_path: Path, server: FakeTmdb, status: int
) -> None:
    workspace = films(tmp_path, 60)
    fill(server, 60)
    server.plans = {f"/3/movie/{number}00": [(status, {"Retry-After": "3600"})] for number in range(3, 61)}
    before = time.time()
    with pytest.raises(BackendError, match=rf"3,600 s \(HTTP {status}\)") as error:
        fetch(workspace, server)
    told = re.search(r"after (\d{4}-\d\d-\d\d \d\d:\d\d) UTC", str(error.value))
    assert told
    assert 3540 < calendar.timegm(time.strptime(told[1], "%Y-%m-%d %H:%M")) - before < 3680
    assert len(server.requests) < 12
    server.plans.clear()
    fetch(workspace, server)
    assert len(images(workspace)) == 60, "what was refused isn't a failure and is asked for again"


def test_a_pause_beyond_all_reason_ends_the_stage_as_well(tmp_path: Path, server: FakeTmdb) -> None:
    server.plans["/3/movie/100"] = [(429, {"Retry-After": "9" * 30})]
    with pytest.raises(BackendError, match="longer than is waited here"):
        fetch(films(tmp_path), server)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_stays_busy_ends_the_stage(tmp_path: Path, server: FakeTmdb, status: int) -> None:
    """Eight items in a row, one after the other, each asked twice."""
    workspace = films(tmp_path, 60)
    fill(server, 60)
    server.plans = {f"/3/movie/{number}00": [status] * 9 for number in range(4, 61)}
    with pytest.raises(BackendError, match=rf"8 items in a row failed \(HTTP {status}\).*--retry-failed"):
        fetch(workspace, server, max_inflight=1, max_retries=1)
    assert len(server.requests) <= 6 + 2 * 8 + 2
    server.plans.clear()
    fetch(workspace, server, retry_failed=True)
    assert len(images(workspace)) == 60


def test_the_pause_that_is_asked_for_last_tells_when_to_come_back(tmp_path: Path, server: FakeTmdb) -> None:
    server.plans = {f"/3/movie/{number}00": [(503, {"Retry-After": "1"})] * 9 for number in range(1, 61)}
    with pytest.raises(BackendError, match=r"Come back after \d{4}-\d\d-\d\d \d\d:\d\d UTC"):
        fetch(films(tmp_path, 60), server, max_retries=0)


def test_failures_between_answers_end_nothing(tmp_path: Path, server: FakeTmdb) -> None:
    workspace = films(tmp_path, 30)
    fill(server, 30)
    server.plans = {f"/3/movie/{number}00": [503] * 9 for number in range(1, 31, 2)}
    fetch(workspace, server, max_inflight=1, max_retries=0)
    assert failures(workspace) == {str(number): "HTTP 503" for number in range(1, 31, 2)}


def test_the_key_is_told_nowhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A server that isn't there makes the HTTP library quote whole addresses."""
    workspace = films(tmp_path, 12)
    with serving(FakeTmdb()) as gone:
        pass
    with pytest.raises(
        BackendError, match=r"doesn't answer: 8 items in a row failed \(the connection failed\)"
    ) as error:
        fetch(workspace, gone, max_retries=1)
    told = "".join(traceback.format_exception(error.value)) + "".join(capfd.readouterr())
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY not in told
    assert KEY.encode() not in kept
    with serving(FakeTmdb()) as back:
        fill(back, 12)
        fetch(workspace, back, retry_failed=True)
    assert len(images(workspace)) == 12
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_links_of_another_numbering_are_noticed_before_the_folder_is_full(tmp_path: Path, server: FakeTmdb) -> None:
    workspace = films(tmp_path, 60)
    for number in range(1, 61):
        server.add(f"{number}00", b"\xff\xd8\xffwrong", year=2000 if number % 5 == 0 else 1950)
    with pytest.raises(DataError, match=r"20 of the first 2\d films are of another year.*--links.*--overwrite"):
        fetch(workspace, server)
    wrong = images(workspace)
    assert 0 < len(wrong) < 12
    fill(server, 60)
    write_text(tmp_path / "right.csv", (workspace.dataset(NAME).folder / "links.csv").read_text() + "300,0300,1\n")
    with pytest.raises(ArtifactError, match=r"differs in links.*--overwrite"):
        fetch(workspace, server, links=str(tmp_path / "right.csv"))
    fetch(workspace, server, links=str(tmp_path / "right.csv"), overwrite=True)
    assert len(images(workspace)) == 60
    assert not [name for name, body in images(workspace).items() if b"wrong" in body], "wrong posters are replaced"


def test_without_a_key_nothing_is_asked(tmp_path: Path, server: FakeTmdb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMDB_API_KEY", " ")
    with pytest.raises(SettingsError, match=r"TMDB_API_KEY is empty.*--api-key-env"):
        fetch(films(tmp_path), server)
    assert server.requests == []


def test_the_terms_are_shown_first(tmp_path: Path, server: FakeTmdb, capfd: pytest.CaptureFixture[str]) -> None:
    fill(server)
    fetch(films(tmp_path), server)
    assert "not endorsed or certified by TMDB" in capfd.readouterr().err


# ---- what is there already


def test_images_that_are_there_stay(tmp_path: Path, server: FakeTmdb) -> None:
    workspace = films(tmp_path)
    fill(server)
    workspace.dataset(NAME).images.mkdir(parents=True)
    (workspace.dataset(NAME).images / "2.webp").write_bytes(b"my own")
    (workspace.dataset(NAME).images / ".1.jpg.77.tmp").write_bytes(b"a draft of a killed process")
    summary = fetch(workspace, server)
    assert images(workspace) == {"1.jpg": JPEG + b"100", "2.webp": b"my own", "3.jpg": JPEG + b"300"}
    assert origins(workspace)["2"] == {"file": "2.webp", "was_there": True}
    assert summary.facts["was_there"] == 1
    assert not [path for path in server.paths() if "200" in path]
    fetch(workspace, server, size="w185", overwrite=True)
    assert images(workspace)["2.webp"] == b"my own"
    assert {path for path in server.paths() if path.startswith("/w185")} == {
        "/w185/poster100.jpg",
        "/w185/poster300.jpg",
    }


def test_of_several_images_of_an_item_the_origin_names_the_one_that_is_read(tmp_path: Path, server: FakeTmdb) -> None:
    workspace = films(tmp_path, 1)
    for name in ("1.bmp", "1.png", "1.jpg", "1.webp"):
        write_text(workspace.dataset(NAME).images / name, name)
        fetch(workspace, server, overwrite=True)
        told = origins(workspace)["1"]["file"]
        folder = workspace.dataset(NAME).images
        assert (folder / told).read_bytes() == ImageFolder(folder).read("1")
    assert told == "1.jpg"


def test_another_size_is_refused_and_replaces_with_overwrite(tmp_path: Path, server: FakeTmdb) -> None:
    workspace = films(tmp_path)
    fill(server)
    fetch(workspace, server)
    with pytest.raises(ArtifactError, match=r"setting size was 'w342' and is now 'w500'.*--overwrite"):
        fetch(workspace, server, size="w500")
    server.images["/poster100.jpg"] = PNG
    fetch(workspace, server, size="w500", overwrite=True)
    assert sorted(images(workspace)) == ["1.png", "2.jpg", "3.jpg"]


def test_an_image_that_was_taken_away_is_fetched_again(tmp_path: Path, server: FakeTmdb) -> None:
    workspace = films(tmp_path)
    fill(server)
    fetch(workspace, server)
    before = (images(workspace), origins(workspace))
    (workspace.dataset(NAME).images / "2.jpg").unlink()
    fetch(workspace, server)
    assert (images(workspace), origins(workspace)) == before
    assert server.answered == {
        **{f"/3/movie/{number}00": 1 for number in (1, 3)},
        **{f"/w342/poster{number}00.jpg": 1 for number in (1, 3)},
        "/3/movie/200": 2,
        "/w342/poster200.jpg": 2,
    }


def test_a_larger_limit_extends(tmp_path: Path, server: FakeTmdb) -> None:
    workspace = films(tmp_path, 6)
    fill(server, 6)
    fetch(workspace, server, limit=2)
    assert sorted(images(workspace)) == ["1.jpg", "2.jpg"]
    fetch(workspace, server, limit=4)
    assert sorted(images(workspace)) == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert max(server.answered.values()) == 1


def test_no_more_requests_at_a_time_than_allowed(tmp_path: Path, server: FakeTmdb) -> None:
    workspace, server.seconds = films(tmp_path, 16), 0.02
    fill(server, 16)
    fetch(workspace, server, max_inflight=3)
    assert server.peak == 3


# ---- links


def test_links_are_found_in_their_places(tmp_path: Path, server: FakeTmdb) -> None:
    workspace = films(tmp_path)
    fill(server)
    own = workspace.dataset(NAME).folder / "links.csv"
    raw = tmp_path / "raw" / "movielens-latest-small" / "ml-latest-small" / "links.csv"
    raw.parent.mkdir(parents=True)
    own.rename(raw)
    assert fetch(workspace, server).facts["fetched"] == 3
    (tmp_path / "raw" / "links.csv").write_text("movieId,imdbId,tmdbId\n1,1,100\n")
    with pytest.raises(ArtifactError, match=r"no column tmdb_id; there are 2 under raw/.*--links"):
        fetch(workspace, server)
    with pytest.raises(ArtifactError, match="file of links to TMDB is missing"):
        fetch(workspace, server, links=str(tmp_path / "none.csv"))


def test_the_titles_file_may_hold_the_links(tmp_path: Path, server: FakeTmdb) -> None:
    workspace = films(tmp_path)
    (workspace.dataset(NAME).folder / "links.csv").unlink()
    write_text(
        workspace.dataset(NAME).titles, "item,title,genres,imdb_id,tmdb_id\n1,A (2000),X,01,100\n2,B (2000),X,02,\n"
    )
    fill(server)
    summary = fetch(workspace, server)
    assert list(images(workspace)) == ["1.jpg"]
    assert summary.facts["unlinked"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("movie,imdb,tmdb\n1,2,3\n", r"links\.csv:1: expected the columns movieId, tmdbId"),
        ("", r"links\.csv:1: expected the columns"),
        ("movieId,imdbId,tmdbId\n1,2,3\n2,3,tt7\n", r"links\.csv:3: tmdbId is 'tt7'"),
        ("movieId,imdbId,tmdbId\n1000,2,3\n", r"links none of the 4 items of the catalogue, such as 1\b"),
    ],
)
def test_links_that_are_none(tmp_path: Path, server: FakeTmdb, text: str, message: str) -> None:
    workspace = films(tmp_path)
    write_text(workspace.dataset(NAME).folder / "links.csv", text)
    with pytest.raises(DataError, match=message):
        fetch(workspace, server)


def test_addresses_hold_no_secrets() -> None:
    with pytest.raises(ValueError, match=r"api_url = .*no user, password or query"):
        FetchImagesSettings(dataset=NAME, api_url="https://me:secret@api")
    with pytest.raises(ValueError, match=r"image_url = .*expected http"):
        FetchImagesSettings(dataset=NAME, image_url="ftp://x")


@pytest.mark.parametrize(
    ("body", "suffix"), [(JPEG, ".jpg"), (PNG, ".png"), (b"RIFF\x00\x00\x00\x00WEBPVP8 ", ".webp")]
)
def test_the_first_bytes_tell_the_kind_of_image(body: bytes, suffix: str) -> None:
    assert suffix_of(body) == suffix
    with pytest.raises(PosterError):
        suffix_of(body[1:])


# ---- kill and resume


START = """
import json, sys
from mllmrec import Workspace
from mllmrec.data.fetching.posters import run_images
from mllmrec.settings.resources import FetchImagesSettings
from mllmrec.vision.images import ImageFolder
settings = FetchImagesSettings(**json.loads(sys.argv[1]))
run_images(settings, Workspace(settings.root))
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(tmp_path: Path, server: FakeTmdb) -> None:
    """Ten times: kill -9, start again. Nothing half written, the same files, and no finished poster asked for again."""
    count, server.seconds = 40, 0.03
    fill(server, count)
    whole = films(tmp_path / "whole", count)
    fetch(whole, server)
    expected = (images(whole), (whole.dataset(NAME).folder / f"{NAME}_posters.json").read_bytes())
    rng = random.Random(8)
    for attempt in range(10):
        workspace = films(tmp_path / f"killed{attempt}", count)
        server.requests.clear()
        server.answered.clear()
        while not _survives(workspace, server, rng.uniform(0.3, 1.2)):
            for name, body in images(workspace).items() if workspace.dataset(NAME).images.is_dir() else ():
                assert name.startswith(".") or body == expected[0][name]
        assert images(workspace) == expected[0]
        assert (workspace.dataset(NAME).folder / f"{NAME}_posters.json").read_bytes() == expected[1]
        assert sorted(path.name for path in workspace.dataset(NAME).folder.iterdir()) == sorted(
            path.name for path in whole.dataset(NAME).folder.iterdir()
        )


def _survives(workspace: Workspace, server: FakeTmdb, seconds: float) -> bool:
    """Whether the stage ended before it was killed after `seconds`; finished records aren't asked for again."""
    log = workspace.dataset(NAME).folder / f"{NAME}_posters.json.partial.jsonl"
    done = (
        [json.loads(line)["key"] for line in log.read_text().splitlines()[1:] if '"row"' in line]
        if log.exists()
        else []
    )
    before = {key: server.paths().count(f"/3/movie/{key}00") for key in done}
    knobs = {"dataset": NAME, "root": str(workspace.root), "api_url": server.address, "image_url": server.address}
    process = subprocess.Popen([sys.executable, "-c", START, json.dumps(knobs)], env=os.environ | {"TMDB_API_KEY": KEY})
    try:
        assert process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert {key: server.paths().count(f"/3/movie/{key}00") for key in done} == before
    return process.returncode == 0
