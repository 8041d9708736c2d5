"""Foreign templates are tried apart: what loops, fills memory or writes without end is refused in one paragraph."""

from __future__ import annotations

import os
import resource
import time

import pytest
from chat_families import byte_tokenizer

from mllmrec.errors import BackendError
from mllmrec.models import chat_templates as trial
from mllmrec.models.chat import Chat
from mllmrec.models.chat_templates import excess

TURNS = "{% for m in messages %}{{ m.content }}{% endfor %}"
LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
HOSTILE = {
    "a loop": (LOOP, "takes more than 1 seconds"),
    "a power": ("{% set x = 9 ** (9 ** 9) %}", "takes more than 1 seconds"),
    "a long text": ("{% set x = 'x' * 10 ** 10 %}", "needs more than 1 GB of memory"),
    "a wide field": ("{{ 'x'.center(10 ** 10) }}", "needs more than 1 GB of memory"),
    "doubling": (
        "{% set n = namespace(x='x') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "(needs more than 1 GB of memory|takes more than 1 seconds)",
    ),
    "much output": ("{{ 'x' * 2000000 }}", "writes more than 1,048,576 characters"),
    "a loop of answers": (
        "{% if messages | length > 1 %}" + LOOP + "{% endif %}",
        "takes more than 1 seconds",
    ),
}


@pytest.mark.parametrize(("template", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_template_is_refused(monkeypatch: pytest.MonkeyPatch, template: str, message: str) -> None:
    monkeypatch.setattr(trial, "MAX_SECONDS", 1.0)
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BackendError, match=f"{message} for a conversation of a turn or two.*chat_template.jinja"):
        Chat(byte_tokenizer(TURNS + template))
    assert time.monotonic() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_work_that_fails_is_left_to_who_does_it() -> None:
    assert excess(lambda: 1 // 0) == ""
    with pytest.raises(BackendError, match="can't write a conversation"):
        Chat(byte_tokenizer(TURNS + "{{ raise_exception('no') }}"))


def test_work_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the child changes stays in it, and none stays as a process."""
    changed: list[int] = []
    children: list[int] = []
    fork = os.fork

    def forked() -> int:
        children.append(fork())
        return children[-1]

    monkeypatch.setattr(os, "fork", forked)
    assert excess(lambda: changed.append(1) or 3) == ""
    assert changed == []
    (child,) = children
    with pytest.raises(ChildProcessError):
        os.waitpid(child, os.WNOHANG)
