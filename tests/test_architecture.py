"""The house's rules, read from the source: floors, rooms of heavy libraries, budgets of size."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import mllmrec

PACKAGE = Path(mllmrec.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))

ROOMS = {
    **dict.fromkeys(("__init__", "errors", "records", "progress", "launch", "storage", "settings"), "ground"),
    **{
        room: room
        for room in (
            "data",
            "models",
            "evaluation",
            "vision",
            "reasoning",
            "training",
            "doctor",
            "pipeline",
            "demo",
            "serving",
        )
    },
    "stages": "stages",
    "cli": "cli",
    "__main__": "cli",
}
FLOORS = {
    "ground": 0,
    "data": 1,
    "models": 2,
    **dict.fromkeys(("evaluation", "vision", "reasoning"), 3),
    "training": 4,
    "stages": 5,
    "pipeline": 6,
    "serving": 6,
    **dict.fromkeys(("demo", "doctor"), 7),
    "cli": 8,
}
# Where each heavy library may be imported. The doctor tells which devices torch sees; adapters load in models.
HEAVY = {
    "torch": (
        "models/",
        "training/",
        "doctor/report.py",
        "launch.py",
        "evaluation/baselines/sequential.py",
    ),
    "transformers": ("models/", "training/"),
    "trl": ("training/", "models/small_qwen3.py"),
    "peft": ("training/", "models/"),
    "datasets": ("training/",),
    "polars": ("data/importers/",),
    "PIL": ("vision/", "demo/", "evaluation/reporting/"),
    "fastapi": ("serving/",),
    "starlette": ("serving/",),
    "uvicorn": ("serving/",),
    "prometheus_client": ("serving/",),
    "matplotlib": ("evaluation/reporting/", "reasoning/assessment/plots.py"),
    "openai": ("models/server/endpoint.py",),
    "rectools": ("evaluation/baselines/sequential.py",),
    "implicit": ("evaluation/baselines/neighbours.py",),
    "pandas": ("evaluation/baselines/sequential.py",),
    "jinja2": ("evaluation/reporting/",),
    "sentence_transformers": ("models/embedding.py",),
}
MODULE_LINES, FUNCTION_LINES = 400, 60


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(module: str) -> str:
    """The room of a dotted name inside the package: `data.importers.table` lies in data."""
    return ROOMS[module.split(".")[0] or "__init__"]


def dotted(path: Path) -> str:
    return relative(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import of a file, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}:{node.lineno}: imports name the whole package"
            yield node.lineno, node.module or ""
            if node.module == "mllmrec":
                yield from ((node.lineno, f"mllmrec.{alias.name}") for alias in node.names if alias.name in ROOMS)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def test_every_module_lies_in_a_known_room() -> None:
    unknown = [relative(path) for path in MODULES if dotted(path).split(".")[0] not in ROOMS]
    assert not unknown, f"name the room of {unknown} here and in the design"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_imports_its_own_room_and_lower_floors(path: Path) -> None:
    own = room_of(dotted(path))
    wrong = []
    for line, name in imports(path):
        if name.split(".")[0] != "mllmrec":
            continue
        other = room_of(name.partition(".")[2])
        if (relative(path), other) == ("__init__.py", "serving"):
            continue  # The package's face hands out Recommender, and imports it when it is asked for.
        if other != own and FLOORS[other] >= FLOORS[own]:
            wrong.append(f"{relative(path)}:{line} imports {name}: {own} may not know {other}")
    assert not wrong


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_heavy_libraries_stay_in_their_rooms(path: Path) -> None:
    wrong = [
        f"{relative(path)}:{line} imports {name}"
        for line, name in imports(path)
        if (allowed := HEAVY.get(name.split(".")[0])) and not relative(path).startswith(allowed)
    ]
    assert not wrong


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_sizes_keep_to_their_budgets(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MODULE_LINES, f"{relative(path)} has {lines} lines; split it by noun"
    long = [
        f"{relative(path)}:{node.lineno} {node.name} has {(node.end_lineno or 0) - node.lineno + 1} lines"
        for node in functions(path)
        if (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES
    ]
    assert not long


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_that_a_docstring_names_is_there(path: Path) -> None:
    named = set(re.findall(r"`(?!benchmarks/)([a-z0-9_/]+\.py)`", path.read_text(encoding="utf-8")))
    gone = [name for name in named if not any(f"/{relative(module)}".endswith(f"/{name}") for module in MODULES)]
    assert not gone


def test_the_init_of_a_room_holds_a_docstring_only() -> None:
    rooms = [path for path in MODULES if path.name == "__init__.py" and path.parent != PACKAGE]
    full = [relative(path) for path in rooms if len(ast.parse(path.read_text(encoding="utf-8")).body) != 1]
    assert not full


def test_nothing_is_called_utils() -> None:
    assert not [relative(path) for path in MODULES if {"utils", "util", "helpers", "common", "misc"} & {path.stem}]


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_no_mark_of_unfinished_or_silenced_work(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    words = ("TODO", "FIXME", "NotImplementedError", "type: ignore", "noqa")
    assert not [word for word in words if word in text]
