"""The endpoint teacher against a server on loopback that fails in every way it can."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from faulty_server import COMPLETION_TOKENS, FAULTS, PROMPT_TOKENS, VARIANTS, FaultyServer, faulty_server, script, storm

from mllmrec.errors import BackendError, SettingsError
from mllmrec.models.base import Picture, Reply, Request
from mllmrec.models.server.endpoint import EndpointTeacher
from mllmrec.settings.texts import TeacherSettings

pytestmark = pytest.mark.sockets
KEY = "sk-made-up-0123"
WORDS = {
    "hang": "timeout",
    "cut": "connection",
    "cut_body": "connection",
    "not_json": "invalid_json",
    "http_429_after": "http_429",
    "http_429_date": "http_429",
    "unfinished_think": "unfinished_thought",
    "only_field": "only_reasoning",
    "aborted": "finish_abort",
    "out_of_resource": "finish_insufficient_system_resource",
}
"""What a behaviour of the server is called in records, where that differs."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mllmrec.models.server.inflight.BACKOFF_SECONDS", 0.002)
    monkeypatch.setenv("MADE_UP_KEY", KEY)


def teacher(server: FaultyServer, **knobs: Any) -> EndpointTeacher:
    chosen = {"model": "writer", "base_url": server.address, "api_key_env": "MADE_UP_KEY", "timeout": 5.0, **knobs}
    return EndpointTeacher(TeacherSettings(dataset="toy", **chosen))


def requests(*names: str) -> list[Request]:
    return [Request(key=f"user-{name}", text=f"write about {name}") for name in names]


def collect(got: list[str], asked: Iterator[Reply]) -> None:
    """The names of the replies as they come, kept where an error ends them."""
    got.extend(reply.key.removeprefix("user-") for reply in asked)


def replies(server: FaultyServer, asked: Iterable[Request], **knobs: Any) -> dict[str, Reply]:
    """All replies by the last word of their key, each of which came once."""
    found = list(teacher(server, **knobs).answer(asked))
    assert len({reply.key for reply in found}) == len(found)
    return {reply.key.removeprefix("user-"): reply for reply in found}


