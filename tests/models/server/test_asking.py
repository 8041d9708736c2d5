"""All texts of a stage: asked once, asked again when they break a rule, within the budget, through any crash."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from faulty_server import FAULTS, VARIANTS, FaultyServer, faulty_server, storm
from workspaces import SUPPORT

from mllmrec.errors import BackendError
from mllmrec.models.base import Reply, Request
from mllmrec.models.server.asking import Spending, ask_all
from mllmrec.models.server.endpoint import EndpointTeacher
from mllmrec.settings.texts import TeacherSettings
from mllmrec.storage.json_streams import read_list, write_list
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.record_log import Work, open_work
from mllmrec.storage.workspace import partial

KEYS = [f"user-{number}" for number in range(12)]


class Parrot:
    """A teacher that answers with the request, except where `answers` says otherwise; a None fails."""

    name = "parrot"

    def __init__(self, answers: Mapping[str, str | None] | None = None, tokens: int = 10) -> None:
        self.answers, self.tokens = dict(answers or {}), tokens
        self.heard: list[str] = []
        self.drawn = 0

    def answer(self, requests: Iterable[Request]) -> Iterator[Reply]:
        for request in requests:
            self.drawn += 1
            self.heard.append(request.text)
            text = self.answers.get(request.text, request.text)
            failure = "silent" if text is None else None
            yield Reply(key=request.key, text=text, failure=failure, usage={"calls": 1, "prompt_tokens": self.tokens})


def request_of(key: str, rule: str | None) -> Request:
    number = key.removeprefix("user-")
    return Request(key=key, text=f"write {number}" if rule is None else f"write {number}, and mind: {rule}")


def accept(key: str, text: str) -> dict[str, str] | str:
    """A row, unless the text is rude; every second answer of the server is at first."""
    return "is rude" if text.startswith("rude") else {"key": key, "text": text}


def settings(**knobs: Any) -> TeacherSettings:
    return TeacherSettings(dataset="toy", model="writer", max_failure_share=1.0, **knobs)


def recall_from(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((row["key"], row) for row in read_list(path))


def ask(path: Path, teacher: Any, keys: list[str] = KEYS, spending: Spending | None = None, **knobs: Any) -> Work:
    """Ask for everything and write the artifact."""
    with open_work(path, settings(**knobs), {"train": "a"}, lambda: recall_from(path)) as work:
        ask_all(work, keys, teacher, request_of, accept, spending, "writing")
        work.complete(keys, lambda rows: write_list(path, (row for _, row in rows)), started=time.monotonic())
    return work


def records(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a working log behind its header."""
    lines = partial(path).read_bytes().splitlines(keepends=True)[1:] if partial(path).exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def manifest_of(path: Path) -> Manifest:
    manifest = Manifest.read(path)
    assert manifest is not None
    return manifest


def test_each_key_gets_one_record_and_a_broken_rule_a_second_asking_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "texts.json"
    parrot = Parrot({"write 3": "rude", "write 5": "rude", "write 5, and mind: is rude": "rude again", "write 7": None})
    ask(path, parrot)
    second = ["write 3, and mind: is rude", "write 5, and mind: is rude"]
    assert parrot.heard == [*(f"write {number}" for number in range(12)), *second]
    assert [row["text"] for row in read_list(path)] == [
        second[0] if number == 3 else f"write {number}" for number in range(12) if number not in (5, 7)
    ]
    manifest = manifest_of(path)
    assert manifest.details["failures"] == {"user-5": "is rude", "user-7": "silent"}
    assert manifest.details["usage"] == {"calls": 14, "prompt_tokens": 140}


def test_what_cannot_be_asked_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    path, parrot = tmp_path / "texts.json", Parrot()
    with open_work(path, settings(), {}, lambda: recall_from(path)) as work:
        ask_all(
            work,
            KEYS[:4],
            parrot,
            lambda key, rule: "no picture" if key in ("user-0", "user-2") else request_of(key, rule),
            accept,
            None,
            "writing",
        )
        assert work.failures(KEYS) == {"user-0": "no picture", "user-2": "no picture"}
        assert [key for key, _ in work.rows(KEYS)] == ["user-1", "user-3"]
    assert parrot.heard == ["write 1", "write 3"]


def test_nothing_left_asks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "texts.json"
    ask(path, Parrot())
    parrot = Parrot()
    with open_work(path, settings(), {"train": "a"}, lambda: recall_from(path)) as work:
        ask_all(work, KEYS, parrot, request_of, accept, None, "writing")
    assert parrot.heard == []


