"""What a recommender of the whole catalogue may give a user: every item that isn't known of the user already."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mllmrec.data.sequences import Interactions
from mllmrec.records import RankingExample, Split


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """The items of the catalogue, and of each user what is known at a split and what was met before its target."""

    items: Sequence[str]
    known: Mapping[str, AbstractSet[str]]
    before: Mapping[str, AbstractSet[str]]

    @classmethod
    def of(cls, interactions: Interactions, split: Split) -> Shelf:
        parts = (interactions.train, interactions.valid) if split == "test" else (interactions.fit_lines(),)
        before: defaultdict[str, set[str]] = defaultdict(set)
        for lines in parts:
            for line in lines:
                before[line.user_id].update(line.items)
        return cls(items=interactions.pool(split), known=interactions.known(split), before=before)

    @cached_property
    def column(self) -> dict[str, int]:
        """Where each item stands among `items`."""
        return {item: index for index, item in enumerate(self.items)}

    def free(self, taken: Iterable[str]) -> NDArray[np.bool_]:
        """Which of `items` are left when some are taken; what is no item of the catalogue is passed over."""
        free_I = np.ones(len(self.items), dtype=bool)
        free_I[[self.column[item] for item in taken if item in self.column]] = False
        return free_I

    def taken(self, example: RankingExample, *, rerank: bool) -> set[str]:
        """What a retriever may not give: all that is known, and the target itself unless it is to be found."""
        known = {*self.known.get(example.user_id, ()), *example.history, example.target_id}
        met = example.target_id in example.history or example.target_id in self.before.get(example.user_id, ())
        return known - {example.target_id} if rerank and not met else known
