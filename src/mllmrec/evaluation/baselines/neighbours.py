"""Item kNN and text kNN: candidates similar to the items of a history, by their users or by their texts.

Item kNN takes the similarity of two items as the cosine of their columns of users, plain or weighted by TF-IDF or BM25,
of which only the `K` most similar ones of each item count; `implicit`, the library beneath RecTools, computes it. A
candidate's score is its similarity summed over the history, where an item counts `decay` times as much for every step
that it lies further back. Candidates similar to nothing in the history are ordered by popularity, beneath all others,
and items that training never met are beneath them.

Text kNN uses titles and captions as vectors and no interactions. A candidate's score is its cosine with the items of
the history, with the same decay; `captions` says whether captions join the titles. Texts could rank items that training
never met; as with every baseline they come last, so that rows of a table mean the same.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender
from implicit.utils import ParameterWarning
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix

from mllmrec.data.sequences import Line
from mllmrec.evaluation.baselines.base import CatalogueBaseline, Floats
from mllmrec.models.embedding import Embedder
from mllmrec.records import RankingExample
from mllmrec.storage.workspace import read_json, write_json

ARRAYS, ITEMS = "neighbours.safetensors", "items.json"
KINDS = {"cosine": CosineRecommender, "tfidf": TFIDFRecommender, "bm25": BM25Recommender}
UNSEEN = -1.0
"""The score of unseen items: beneath all similarities, and beneath mean cosines of texts, which are clipped to it."""


class ItemKnn(CatalogueBaseline):
    """Neighbours of the history's items, by who chose what."""

    name: ClassVar[str] = "itemknn"

    def __init__(self, kind: str = "cosine", K: int = 100, decay: float = 1.0) -> None:
        self.kind, self.K, self.decay = kind, K, decay
        self.items: dict[str, int] = {}

    def fit(self, lines: Sequence[Line]) -> Self:
        counts = Counter(item for line in lines for item in line.items)
        self.items = {item: index for index, item in enumerate(counts)}
        model = KINDS[self.kind](K=self.K, num_threads=1)
        with warnings.catch_warnings():
            # The library weights the matrix in another format and then warns of having to convert it back.
            warnings.simplefilter("ignore", ParameterWarning)
            model.fit(users_by_items(lines, self.items), show_progress=False)
        self._learned(model.similarity, np.array(list(counts.values()), dtype=float))
        return self

    def score_items(self, examples: Sequence[RankingExample], items: Sequence[str]) -> Floats:
        similar = np.asarray((self._weights(examples) @ self._similarity).toarray(), dtype=float)
        scores = np.where(similar == 0, self._among_strangers, similar)
        columns = np.array([self.items.get(item, -1) for item in items], dtype=int)
        chosen: Floats = np.where(columns < 0, UNSEEN, scores[:, columns])
        return chosen

    def save(self, folder: Path) -> None:
        matrix = self._similarity
        arrays = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "popularity": self._counts}
        save_file(arrays, folder / ARRAYS)
        write_json(folder / ITEMS, list(self.items), indent=None)

    def restore(self, folder: Path, lines: Sequence[Line]) -> Self:
        del lines
        self.items = {item: index for index, item in enumerate(read_json(folder / ITEMS))}
        kept = load_file(folder / ARRAYS)
        shape = (len(self.items), len(self.items))
        self._learned(csr_matrix((kept["data"], kept["indices"], kept["indptr"]), shape=shape), kept["popularity"])
        return self

    def _learned(self, similarity: Any, counts: NDArray[np.float64]) -> None:
        """`similarity` is (items, items); strangers score between UNSEEN and 0, the popular ones highest."""
        self._similarity, self._counts = similarity, counts
        self._among_strangers = UNSEEN + counts / (counts.max() + 1)

    def _weights(self, examples: Sequence[RankingExample]) -> Any:
        """A sparse matrix (histories, items): `decay` to the power of an item's distance from the history's end."""
        rows, columns, weights = [], [], []
        for row, example in enumerate(examples):
            for age, item in enumerate(reversed(example.history)):
                if item in self.items:
                    rows.append(row)
                    columns.append(self.items[item])
                    weights.append(self.decay**age)
        return csr_matrix((np.array(weights, dtype=float), (rows, columns)), shape=(len(examples), len(self.items)))


class TextKnn(CatalogueBaseline):
    """Neighbours of the history's items, by what is written about them."""

    name: ClassVar[str] = "textknn"

    def __init__(self, texts: Mapping[str, str], embedder: Embedder, decay: float = 1.0) -> None:
        self.texts, self.embedder, self.decay = texts, embedder, decay
        self.rows: dict[str, int] = {}

    def fit(self, lines: Sequence[Line]) -> Self:
        seen = dict.fromkeys(item for line in lines for item in line.items)
        self.rows = {item: row for row, item in enumerate(seen)}
        self._vectors = self.embedder.fit([self.texts.get(item, "") for item in seen])
        return self

    def score_items(self, examples: Sequence[RankingExample], items: Sequence[str]) -> Floats:
        closeness = self._profiles(examples) @ self._vectors.T
        scores = np.asarray(closeness.toarray() if hasattr(closeness, "toarray") else closeness, dtype=float)
        columns = np.array([self.rows.get(item, -1) for item in items], dtype=int)
        chosen: Floats = np.where(columns < 0, UNSEEN - 1e-6, np.maximum(scores, UNSEEN)[:, columns])
        return chosen

    def _profiles(self, examples: Sequence[RankingExample]) -> Floats:
        """A weighted mean of the history's vectors, so that scores of long and short histories have one scale."""
        rows, columns, weights = [], [], []
        for row, example in enumerate(examples):
            known = [(age, self.rows[item]) for age, item in enumerate(reversed(example.history)) if item in self.rows]
            whole = sum(self.decay**age for age, _ in known)
            for age, column in known:
                rows.append(row)
                columns.append(column)
                weights.append(self.decay**age / whole)
        shape = (len(examples), len(self.rows))
        profiles: Floats = csr_matrix((np.array(weights, dtype=float), (rows, columns)), shape=shape) @ self._vectors
        return profiles


def users_by_items(lines: Sequence[Line], items: dict[str, int]) -> Any:
    """How often each user chose each item, (users, items)."""
    users: dict[str, int] = {}
    pairs = [(users.setdefault(line.user_id, len(users)), items[item]) for line in lines for item in line.items]
    rows, columns = zip(*pairs, strict=True)
    return csr_matrix((np.ones(len(pairs)), (rows, columns)), shape=(len(users), len(items)))