def test_a_start_after_a_crash_goes_on_with_the_second_asking(tmp_path: Path) -> None:
    path = tmp_path / "texts.json"
    with open_work(path, settings(), {"train": "a"}, lambda: recall_from(path)) as work:
        work.again("user-1", "is rude", {"calls": 1})
        work.done("user-2", {"key": "user-2", "text": "two"})
    parrot = Parrot()
    ask(path, parrot, KEYS[:4])
    assert parrot.heard == ["write 0", "write 3", "write 1, and mind: is rude"]


def test_a_failed_key_that_is_tried_again_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "texts.json"
    ask(path, Parrot({"write 1": "rude", "write 1, and mind: is rude": "rude"}), KEYS[:2])
    parrot = Parrot()
    ask(path, parrot, KEYS[:2], retry_failed=True)
    assert parrot.heard == ["write 1"]


def test_requests_are_drawn_as_they_are_asked(tmp_path: Path) -> None:
    path, parrot = tmp_path / "texts.json", Parrot()
    built: list[str] = []

    def build(key: str, rule: str | None) -> Request:
        built.append(key)
        assert len(built) - parrot.drawn == 1
        return request_of(key, rule)

    with open_work(path, settings(), {}, lambda: recall_from(path)) as work:
        ask_all(work, KEYS, parrot, build, accept, None, "writing")
    assert built == KEYS


def test_a_spent_budget_stops_and_a_larger_one_goes_on_from_there(tmp_path: Path) -> None:
    path, parrot = tmp_path / "texts.json", Parrot({"write 1": "rude"}, tokens=1_000_000)
    with pytest.raises(
        BackendError,
        match=r"budget of 5 is spent, .*: 5 went on 5 calls\. 4 of 12 records .* 8 are left.*larger --budget goes on",
    ):
        ask(path, parrot, spending=Spending(1.0, 1.0, budget=5.0))
    assert len(parrot.heard) == 5
    assert not path.exists()
    with pytest.raises(BackendError, match=r"5 went on 5 calls\. 0 of 8 records"):
        ask(path, parrot, spending=Spending(1.0, 1.0, budget=5.0))
    assert len(parrot.heard) == 5, "what earlier starts spent counts"
    ask(path, parrot, spending=Spending(1.0, 1.0, budget=13.0))
    assert sorted(parrot.heard[5:]) == sorted([*(f"write {n}" for n in range(5, 12)), "write 1, and mind: is rude"])
    assert manifest_of(path).details["usage"]["calls"] == 13


@pytest.mark.sockets
def test_requests_on_their_way_count_against_the_budget_and_are_recorded(tmp_path: Path) -> None:
    """Each call takes money 1 here, which is known once the first replies are there."""
    path = tmp_path / "texts.json"
    with faulty_server(seconds=0.05) as server, pytest.raises(BackendError, match="is spent"):
        ask(path, endpoint(server, max_inflight=2), spending=Spending(10_000.0, 0.0, budget=7.0))
    assert [request.answered for request in server.requests] == [True] * len(server.requests)
    assert len(server.requests) == 7
    assert sorted(request.text for request in server.requests) == sorted(
        request_of(record["key"], None).text for record in records(path)
    )


def test_each_process_of_a_launch_has_its_share_of_the_budget(tmp_path: Path) -> None:
    path, parrot = tmp_path / "texts.json", Parrot(tokens=1_000_000)
    with open_work(path, settings(), {}, lambda: recall_from(path)) as work:
        work.size = 3
        with pytest.raises(BackendError, match="budget of 6 is spent"):
            ask_all(work, KEYS, parrot, request_of, accept, Spending(1.0, 1.0, budget=6.0), "writing")
    assert len(parrot.heard) == 2


@pytest.mark.sockets
def test_the_key_is_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MADE_UP_KEY", "sk-made-up-0123")
    knobs = {"api_key_env": "MADE_UP_KEY", "max_inflight": 2}
    with faulty_server(lambda text, _number: "http_400" if text.endswith("3") else "answer") as server:
        ask(tmp_path / "texts.json", EndpointTeacher(settings(base_url=server.address, **knobs)), **knobs)
    assert server.requests[0].headers["authorization"] == "Bearer sk-made-up-0123"
    files = [entry for entry in tmp_path.rglob("*") if entry.is_file()]
    assert {entry.name for entry in files} == {"texts.json", "texts.json.manifest.json"}
    assert not [entry for entry in files if b"sk-made-up" in entry.read_bytes()]


def endpoint(server: FaultyServer, **knobs: Any) -> EndpointTeacher:
    return EndpointTeacher(settings(base_url=server.address, api_key_env="NO_SUCH_KEY", **knobs))


