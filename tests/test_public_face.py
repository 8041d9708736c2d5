"""What `import mllmrec` promises: a frozen set of names, exceptions that refine builtins, and nothing heavy."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

import mllmrec
from mllmrec import ArtifactError, BackendError, DataError, MllmrecError, SettingsError

HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "polars", "PIL", "matplotlib", "fastapi", "numpy")


def test_the_public_names_are_these() -> None:
    assert mllmrec.__all__ == [
        "ArtifactError",
        "BackendError",
        "DataError",
        "Item",
        "MllmrecError",
        "Ranking",
        "RankingExample",
        "Recommender",
        "SettingsError",
        "Workspace",
        "__version__",
    ]
    assert all(hasattr(mllmrec, name) for name in mllmrec.__all__)


def test_the_version_is_that_of_the_distribution() -> None:
    assert mllmrec.__version__ == importlib.metadata.version("mllmrec-r1")


@pytest.mark.parametrize(
    ("error", "builtin", "status"),
    [
        (DataError, ValueError, 2),
        (SettingsError, ValueError, 2),
        (ArtifactError, RuntimeError, 2),
        (BackendError, RuntimeError, 3),
    ],
)
def test_an_exception_is_ours_and_the_builtin_it_refines(
    error: type[MllmrecError], builtin: type[Exception], status: int
) -> None:
    assert issubclass(error, MllmrecError)
    assert issubclass(error, builtin)
    assert error.exit_status == status


@pytest.mark.parametrize(
    "code",
    [
        "import mllmrec",
        "import mllmrec.pipeline.recipe as r; [r.load_recipe(name) for name in r.shipped_recipes()]",
        "from mllmrec.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from mllmrec.cli.main import main\ntry: main(['evaluate', '--help'])\nexcept SystemExit: pass",
    ],
    ids=["import", "settings", "help", "help of a verb"],
)
def test_nothing_heavy_loads_before_a_stage_needs_it(code: str) -> None:
    told = f"{code}\nimport sys\nprint('loaded:', *sorted(set({HEAVY!r}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1].split() == ["loaded:"]
