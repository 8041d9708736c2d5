"""Text kNN: what reads like the history. Titles and captions as vectors, and no interaction at all.

A candidate's score is its cosine with the items of the history, where an item counts `decay` times as much for every
place it lies further back; `captions` says whether captions join the titles. Texts could rank items that training never
met; as with every baseline they come last, so that rows of a table mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np

from mllmrec.backends.embedding import Embedder
from mllmrec.data.sequences import Line
from mllmrec.evaluation.baselines.base import CatalogueBaseline, Floats
from mllmrec.records import RankingExample

UNSEEN = -1.0
"""Beneath every weighted mean of cosines of texts; of a sentence model's too, which are clipped to it."""


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
        from scipy.sparse import csr_matrix

        rows, columns, weights = [], [], []
        for row, example in enumerate(examples):
            places = [
                (place, self.rows[item]) for place, item in enumerate(reversed(example.history)) if item in self.rows
            ]
            whole = sum(self.decay**place for place, _ in places)
            for place, column in places:
                rows.append(row)
                columns.append(column)
                weights.append(self.decay**place / whole)
        shape = (len(examples), len(self.rows))
        profiles: Floats = csr_matrix((np.array(weights, dtype=float), (rows, columns)), shape=shape) @ self._vectors
        return profiles
