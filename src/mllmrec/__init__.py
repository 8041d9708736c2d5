"""mllmrec: a reasoning recommender from interaction sequences, titles and images, with numbers that can be checked.

The public face is small. Stages are functions `run(settings, workspace)`; each reads files of a
[`Workspace`][mllmrec.storage.workspace.Workspace] and writes files back, so everything can also be driven from Python:

>>> from mllmrec import Workspace
>>> Workspace("/tmp/example").dataset("movielens").split("train").name
'train.tsv'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mllmrec.errors import ArtifactError, BackendError, DataError, MllmrecError, SettingsError
from mllmrec.records import Item, Ranking, RankingExample
from mllmrec.storage.workspace import Workspace

if TYPE_CHECKING:
    from mllmrec.serving.recommender import Recommender

__version__ = "0.1.0"

__all__ = [
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


def __getattr__(name: str) -> object:
    """`Recommender` is imported when it is first asked for: it brings the libraries of models along."""
    if name != "Recommender":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mllmrec.serving.recommender import Recommender

    return Recommender
