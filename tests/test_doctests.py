"""The examples in docstrings run as they stand. Modules that load torch have theirs run beside their own tests."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import mllmrec

PACKAGE = Path(mllmrec.__file__).parent
LIGHT = [
    path
    for path in sorted([*PACKAGE.glob("*.py"), *PACKAGE.glob("data/*.py"), *PACKAGE.glob("settings/*.py")])
    if ">>>" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_examples_in_docstrings(path: Path) -> None:
    name = path.relative_to(PACKAGE.parent).as_posix().removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted
    assert not results.failed


def test_the_public_functions_of_data_have_examples() -> None:
    names = {path.stem for path in LIGHT}
    assert {"draws", "sequences", "protocols", "prompts", "records"} <= names