def test_each_request_is_asked_and_answered_once() -> None:
    names = [str(number) for number in range(30)]
    with faulty_server() as server:
        found = replies(server, requests(*names))
    assert {name: reply.text for name, reply in found.items()} == {
        name: f"answer to write about {name}" for name in names
    }
    assert sorted(request.text for request in server.requests) == sorted(f"write about {name}" for name in names)
    for reply in found.values():
        usage = dict(reply.usage)
        assert 0 <= usage.pop("seconds") < 5
        assert usage == {"calls": 1, "prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS}


def test_only_text_pictures_and_sampling_leave_the_machine() -> None:
    shots = tuple(
        Picture(rgb=np.zeros((2, 2, 3), np.uint8), encoded=bytes([number]) * 40, media_type=kind)
        for number, kind in enumerate(("image/jpeg", "image/png"))
    )
    asked = [Request(key="user-4711", text="what is on them?", pictures=shots), Request(key="user-4712", text="plain")]
    with faulty_server() as server:
        replies(server, asked, temperature=0.1, max_new_tokens=64)
    first, second = sorted(server.requests, key=lambda request: -len(request.pictures))
    expected = {"model": "writer", "temperature": 0.1, "max_tokens": 64}
    assert second.body == {**expected, "messages": [{"role": "user", "content": "plain"}]}
    assert first.body.keys() == second.body.keys()
    (message,) = first.body["messages"]
    assert message["role"] == "user"
    assert [part["type"] for part in message["content"]] == ["text", "image_url", "text", "image_url", "text"]
    assert [part["text"] for part in message["content"][::2]] == ["Picture 1: ", "Picture 2: ", "what is on them?"]
    heads, data = zip(*(uri.split(",") for uri in first.pictures), strict=True)
    assert heads == ("data:image/jpeg;base64", "data:image/png;base64")
    assert [base64.b64decode(part) for part in data] == [shot.encoded for shot in shots]
    for request in server.requests:
        sent = json.dumps([request.body, {**request.headers, "authorization": ""}])
        assert "471" not in sent
        assert KEY not in sent
        assert request.headers["authorization"] == f"Bearer {KEY}"


def test_hidden_reasoning_in_all_its_forms_is_left_out() -> None:
    with faulty_server(script(**{variant: [variant] for variant in VARIANTS})) as server:
        found = replies(server, requests(*VARIANTS))
    assert {name: reply.text for name, reply in found.items()} == {
        name: f"answer to write about {name}" for name in VARIANTS
    }
    assert {name for name, reply in found.items() if "estimated_tokens" in reply.usage} == {"no_usage"}


@pytest.mark.parametrize(
    "fault",
    [
        *("http_408", "http_409", "http_429", "http_500", "http_503", "hang", "cut", "cut_body"),
        *("no_choices", "invalid_json", "not_json", "error_body", "empty", "aborted", "out_of_resource"),
    ],
)
def test_what_may_pass_is_asked_again_and_counted(fault: str) -> None:
    with faulty_server(script(a=[fault, fault])) as server:
        found = replies(server, requests("a"), timeout=0.3)
    assert found["a"].text == "answer to write about a"
    word = WORDS.get(fault, fault)
    usage = found["a"].usage
    assert (usage["calls"], usage["retries"], usage[f"retries_{word}"]) == (3, 2, 2)
    assert server.behaviours("write about a") == [fault, fault, "answer"]


def test_an_unfinished_thought_that_tokens_were_written_for_is_not_paid_again() -> None:
    with faulty_server(script(b=["unfinished_think"])) as server:
        found = replies(server, requests("a", "b"))
    assert (found["b"].text, found["b"].failure, found["b"].usage["calls"]) == (None, "unfinished_thought", 1)
    assert found["b"].usage["completion_tokens"] > 0


def test_an_answer_cut_to_the_end_is_a_failure_by_the_servers_own_word() -> None:
    with faulty_server(script(b=["aborted"] * 9)) as server:
        found = replies(server, requests("a", "b"), max_retries=2)
    assert (found["b"].text, found["b"].failure, found["b"].usage["calls"]) == (None, "finish_abort", 3)


def test_text_in_the_field_of_reasoning_alone_is_called_so(capsys: pytest.CaptureFixture[str]) -> None:
    with faulty_server(script(b=["only_field"])) as server:
        found = replies(server, requests("a", "b"), max_inflight=1)
    assert (found["b"].text, found["b"].failure, found["b"].usage["calls"]) == (None, "only_reasoning", 1)
    assert "all that was written is reasoning" in capsys.readouterr().err


def test_a_setting_that_every_request_is_refused_for_stops_the_stage(capsys: pytest.CaptureFixture[str]) -> None:
    names = [str(number) for number in range(100)]
    with faulty_server(lambda _text, _number: "http_400") as server, pytest.raises(BackendError, match="http_400"):
        replies(server, requests(*names), max_inflight=4)
    assert len(server.requests) <= 3 * 4, "and counts them as not asked"
    assert "http_400" in capsys.readouterr().err


def test_the_librarys_own_headers_of_an_account_go_to_no_other_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-made-up")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-made-up")
    with faulty_server() as server:
        replies(server, requests("a"))
    assert "made-up" not in json.dumps(server.requests[0].headers).replace(KEY, "")


@pytest.mark.parametrize("fault", ["http_400", "http_422", "http_403", "http_404", "truncated", "filtered"])
def test_what_cannot_pass_fails_its_request_alone_and_at_once(fault: str) -> None:
    with faulty_server(script(b=[fault])) as server:
        found = replies(server, requests("a", "b", "c"), max_inflight=1)
    assert (found["b"].text, found["b"].failure) == (None, fault)
    assert found["b"].usage["calls"] == 1
    assert {found["a"].failure, found["c"].failure} == {None}
    assert ("prompt_tokens" in found["b"].usage) == (fault in ("truncated", "filtered")), "what it cost is counted"


