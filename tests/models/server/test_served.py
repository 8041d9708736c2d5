"""The endpoint teacher against a real server, `transformers serve`, with small models that know their lessons."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from model_server import model_server
from small_vision_models import ASK, COLOURS, ENDLESS, LESSONS, NUMBERS, SECOND, SILENCE, picture

from mllmrec.models.base import Reply, Request, Teacher
from mllmrec.models.teachers import open_teacher
from mllmrec.settings.texts import TeacherSettings
from mllmrec.storage.workspace import Workspace

pytestmark = pytest.mark.slow
HERE = Workspace("/nowhere")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that doesn't let models think."""
    with model_server(tmp_path_factory.mktemp("server") / "log.txt", "--reasoning", "off") as found:
        yield found


@pytest.fixture(scope="module")
def thinking_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with model_server(tmp_path_factory.mktemp("server") / "log.txt", "--reasoning", "on") as found:
        yield found


def served(address: str, folder: Path | str, **knobs: Any) -> Teacher:
    quick: dict[str, Any] = {"backend": "endpoint", "max_new_tokens": 32, "max_inflight": 4, "max_retries": 0}
    settings = TeacherSettings(dataset="d", model=str(folder), base_url=address, **(quick | knobs))
    return open_teacher(settings, HERE, vision=True)


def local(folder: Path, **knobs: Any) -> Teacher:
    quick: dict[str, Any] = {"backend": "huggingface", "max_new_tokens": 32, "device": "cpu"}
    return open_teacher(TeacherSettings(dataset="d", model=str(folder), **(quick | knobs)), HERE, vision=False)


def by_key(teacher: Teacher, requests: list[Request]) -> dict[str, Reply]:
    replies = list(teacher.answer(requests))
    found = {reply.key: reply for reply in replies}
    assert len(found) == len(replies) == len(requests), "every request is answered once"
    return found


def test_a_text_model_refines_behind_a_server(address: str, text_model: Path) -> None:
    asked = [Request(key=text, text=text) for text in ("Who are you?", "Name two steps.", ENDLESS, SILENCE)]
    replies = by_key(served(address, text_model), asked)
    assert {key: reply.text for key, reply in replies.items()} == {
        "Who are you?": "A small model.",
        "Name two steps.": "Step 1: amber.\nStep 2: brass.",
        ENDLESS: NUMBERS,
        SILENCE: None,
    }
    assert replies[SILENCE].failure == "empty"


def test_the_server_counts_the_tokens_that_a_local_model_counts(address: str, text_model: Path) -> None:
    asked = [Request(key=text, text=text) for text in ("Who are you?", "Name two steps.")]
    here, there = by_key(local(text_model), asked), by_key(served(address, text_model), asked)
    for key, reply in here.items():
        assert there[key].text == reply.text
        for count in ("calls", "prompt_tokens", "completion_tokens"):
            assert there[key].usage[count] == reply.usage[count]


def test_an_answer_that_is_cut_is_a_failure(address: str, text_model: Path) -> None:
    replies = by_key(served(address, text_model, max_new_tokens=8), [Request(key="a", text=ENDLESS)])
    assert (replies["a"].text, replies["a"].failure) == (None, "truncated")


def test_hidden_reasoning_stays_behind_the_server(thinking_address: str, text_model: Path) -> None:
    asked = [Request(key=text, text=text) for text in ("Think first.", "Think alone.")]
    replies = by_key(served(thinking_address, text_model), asked)
    assert replies["Think first."].text == "The visible answer."
    assert (replies["Think alone."].text, replies["Think alone."].failure) == (None, "only_reasoning")
    assert LESSONS["Think first."] not in str(replies)


def test_a_vision_model_captions_behind_a_server_as_it_does_here(address: str, vision_model: Path) -> None:
    """The image travels as a data URI; the server reads, resizes and cuts it with the library's own processor."""
    asked = [
        Request(key=f"{colour} {row}", text=ASK, pictures=(picture(colour, 32 * row, 48, seed=row),))
        for row in (1, 2, 3)
        for colour in COLOURS
    ]
    asked += [
        Request(key="both", text=SECOND, pictures=(picture("red", 64, 32), picture("blue", 32, 64))),
        Request(key="both turned", text=SECOND, pictures=(picture("blue", 32, 64), picture("red", 64, 32))),
    ]
    there, here = by_key(served(address, vision_model), asked), by_key(local(vision_model), asked)
    assert {key: reply.text for key, reply in there.items()} == {
        **{request.key: f"The picture is {request.key.split()[0]}." for request in asked[:12]},
        "both": "The picture is blue.",
        "both turned": "The picture is red.",
    }
    for key, reply in here.items():
        assert there[key].text == reply.text
        assert there[key].usage["prompt_tokens"] == reply.usage["prompt_tokens"]


def test_a_model_that_the_server_cannot_load_fails_each_request(address: str) -> None:
    """This server says so with status 500, which might pass, so that the request is a failure and nothing ends."""
    replies = by_key(served(address, "no-such-owner/no-such-model"), [Request(key="a", text="x")])
    assert (replies["a"].text, replies["a"].failure) == (None, "http_500")