def half_rude(text: str) -> str:
    """Every second text is rude at first; one in twelve stays so."""
    number = int(text.split(",")[0].split()[1])
    rude = number % 12 == 5 or (number % 2 and "mind" not in text)
    return f"rude {number}" if rude else f"polite {number}"


@pytest.mark.sockets
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_over_a_storm_each_key_has_exactly_one_record(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mllmrec.models.server.inflight.BACKOFF_SECONDS", 0.002)
    path, keys = tmp_path / "texts.json", [f"user-{number}" for number in range(120)]
    with faulty_server(storm(seed, 0.4), half_rude, retry_after=0.02) as server:
        ask(path, endpoint(server, timeout=2.0, max_inflight=16, max_retries=1), keys)
    manifest = manifest_of(path)
    rows, failures = list(read_list(path)), manifest.details["failures"]
    assert len(rows) + len(failures) == 120
    assert {row["key"] for row in rows} | failures.keys() == set(keys)
    assert [row["key"] for row in rows] == [key for key in keys if key not in failures]
    rude = {key for key, reason in failures.items() if reason == "is rude"}
    assert rude <= {f"user-{number}" for number in range(5, 120, 12)}
    assert len(failures) > len(rude) > 0
    answered = Counter(request.text for request in server.requests if request.answered)
    assert set(answered.values()) == {1}, "no answer was asked for twice"
    assert manifest.details["usage"]["calls"] == len(server.requests)
    lost = sum(request.behaviour not in VARIANTS for request in server.requests)
    assert manifest.details["usage"]["retries"] == lost - (len(failures) - len(rude))


CHILD = """
import sys
from pathlib import Path
import mllmrec.models.server.inflight
from test_asking import EndpointTeacher, ask, settings
mllmrec.models.server.inflight.BACKOFF_SECONDS = 0.002
knobs = dict(base_url=sys.argv[2], api_key_env="NO_SUCH_KEY", timeout=1.0, max_inflight=4, max_retries=9)
print("begun", flush=True)
ask(Path(sys.argv[1]), EndpointTeacher(settings(**knobs)), [f"user-{number}" for number in range(240)])
"""


def start(path: Path, server: FaultyServer) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here}:{SUPPORT}"}
    child = [sys.executable, "-c", CHILD, str(path), server.address]
    return subprocess.Popen(child, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.sockets
def test_ten_kills_cost_no_finished_call_and_leave_the_same_bytes(tmp_path: Path) -> None:
    draw = random.Random(20)
    whole, path = tmp_path / "whole.json", tmp_path / "texts.json"
    with faulty_server(answer=half_rude) as server, start(whole, server) as child:
        assert child.wait(timeout=60) == 0
    passing = [fault for fault in FAULTS if fault != "unfinished_think"]
    with faulty_server(storm(8, 0.2, passing), half_rude, seconds=0.05, retry_after=0.02) as server:
        for _ in range(10):
            recorded = {asked_text(record) for record in records(path)}
            before = len(server.requests)
            with start(path, server) as child:
                assert child.stdout is not None
                assert child.stdout.readline() == "begun\n"
                time.sleep(draw.uniform(0.1, 0.7))
                assert child.poll() is None, "it was killed at work"
                child.send_signal(signal.SIGKILL)
            assert not recorded & {request.text for request in server.requests[before:]}
        with start(path, server) as child:
            assert child.wait(timeout=60) == 0
    assert path.read_bytes() == whole.read_bytes()
    answered = Counter(request.text for request in server.requests if request.answered)
    assert len(answered) == 240 + 120, "every text, and every second one again"
    assert sum(answered.values()) - len(answered) <= 10 * 4, "only what was in flight is asked again"
    assert manifest_of(path).details["failures"] == manifest_of(whole).details["failures"]


def asked_text(record: Mapping[str, Any]) -> str:
    """The text of the request that a line of the log comes from: odd ones are asked again, whatever comes of that."""
    second = "again" not in record and int(record["key"].removeprefix("user-")) % 2
    return request_of(record["key"], "is rude" if second else None).text


@pytest.mark.slow
@pytest.mark.sockets
def test_an_interrupted_stage_keeps_all_that_came_back(tmp_path: Path) -> None:
    path = tmp_path / "texts.json"
    with faulty_server(seconds=0.1) as server:
        with start(path, server) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "begun\n"
            while len(server.requests) < 20:
                time.sleep(0.02)
            child.send_signal(signal.SIGINT)
            begun = time.monotonic()
            assert child.wait(timeout=10) == -signal.SIGINT
            assert time.monotonic() - begun < 3
        told = {request_of(record["key"], None).text for record in records(path)}
        answered = {request.text for request in server.requests if request.answered}
    assert told <= answered
    assert len(answered - told) <= 4, "those were still on their way"
    assert len(told) >= 12