def test_retries_end() -> None:
    with faulty_server(script(b=["http_500", "empty", "http_503"] * 3)) as server:
        found = replies(server, requests("a", "b"), max_retries=2)
        assert found["b"].failure == "http_503"
        usage = found["b"].usage
        assert (usage["calls"], usage["retries"], usage["retries_http_500"], usage["retries_empty"]) == (3, 2, 1, 1)
        found = replies(server, requests("a", "b"), max_retries=0)
        assert (found["b"].failure, found["b"].usage["calls"]) == ("http_500", 1)


@pytest.mark.parametrize(("fault", "least"), [("http_429_after", 0.3), ("http_429_date", 0.5)])
def test_a_server_that_names_a_wait_gets_it(fault: str, least: float) -> None:
    retry_after = 0.3 if fault == "http_429_after" else 1.6
    with faulty_server(script(a=[fault]), retry_after=retry_after) as server:
        assert replies(server, requests("a"))["a"].failure is None
    first, second = (request.began for request in server.requests)
    assert least <= second - first < 2.5


def test_calls_in_flight_are_bounded_and_requests_drawn_as_they_are_taken_up() -> None:
    drawn: list[int] = []

    def drawing() -> Iterator[Request]:
        for number in range(40):
            drawn.append(number)
            yield Request(key=str(number), text=f"number {number}")

    passing = [fault for fault in FAULTS if fault != "hang"]
    with faulty_server(storm(4, 0.3, passing), seconds=0.02, retry_after=0.02) as server:
        for done, _ in enumerate(teacher(server, max_inflight=5).answer(drawing())):
            assert len(drawn) <= done + 5
            time.sleep(0.005)
    assert server.peak == 5
    assert len({request.text for request in server.requests}) == 40


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_refusal_of_the_first_call_ends_all_without_telling_the_key(
    status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        faulty_server(lambda _text, _number: f"http_{status}") as server,
        pytest.raises(
            BackendError, match=rf"status {status}: no luck .* variable MADE_UP_KEY\. .* what is done"
        ) as caught,
    ):
        list(teacher(server, max_inflight=2).answer(requests(*map(str, range(50)))))
    assert len(server.requests) <= 4
    assert KEY not in str(caught.value)
    assert "Bearer [key]" in str(caught.value)
    assert KEY not in "".join(capsys.readouterr())


@pytest.mark.parametrize("fault", ["http_401", "no_credit"])
def test_a_lost_key_or_credit_ends_all_at_any_time(fault: str) -> None:
    got: list[str] = []
    with faulty_server(script(c=[fault] * 9)) as server, pytest.raises(BackendError, match="valid key with credit"):
        collect(got, teacher(server, max_inflight=1).answer(requests("a", "b", "c", "d")))
    assert got == ["a", "b"]
    assert len(server.requests) == 3


def test_a_server_that_is_not_there_is_told_and_nothing_counts_as_asked() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        nobody = FaultyServer(lambda _text, _number: "", str, address=f"http://127.0.0.1:{bound.getsockname()[1]}/v1")
        got = []
        with pytest.raises(
            BackendError, match=r"doesn't answer: the last 3 requests .* connection \(3\)\..*--base-url"
        ):
            got = replies(nobody, requests("a", "b", "c"), max_retries=1)
    assert got == []


def test_a_server_that_stops_answering_ends_all_and_the_unanswered_count_as_not_asked() -> None:
    got: list[str] = []
    with (
        faulty_server(lambda text, _number: "answer" if int(text.split()[-1]) < 6 else "http_503") as server,
        pytest.raises(BackendError, match=r"the last 5 requests failed after all retries: http_503 \(5\)\. .*no luck"),
    ):
        collect(got, teacher(server, max_inflight=2, max_retries=1).answer(requests(*map(str, range(100)))))
    assert sorted(got) == [str(number) for number in range(6)]
    assert len(server.requests) < 6 + 2 * 9


def test_failures_between_answers_are_records() -> None:
    names = [str(number) for number in range(24)]
    with faulty_server(lambda text, _number: "answer" if int(text.split()[-1]) % 4 == 3 else "http_500") as server:
        found = replies(server, requests(*names), max_inflight=2, max_retries=0)
    assert Counter(reply.failure for reply in found.values()) == {"http_500": 18, None: 6}


