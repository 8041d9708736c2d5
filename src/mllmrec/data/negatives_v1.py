"""Draw version 1, kept so that files and checkpoints made by it stay what they are.

One `random.Random` of an example draws its negatives from the pool in the order of the titles file, then shuffles the
list; so another order of rows draws other lists, which is why there is a version 2 (`negatives.py`).
"""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from mllmrec.data.draws import generator
from mllmrec.data.negatives import TRIES, Draw, check_enough

Sample = Callable[[random.Random, int, frozenset[str]], list[str]]


class FirstSampler:
    """Candidate lists as version 1 drew them: all items of `pool` alike, or in proportion to their `counts`."""

    version: ClassVar[int] = 1

    def __init__(self, pool: Sequence[str], counts: Mapping[str, int] | None = None) -> None:
        self._members = frozenset(pool)
        self._sample = _uniform(pool) if counts is None else _by_popularity(pool, counts)

    def listed(self, target: str, count: int, forbidden: frozenset[str], draw: Draw) -> list[str]:
        """The target among `count` negatives outside `forbidden`, in an order that tells nothing."""
        check_enough(count, self._members, forbidden)
        rng = generator(*draw)
        candidates = [target, *self._sample(rng, count, forbidden)]
        rng.shuffle(candidates)
        return candidates


def _uniform(pool: Sequence[str]) -> Sample:
    def sample(rng: random.Random, count: int, forbidden: frozenset[str]) -> list[str]:
        if len(pool) > 4 * (count + len(forbidden)):
            return _rejecting(lambda: pool[int(rng.random() * len(pool))], count, forbidden)
        return rng.sample([item for item in pool if item not in forbidden], count)

    return sample


def _by_popularity(pool: Sequence[str], counts: Mapping[str, int]) -> Sample:
    met = [item for item in pool if counts.get(item)]
    unmet = [item for item in pool if not counts.get(item)]
    members = frozenset(met)
    cumulative = list(itertools.accumulate(counts[item] for item in met))

    def sample(rng: random.Random, count: int, forbidden: frozenset[str]) -> list[str]:
        missing = count - (len(met) - len(members & forbidden))
        if missing >= 0:
            rest = rng.sample([item for item in unmet if item not in forbidden], missing)
            return [item for item in met if item not in forbidden] + rest

        def draw() -> str:
            return met[bisect.bisect(cumulative, rng.random() * cumulative[-1])]

        chosen = _rejecting(draw, count, forbidden, tries=TRIES * count)
        if len(chosen) < count:
            left = [item for item in met if item not in forbidden.union(chosen)]
            clocks = {item: rng.expovariate(counts[item]) for item in left}
            chosen += sorted(left, key=clocks.__getitem__)[: count - len(chosen)]
        return chosen

    return sample


def _rejecting(
    draw: Callable[[], str], count: int, forbidden: frozenset[str], tries: float = float("inf")
) -> list[str]:
    """`count` distinct draws outside `forbidden`; fewer where `tries` draws don't find as many."""
    accepted: dict[str, None] = {}
    while len(accepted) < count and tries > 0:
        tries -= 1
        item = draw()
        if item not in forbidden:
            accepted[item] = None
    return list(accepted)
