"""Modality consistency: does a trace speak of its own user's images, or could it be anybody's?

The trace is compared with its own history and with fifty histories of other users of the train split, drawn by hash.
An item's vector encodes its caption, or its title where it has none; a history's vector is the sum of its items'. The
score is the share of the fifty whose cosine with the trace is lower than that of its own history, ties counting half:

    score = 1 - (higher + ties / 2) / 50

It is 1 when the own history comes first, and 0.5 in expectation for a text that fits all histories alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mllmrec.data.draws import generator, uniform
from mllmrec.data.sequences import Interactions
from mllmrec.models.embedding import Embedder
from mllmrec.records import Trace

NUM_OTHERS, LARGEST_POOL = 50, 10_000
DECIMALS = 9

Floats = NDArray[np.float64]


class Modality(NamedTuple):
    """`score` in [0, 1]; `margin` is own cosine minus the mean of the others, in their standard deviations."""

    score: float
    margin: float


class Pool(NamedTuple):
    """The histories to compare with.

    `item_rows` (histories, length) indexes the item space, padded with the row of no item; `norms` (histories,) are the
    norms of the histories' vectors; `of_user` maps a user id to the indices of that user's histories.
    """

    item_rows: NDArray[np.intp]
    norms: Floats
    of_user: Mapping[str, frozenset[int]]


class ModalityJudge:
    """Ranks the own history of each trace among drawn ones."""

    def __init__(self, interactions: Interactions, captions: Mapping[str, str], embedder: Embedder, seed: int) -> None:
        seen = (item for line in interactions.train for item in line.items)
        items = dict.fromkeys((*interactions.catalogue, *seen))
        texts = {item: captions.get(item) or interactions.catalogue.title(item) for item in items}
        self._space, self._seed, self._pools = ItemSpace(texts, embedder), seed, dict[int, Pool]()
        lines = {(line.user_id, line.items) for line in interactions.training_lines()}
        self._lines = sorted(lines, key=lambda line: uniform(seed, "modality/pool", f"{line[0]} {' '.join(line[1])}"))

    def judge(self, traces: Sequence[Trace]) -> list[Modality]:
        """A score for each trace; it doesn't depend on the other traces."""
        groups = [[self._space.rows[item] for item in trace.history] for trace in traces]
        norms = self._space.norms(groups)
        # The last column is that of no item.
        closeness = np.pad(self._space.closeness([trace.reasoning for trace in traces]), ((0, 0), (0, 1)))
        return [
            self._ranked(trace, closeness[at], np.array([groups[at]]), norms[at : at + 1])
            for at, trace in enumerate(traces)
        ]

    def _ranked(self, trace: Trace, cosines: Floats, rows: NDArray[np.intp], norm: Floats) -> Modality:
        pool = self._pool(len(trace.history))
        drawn = self._others(trace, pool)
        if not drawn:
            return Modality(0.5, 0.0)
        own = _closeness(cosines, rows, norm)[0]
        others = _closeness(cosines, pool.item_rows[drawn], pool.norms[drawn])
        higher, ties, spread = int((others > own).sum()), int((others == own).sum()), float(others.std())
        margin = float(own - others.mean()) / spread if spread else 0.0
        return Modality(round(1 - (higher + ties / 2) / len(drawn), 4), round(margin, 3))

    def _others(self, trace: Trace, pool: Pool) -> list[int]:
        """Indices of the histories of other users that a trace is compared with."""
        mine: frozenset[int] = pool.of_user.get(trace.user_id, frozenset())
        rng, number = generator(self._seed, "modality", trace.example_id), len(pool.item_rows)
        drawn = rng.sample(range(number), min(number, NUM_OTHERS + len(mine)))
        return [at for at in drawn if at not in mine][:NUM_OTHERS]

    def _pool(self, length: int) -> Pool:
        """The last `length` items before the target of each training line."""
        if length not in self._pools:
            lines = [(user, items[-length - 1 : -1]) for user, items in self._lines if len(items) > 1][:LARGEST_POOL]
            groups = [[self._space.rows[item] for item in items] for _, items in lines]
            padded = [[*rows, *[len(self._space.rows)] * (length - len(rows))] for rows in groups]
            of_user = defaultdict[str, set[int]](set)
            for at, (user, _) in enumerate(lines):
                of_user[user].add(at)
            self._pools[length] = Pool(
                item_rows=np.array(padded, dtype=np.intp).reshape(len(lines), length),
                norms=self._space.norms(groups),
                of_user={user: frozenset(indices) for user, indices in of_user.items()},
            )
        return self._pools[length]


class ItemSpace:
    """The texts of items as unit vectors; `rows` maps an item id to its row of `vectors`."""

    def __init__(self, texts: Mapping[str, str], embedder: Embedder) -> None:
        self.rows = {item: row for row, item in enumerate(texts)}
        self.embedder = embedder
        self.vectors = embedder.fit(list(texts.values()))

    def closeness(self, texts: Sequence[str]) -> Floats:
        """The cosine of each text with each item (texts, items); 0 where either has no word of the vocabulary."""
        return _dense(self.embedder.encode(texts) @ self.vectors.T)

    def norms(self, groups: Sequence[Sequence[int]]) -> Floats:
        """The norm of the sum of each group's vectors (groups,), by which the group's summed cosines are divided."""
        sums = _indicator(groups, len(self.rows)) @ self.vectors
        squares = sums.multiply(sums) if hasattr(sums, "multiply") else np.square(sums)
        norms: Floats = np.sqrt(np.asarray(squares.sum(axis=1), dtype=float).ravel())
        return norms


def _closeness(cosines: Floats, rows: NDArray[np.intp], norms: Floats) -> Floats:
    """The cosine of a trace with each history (histories,); rounded, so that equal histories tie exactly."""
    closeness = np.divide(cosines[rows].sum(axis=1), norms, out=np.zeros(len(rows)), where=norms > 0)
    return np.round(closeness, DECIMALS)


def _indicator(groups: Sequence[Sequence[int]], width: int) -> Any:
    """Sparse counts (groups, width) of each group's members."""
    from scipy.sparse import csr_matrix

    columns = [column for group in groups for column in group]
    rows = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    return csr_matrix((np.ones(len(columns)), (rows, columns)), shape=(len(groups), width))


def _dense(product: Any) -> Floats:
    return np.asarray(product.toarray() if hasattr(product, "toarray") else product, dtype=float)