def test_a_model_that_wants_the_other_name_of_the_limit_gets_it() -> None:
    with faulty_server(script(a=["limit_refused"])) as server:
        found = replies(server, requests("a", "b"), max_inflight=1, max_new_tokens=64)
    assert {reply.failure for reply in found.values()} == {None}
    limits = [{name: value for name, value in request.body.items() if value == 64} for request in server.requests]
    assert limits == [{"max_tokens": 64}, {"max_completion_tokens": 64}, {"max_completion_tokens": 64}]


@pytest.mark.parametrize("behaviour", ["limit_refused", "limit_refused_in_words", "limit_refused_with_200"])
def test_a_limit_that_goes_by_another_name_is_read_from_parameter_or_words(behaviour: str) -> None:
    with faulty_server(script(a=[behaviour])) as server:
        found = replies(server, requests("a", "b"), max_inflight=1, max_new_tokens=64, max_retries=0)
    assert {reply.failure for reply in found.values()} == {None}
    assert ["max_tokens" in request.body for request in server.requests] == [True, False, False]


def test_a_temperature_that_the_server_refuses_is_named_with_its_flag_at_once() -> None:
    with (
        faulty_server(lambda _text, _number: "temperature_refused") as server,
        pytest.raises(
            BackendError, match=r"refuses the request .* status 400.*refuses --temperature 0\.3 .*temperature 1"
        ),
    ):
        replies(server, requests(*map(str, range(20))), max_inflight=1, temperature=0.3)
    assert len(server.requests) == 1


def test_a_server_that_takes_no_temperature_gets_none_where_that_is_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with faulty_server(script(a=["temperature_refused"])) as server:
        found = replies(server, requests("a", "b"), max_inflight=1, temperature=1.0)
    assert {reply.failure for reply in found.values()} == {None}
    assert ["temperature" in request.body for request in server.requests] == [True, False, False]
    assert capsys.readouterr().err.count("the server takes no temperature") == 1


def test_a_limit_beyond_what_the_server_allows_is_named_with_its_flag() -> None:
    with (
        faulty_server(lambda _text, _number: "limit_too_large") as server,
        pytest.raises(BackendError, match=r"--max-new-tokens 64: give the number that it allows"),
    ):
        replies(server, requests("a", "b"), max_new_tokens=64)


def test_a_prompt_beyond_the_context_fails_alone_and_all_of_them_end_the_stage() -> None:
    with faulty_server(script(b=["context_refused"])) as server:
        found = replies(server, requests("a", "b", "c"), max_inflight=1)
    assert {name: reply.failure for name, reply in found.items()} == {"a": None, "b": "context_length", "c": None}
    with (
        faulty_server(lambda _text, _number: "context_refused") as server,
        pytest.raises(
            BackendError, match=r"refuses every request: .* context_length \(3\)\..*lower --max-new-tokens"
        ) as caught,
    ):
        replies(server, requests(*map(str, range(20))), max_inflight=1)
    assert "doesn't answer" not in str(caught.value)


def test_a_redirect_to_another_origin_ends_the_stage_before_anything_goes_there() -> None:
    with faulty_server() as elsewhere, faulty_server(lambda _text, _number: "moved") as server:
        server.moved_to = f"{elsewhere.address}/chat/completions?token=sk-there-0123456789"
        with pytest.raises(
            BackendError, match=r"sends requests on to http://127\.0\.0\.1:\d+/v1/chat.* \(status 307\)"
        ) as caught:
            replies(server, requests("a", "b"))
    assert elsewhere.requests == []
    assert "0123456789" not in str(caught.value)


def test_a_redirect_within_the_origin_is_followed() -> None:
    with faulty_server(script(a=["moved"])) as server:
        server.moved_to = "/v1/elsewhere"
        found = replies(server, requests("a"))
    assert found["a"].text == "answer to write about a"
    assert server.requests[0].body == server.requests[1].body


