"""Private names of other libraries: they are as they were tried, only where they are listed, and named when gone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.metadata import requires, version
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_models import random_model

import mllmrec
from mllmrec.errors import BackendError
from mllmrec.models import private_names
from mllmrec.models.chat_templates import ChatTemplate
from mllmrec.models.positions import is_recurrent
from mllmrec.models.private_names import COMPILE_TEMPLATE, READ, REPLACED, PrivateName, read, replaceable

PACKAGE = Path(mllmrec.__file__).parent
LIBRARIES = {"torch", "transformers", "trl", "peft", "datasets", "accelerate", "tokenizers", "safetensors"}


@pytest.mark.parametrize("name", [*READ, *REPLACED], ids=str)
def test_the_installed_library_has_it_as_it_was_tried(name: PrivateName) -> None:
    """Fails when an update of a library renames it, changes its parameters, or hasn't been tried yet."""
    assert callable(read(name)) is (name.parameters is not None)
    assert version(name.library).startswith(name.versions), f"try {name} with {name.library} {version(name.library)}"


@pytest.mark.parametrize("name", [*READ, *REPLACED], ids=str)
def test_the_versions_are_ones_that_may_be_installed(name: PrivateName) -> None:
    [needed] = [line for line in requires("mllmrec-r1") or () if re.match(rf"{name.library}\b(?!.*extra)", line)]
    lowest = re.search(r">=(\d+)\.(\d+)", needed)
    assert lowest is not None
    bound = (int(lowest[1]), int(lowest[2]))
    assert {tuple(map(int, beginning.split(".")[:2])) >= bound for beginning in name.versions} == {True}


@pytest.mark.parametrize("name", REPLACED, ids=str)
def test_what_has_changed_is_not_replaced(name: PrivateName, monkeypatch: pytest.MonkeyPatch) -> None:
    replaceable.cache_clear()
    assert replaceable(name)
    replaceable.cache_clear()
    monkeypatch.setattr(f"{name.module}.{name.path}", lambda something_else: something_else)
    assert not replaceable(name)
    replaceable.cache_clear()


def test_a_name_that_takes_something_else_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{{ messages[0]['content'] }}"
    tokenizer = SimpleNamespace(
        name_or_path="m", chat_template=template, special_tokens_map={}, get_chat_template=lambda: template
    )
    monkeypatch.setattr(f"{COMPILE_TEMPLATE.module}.{COMPILE_TEMPLATE.path}", lambda text, policy: (text, policy))
    monkeypatch.setattr(private_names, "version", lambda _library: "5.99.0")
    with pytest.raises(
        BackendError,
        match=r"transformers 5\.99\.0 has changed: transformers\.utils\.chat_template_utils\._compile_jinja_template "
        r"takes \(text, policy\) in place of \(chat_template\), and writing a chat template on a fixed day needs "
        r"it\. Expected transformers 5\.23\.x; install it: pip install 'transformers==5\.23\.\*'\.",
    ):
        ChatTemplate(tokenizer, thinking=False, today="2026-01-01")


def test_a_model_is_not_taken_for_one_without_a_state_when_nothing_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recurrent models would be scored wrongly, so that a missing sign is an error and not a no."""
    model = random_model()
    assert not is_recurrent(model)
    monkeypatch.delattr("transformers.PreTrainedModel._is_stateful")
    with pytest.raises(BackendError, match=r"_is_stateful is gone, and telling recurrent models from others needs it"):
        is_recurrent(model)


def private_uses(path: Path) -> Iterator[str]:
    """Private names imported from a library, and private attributes of what isn't the class's own."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARIES:
            yield from (alias.name for alias in node.names if alias.name.startswith("_"))
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            owner = ast.unparse(node.value)
            if owner.split(".")[0] not in {"self", "cls", "os"}:
                yield f"{owner}.{node.attr}"


def test_nothing_else_uses_a_private_name() -> None:
    rooms = [path for room in ("models", "training") for path in (PACKAGE / room).rglob("*.py")]
    assert len(rooms) > 20
    assert not {path.name: names for path in rooms if (names := list(private_uses(path)))}
