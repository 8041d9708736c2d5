"""A server under load and at its end: what is accepted is answered, and whoever doesn't wait holds up nobody."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from small_models import DATASET

from mllmrec import Recommender
from mllmrec.cli.main import main
from mllmrec.records import RankingExample
from mllmrec.serving.answers import Question, Scores
from mllmrec.serving.app import make_app
from mllmrec.serving.scoring import SharedScoring
from mllmrec.serving.server import listening
from mllmrec.settings.serving import ServeSettings
from mllmrec.storage.workspace import Workspace

PATIENCE = 120


class HeldModel:
    """A copy of a model that scores nothing until it is let go; `calls` holds the questions of each forward pass."""

    def __init__(self, recommender: Recommender) -> None:
        self.go, self.calls = threading.Event(), list[list[Question]]()
        self.model, score = copy.copy(recommender), recommender.score

        def held(questions: Sequence[Question]) -> list[Scores]:
            self.calls.append(list(questions))
            assert self.go.wait(PATIENCE)
            return score(questions)

        self.model.score = SharedScoring(held, score.most)


@contextlib.contextmanager
def live(model: Recommender, **options: Any) -> Iterator[httpx2.Client]:
    """A client of a server on a socket, whose model is there."""
    knobs = ServeSettings(dataset=DATASET, tag=(model.name,), **options)
    with listening("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(make_app(knobs, lambda: [model]), http="h11", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        limits = httpx2.Limits(max_connections=200)
        with httpx2.Client(base_url=address, timeout=PATIENCE, trust_env=False, limits=limits) as client:
            wait_until(lambda: client.get("/readyz").status_code == 200)
            yield client
        server.should_exit = True
        thread.join(PATIENCE)


def wait_until(condition: Any, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this never came true"
        time.sleep(0.02)


def question(example: RankingExample) -> dict[str, Any]:
    return {"history": example.history, "candidates": example.candidates}


def waiting(client: httpx2.Client) -> float:
    found = re.search(r"^mllmrec_waiting (\S+)$", client.get("/metrics").text, re.MULTILINE)
    assert found is not None
    return float(found[1])


@pytest.mark.sockets
def test_more_than_may_wait_are_told_to_come_again(recommender: Recommender, examples: list[RankingExample]) -> None:
    held = HeldModel(recommender)
    with live(held.model, max_waiting=3) as client, ThreadPoolExecutor(3) as pool:
        early = [pool.submit(client.post, "/v1/rank", json=question(example)) for example in examples[:3]]
        wait_until(lambda: waiting(client) == 3)
        late = client.post("/v1/rank", json=question(examples[3]))
        assert late.status_code == 429
        assert int(late.headers["retry-after"]) >= 1
        assert client.get("/v1/items").status_code == client.get("/healthz").status_code == 200
        held.go.set()
        assert [answer.result().status_code for answer in early] == [200] * 3
        wait_until(lambda: waiting(client) == 0)
        assert client.post("/v1/rank", json=question(examples[3])).status_code == 200


@pytest.mark.sockets
@pytest.mark.parametrize(("batching", "sizes"), [(True, [1, 3]), (False, [1, 1, 1, 1])])
def test_those_that_wait_share_a_pass_if_they_may(
    recommender: Recommender, examples: list[RankingExample], batching: bool, sizes: list[int]
) -> None:
    held = HeldModel(recommender)
    with live(held.model, batching=batching) as client, ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(client.post, "/v1/rank", json=question(example)) for example in examples[:4]]
        wait_until(lambda: waiting(client) == 4)
        held.go.set()
        for example, answer in zip(examples, answers, strict=False):
            items = answer.result().json()["items"]
            assert [item["item_id"] for item in items] == [
                item.item_id for item in recommender.rank(example.history, example.candidates)
            ]
    assert [len(call) for call in held.calls] == sizes


@pytest.mark.sockets
def test_after_the_deadline_a_question_leaves_the_line(
    recommender: Recommender, examples: list[RankingExample]
) -> None:
    held = HeldModel(recommender)
    with live(held.model, deadline=0.5) as client, ThreadPoolExecutor(2) as pool:
        answers = [*pool.map(lambda own: client.post("/v1/rank", json=question(own)), examples[:2])]
        assert [answer.status_code for answer in answers] == [504, 504]
        assert "No answer within 0.5 s" in answers[0].json()["detail"]
        held.go.set()
        wait_until(lambda: waiting(client) == 0)
    assert len(held.calls) == 1


@pytest.mark.sockets
def test_a_client_that_left_is_not_answered(recommender: Recommender, examples: list[RankingExample]) -> None:
    held = HeldModel(recommender)
    with live(held.model) as client, ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.post, "/v1/rank", json=question(examples[0]))
        wait_until(lambda: held.calls)
        with contextlib.suppress(httpx2.TimeoutException):
            httpx2.post(f"{client.base_url}/v1/rank", json=question(examples[1]), timeout=0.5, trust_env=False)
        wait_until(lambda: 'mllmrec_requests_total{route="/v1/rank",status="499"} 1.0' in client.get("/metrics").text)
        held.go.set()
        assert first.result().status_code == 200
        wait_until(lambda: waiting(client) == 0)
    assert [len(call) for call in held.calls] == [1]


@pytest.mark.sockets
def test_a_slow_client_is_given_up(recommender: Recommender, examples: list[RankingExample]) -> None:
    with live(recommender, deadline=1) as client:
        assert client.base_url.port is not None
        with socket.create_connection(("127.0.0.1", client.base_url.port), timeout=PATIENCE) as slow:
            slow.sendall(
                b"POST /v1/rank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{"
            )
            assert client.post("/v1/rank", json=question(examples[0])).status_code == 200
            assert slow.recv(100).startswith(b"HTTP/1.1 408")


def run_cli(words: Sequence[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["serve", *words])
    return int(ended.value.code or 0)


def test_other_machines_need_a_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLLMREC_API_KEY", raising=False)
    words = ["--root", str(tmp_path), "--dataset", "shop", "--tag", "gone", "--port", "0"]
    assert run_cli([*words, "--host", "0.0.0.0"]) == 2
    assert "MLLMREC_API_KEY holds no key" in capsys.readouterr().err
    assert run_cli([*words, "--host", "no.such.host.invalid", "--insecure"]) == 2
    assert "Nothing can listen on no.such.host.invalid" in capsys.readouterr().err
    assert run_cli(["--dataset", "shop"]) == 2
    assert "--tag is required" in capsys.readouterr().err
    assert run_cli([*words, "--tag", "gone"]) == 2


def test_without_its_libraries_the_command_to_install_them_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "uvicorn" else find(name, *more)
    )
    assert run_cli(["--dataset", "shop", "--tag", "gone"]) == 2
    assert "needs uvicorn. Install it with: pip install -c requirements.lock -e '.[serve]'" in capsys.readouterr().err


@contextlib.contextmanager
def process(folder: Path, words: Sequence[str]) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`mllmrec serve` in a process of its own, and its address."""
    command = [sys.executable, "-m", "mllmrec", "serve", "--port", "0", *words]
    env = {name: value for name, value in os.environ.items() if name != "MLLMREC_API_KEY"}
    told = folder / "told.txt"
    with told.open("wb") as file, subprocess.Popen(command, stderr=file, env=env) as server:
        try:
            wait_until(lambda: re.search(r"http://\S+", told.read_text()))
            yield server, re.findall(r"http://\S+", told.read_text())[0]
        finally:
            server.kill()