def test_a_key_that_a_server_echoes_is_stored_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    query_key = "sk-query-9876543210"
    answer = f"a kettle {KEY} and {query_key}"
    behaviours = script(b=["http_400"], c=[f"finish_{KEY}"] * 2)
    with faulty_server(behaviours, lambda _text: answer) as server:
        address = f"{server.address}?key={query_key}"
        found = replies(server, requests("a", "b", "c"), base_url=address, max_inflight=1, max_retries=0)
    assert found["a"].text == "a kettle [key] and [key]"
    assert found["c"].failure == "finish__key_"
    assert [request.target for request in server.requests] == [f"/v1/chat/completions?key={query_key}"] * 3
    shown = str(found) + "".join(capsys.readouterr())
    assert KEY not in shown
    assert query_key not in shown


def test_a_placeholder_for_a_key_garbles_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MADE_UP_KEY", "k")
    with faulty_server(lambda _text, _number: "http_401") as server, pytest.raises(BackendError) as caught:
        replies(server, requests("a"))
    assert "no luck with 401 for Bearer [key]" in str(caught.value)
    assert str(caught.value).count("[key]") == 1


def test_each_kind_of_failure_is_told_once_in_the_words_of_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    with faulty_server(lambda text, _number: "answer" if text.endswith("a") else "http_400") as server:
        replies(server, requests("a", "b", "c", "d"), max_inflight=1)
    told = capsys.readouterr().err.splitlines()
    assert told == ["writer: a request failed (http_400). The last words were: no luck with 400 for Bearer [key]."]


def test_a_name_of_a_model_is_needed() -> None:
    with pytest.raises(SettingsError, match="--model"):
        EndpointTeacher(TeacherSettings(dataset="toy", base_url="http://127.0.0.1:1/v1"))


@pytest.mark.parametrize(
    ("seed", "count"), [(0, 120), *(pytest.param(seed, 600, marks=pytest.mark.slow) for seed in (1, 2, 3))]
)
def test_in_a_storm_nothing_is_lost_or_doubled(seed: int, count: int) -> None:
    names = [str(number) for number in range(count)]
    with faulty_server(storm(seed, 0.5), retry_after=0.02) as server:
        found = replies(server, requests(*names), timeout=2.5, max_inflight=24, max_retries=2)
    assert found.keys() == set(names)
    seen: dict[str, list[str]] = {name: server.behaviours(f"write about {name}") for name in names}
    retried: Counter[str] = Counter()
    for name, reply in found.items():
        *before, last = [WORDS.get(behaviour, behaviour) for behaviour in seen[name]]
        if last in VARIANTS:
            assert reply.text == f"answer to write about {name}"
        else:
            assert (reply.text, reply.failure) == (None, last)
            assert len(before) == 2 or seen[name][-1] == "unfinished_think", (
                "what was written at a price isn't paid twice"
            )
        assert server.times_answered(f"write about {name}") == (last in VARIANTS)
        assert reply.usage["calls"] == len(seen[name])
        retried.update(before)
    assert {reply.failure for reply in found.values()} > {None}
    total: Counter[str] = sum((Counter(reply.usage) for reply in found.values()), Counter())
    assert {name: count for name, count in total.items() if name.startswith("retries_")} == {
        f"retries_{word}": count for word, count in retried.items()
    }


def test_an_interrupt_comes_after_what_came_back_and_at_once() -> None:
    got: list[str] = []

    def interrupted(server: FaultyServer, asked: Iterator[Reply]) -> Iterator[Reply]:
        """The replies, with Ctrl-C behind the first one, when all that will be answered has come back."""
        yield next(asked)
        while sum(request.answered for request in server.requests) < 4:
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)
        yield from asked

    with faulty_server(lambda text, _number: "hang" if text.endswith("h") else "answer") as server:
        asked = teacher(server, max_inflight=8).answer(requests(*"abcd", *("1h", "2h", "3h", "4h", "5h")))
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            collect(got, interrupted(server, asked))
        assert time.monotonic() - begun < 3
    assert sorted(got) == ["a", "b", "c", "d"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_iterator_that_is_dropped_cuts_its_calls() -> None:
    with faulty_server(lambda text, _number: "hang" if text.endswith("h") else "answer") as server:
        iterator = teacher(server, max_inflight=4).answer(requests("a", "1h", "2h", "3h"))
        assert next(iterator).key == "user-a"
        begun = time.monotonic()
        iterator.close()
        assert time.monotonic() - begun < 1
        assert list(iterator) == []
