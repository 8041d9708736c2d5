"""How close texts are: items as vectors, and the cosine of a trace with each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllmrec.backends.embedding import Embedder

Floats = NDArray[np.float64]


class ItemSpace:
    """The texts of items as vectors, one row an item."""

    def __init__(self, texts: Mapping[str, str], embedder: Embedder) -> None:
        self.rows = {item: row for row, item in enumerate(texts)}
        self.embedder = embedder
        self.vectors = embedder.fit(list(texts.values()))

    def closeness(self, texts: Sequence[str]) -> Floats:
        """The cosine of each text with each item (texts, items); 0 where either holds no known word."""
        return _dense(self.embedder.encode(texts) @ self.vectors.T)

    def lengths(self, groups: Sequence[Sequence[int]]) -> Floats:
        """The length of the sum of each group's vectors, by which the group's summed cosines are divided."""
        sums = _indicator(groups, len(self.rows)) @ self.vectors
        squares = sums.multiply(sums) if hasattr(sums, "multiply") else np.square(sums)
        lengths: Floats = np.sqrt(np.asarray(squares.sum(axis=1), dtype=float).ravel())
        return lengths


def _indicator(groups: Sequence[Sequence[int]], width: int) -> Any:
    """A sparse row for each group that counts its members."""
    from scipy.sparse import csr_matrix

    columns = [column for group in groups for column in group]
    rows = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    return csr_matrix((np.ones(len(columns)), (rows, columns)), shape=(len(groups), width))


def _dense(product: Any) -> Floats:
    return np.asarray(product.toarray() if hasattr(product, "toarray") else product, dtype=float)
