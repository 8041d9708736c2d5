"""mllmrec: a reasoning recommender from interaction sequences, titles and images, with numbers that can be checked.

The public face is small. Stages are functions `run(settings, workspace)`; each reads files of a
[`Workspace`][mllmrec.storage.workspace.Workspace] and writes files back, so everything can also be driven from Python:

>>> from mllmrec import Workspace
>>> Workspace("/tmp/example").dataset("movielens").split("train").name
'train.tsv'
"""

from mllmrec.errors import ArtifactError, BackendError, DataError, MllmrecError, SettingsError
from mllmrec.records import Item, Ranking, RankingExample
from mllmrec.storage.workspace import Workspace

__version__ = "0.1.0"

__all__ = [
    "ArtifactError",
    "BackendError",
    "DataError",
    "Item",
    "MllmrecError",
    "Ranking",
    "RankingExample",
    "SettingsError",
    "Workspace",
    "__version__",
]