@pytest.mark.slow
def test_what_was_accepted_is_answered_before_the_end(
    trained: Workspace, examples: list[RankingExample], tmp_path: Path
) -> None:
    own = [{"id": f"own{number}", "title": f"A thing of mine {number}"} for number in range(150)]
    words = ["--root", str(trained.root), "--dataset", DATASET, "--tag", "grpo", "--device", "cpu"]
    with process(tmp_path, [*words, "--retriever", "markov"]) as (server, address), ThreadPoolExecutor(12) as pool:
        client = httpx2.Client(base_url=address, timeout=PATIENCE, trust_env=False)
        wait_until(lambda: client.get("/readyz").status_code == 200)
        assert client.get("/readyz", headers={"Host": "elsewhere.example"}).status_code == 421
        bodies = [{"history": example.history, "candidates": own} for example in examples[:12]]
        answers = [pool.submit(client.post, "/v1/rank", json=body) for body in bodies]
        wait_until(lambda: waiting(client) >= 8)
        server.send_signal(signal.SIGTERM)
        found = []
        for answer in answers:
            with contextlib.suppress(httpx2.ConnectError):
                found.append(answer.result())
        assert len(found) >= 8
        assert {answer.status_code for answer in found} == {200}
        assert {len(answer.json()["items"]) for answer in found} == {150}
        assert server.wait(PATIENCE) == 0
        client.close()


@pytest.mark.slow
def test_a_missing_checkpoint_is_told_until_ctrl_c(trained: Workspace, tmp_path: Path) -> None:
    words = ["--root", str(trained.root), "--dataset", DATASET, "--tag", "gone"]
    with process(tmp_path, words) as (server, address):
        wait_until(lambda: "checkpoint gone" in httpx2.get(f"{address}/readyz", trust_env=False).text)
        assert httpx2.get(f"{address}/readyz", trust_env=False).status_code == 503
        assert httpx2.get(f"{address}/healthz", trust_env=False).status_code == 200
        server.send_signal(signal.SIGINT)
        assert server.wait(PATIENCE) == 130


@pytest.mark.slow
def test_the_api_keeps_to_its_own_description(recommender: Recommender) -> None:
    import schemathesis
    from hypothesis import HealthCheck, given, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    kept = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]
    with live(recommender) as client:
        address = str(client.base_url)
        schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
        operations = [found.ok() for found in schema.get_all_operations()]
        assert {"/v1/rank", "/v1/items/{item_id}", "/rerank"} <= {operation.path for operation in operations}
        for operation in operations:

            @given(case=operation.as_strategy())
            @settings(max_examples=15, suppress_health_check=[*HealthCheck])
            def keeps(case: Any) -> None:
                case.call_and_validate(base_url=address, checks=kept)

            keeps()


def test_the_document_bears_examples(recommender: Recommender) -> None:
    document = make_app(ServeSettings(dataset=DATASET, tag=("grpo",)), lambda: [recommender]).openapi()
    candidates = document["components"]["schemas"]["RankBody"]["properties"]["candidates"]
    assert candidates["examples"]
    assert json.dumps(document)
