"""The examples in docstrings run as they stand, those of every module of the package."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import mllmrec

PACKAGE = Path(mllmrec.__file__).parent
WITH_EXAMPLES = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>>" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_examples_in_docstrings(path: Path) -> None:
    name = path.relative_to(PACKAGE.parent).as_posix().removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted
    assert not results.failed


def test_every_room_has_examples() -> None:
    """Should the package move, an empty list of modules mustn't pass for one without faults."""
    rooms = {path.relative_to(PACKAGE).parts[0] for path in WITH_EXAMPLES}
    assert {"data", "evaluation", "reasoning", "settings", "training", "vision"} <= rooms
