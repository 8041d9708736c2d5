"""However a stage keeps its unfinished work, what it finishes is to the byte what earlier versions finished."""

from __future__ import annotations

import pytest
from finished import KEPT, make_all

EXPECTED = {path.relative_to(KEPT).as_posix(): path for path in KEPT.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_all(tmp_path_factory.mktemp("finished"))


def test_the_same_files_are_made(made: dict[str, str]) -> None:
    assert sorted(made) == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_finished_artifact_keeps_its_bytes(made: dict[str, str], name: str) -> None:
    assert made[name] == EXPECTED[name].read_text(encoding="utf-8")
