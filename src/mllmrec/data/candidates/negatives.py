"""How negatives are chosen and lists are ordered: draw version 2, and version 1 for files made by it.

A draw of version 2 reads uniform numbers in [0, 1) from a counter-based generator, Philox4x64-10, and nothing else. Its
key is the first 16 bytes (big-endian) of sha256("<seed>\x1f<purpose>\x1f<example id>"); the high half of its counter is
the part of the draw, so that no part depends on how many numbers another one took. The pool is sorted by id. Any
program can therefore repeat a draw, for one example or for all, whatever the order of rows in any file.

    negatives   part 0: number u picks the item whose cumulated count first exceeds u x all counts (for uniform draws
                each item counts 1); items that are forbidden or already chosen are skipped
    lots        part 1: where few items are left to choose from, each gets a number u (for draws by popularity
                -log(1 - u) / count) and the smallest win
    order       part 2: target and negatives, in the order they were chosen, get a number each and are sorted by it

Version 1 (`FirstSampler`) runs one `random.Random` of an example over the pool in the order of the titles file, then
shuffles the list. Another order of rows draws other lists, which is why there is a version 2.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mllmrec.data.draws import generator
from mllmrec.errors import DataError

VERSION = 2
VERSIONS = (2, 1)
NEGATIVES, LOTS, ORDER = range(3)
ROOM = 4
"""A pool this many times larger than the items asked for and forbidden is drawn from by rejection, others by lot."""
TRIES = 50
"""Numbers for each negative after which lots replace rejection, which popularity can make slow."""
Floats = NDArray[np.float64]
Sample = Callable[[random.Random, int, frozenset[str]], list[str]]


class Draw(NamedTuple):
    """What a draw depends on."""

    seed: int
    purpose: str
    example_id: str

    def stream(self, part: int) -> np.random.Generator:
        """The numbers of one part of the draw.

        >>> Draw(42, "sft", "u1").stream(NEGATIVES).random() == Draw(42, "sft", "u1").stream(NEGATIVES).random()
        True
        """
        digest = hashlib.sha256("\x1f".join(map(str, self)).encode()).digest()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "big"), counter=part << 128))


class Sampler(Protocol):
    """Draws whole candidate lists; `version` says how."""

    version: ClassVar[int]

    def listed(self, target: str, count: int, forbidden: frozenset[str], draw: Draw) -> list[str]:
        """The target among `count` negatives outside `forbidden`, in random order; DataError where they are too few."""
        ...


class PoolSampler:
    """Chooses negatives from a pool, uniformly or in proportion to `counts`.

    Items without a count are chosen only where all others together are too few.
    """

    version: ClassVar[int] = VERSION

    def __init__(self, pool: Iterable[str], counts: Mapping[str, int] | None = None) -> None:
        self.pool = sorted(pool)
        self._members = frozenset(self.pool)
        self._counts = counts
        self._weighing = self.pool if counts is None else [item for item in self.pool if counts.get(item)]
        self._weighing_members = frozenset(self._weighing)
        self._weightless = [] if counts is None else [item for item in self.pool if not counts.get(item)]
        weights = [1] * len(self.pool) if counts is None else [counts[item] for item in self._weighing]
        self._cumulated = np.cumsum(weights, dtype=np.float64)

    def listed(self, target: str, count: int, forbidden: frozenset[str], draw: Draw) -> list[str]:
        """The target among `count` negatives outside `forbidden`, in random order.

        >>> sampler = PoolSampler("abcdefgh")
        >>> sorted(sampler.listed("a", 3, frozenset("abcde"), Draw(42, "sft", "u1")))
        ['a', 'f', 'g', 'h']
        """
        return ordered([target, *self.negatives(count, forbidden, draw)], draw)

    def negatives(self, count: int, forbidden: frozenset[str], draw: Draw) -> list[str]:
        """`count` distinct items outside `forbidden`; a DataError where the pool doesn't hold as many."""
        check_enough(count, self._members, forbidden)
        left = len(self._weighing) - len(forbidden & self._weighing_members) if self._weightless else count
        if left < count:
            rest = [item for item in self._weightless if item not in forbidden]
            return [item for item in self._weighing if item not in forbidden] + lots(rest, count - left, draw)
        if self._counts is None and len(self.pool) <= ROOM * (count + len(forbidden)):
            return lots([item for item in self.pool if item not in forbidden], count, draw)
        chosen = self._rejecting(count, forbidden, draw)
        if len(chosen) < count:
            # What is left is rare beside what was chosen. Lots follow the same law and take one pass.
            rest = [item for item in self._weighing if item not in forbidden.union(chosen)]
            chosen += lots(rest, count - len(chosen), draw, self._counts)
        return chosen

    def _rejecting(self, count: int, forbidden: frozenset[str], draw: Draw) -> list[str]:
        """Up to `count` distinct items; fewer where TRIES numbers for each don't suffice."""
        stream, chosen = draw.stream(NEGATIVES), dict[str, None]()
        block = 2 * count
        for _ in range(0, TRIES * count, block):
            numbers = stream.random(block) * self._cumulated[-1]
            for index in np.searchsorted(self._cumulated, numbers, side="right").tolist():
                item = self._weighing[index]
                if item not in forbidden:
                    chosen[item] = None
                    if len(chosen) == count:
                        return list(chosen)
        return list(chosen)


def lots(items: Sequence[str], count: int, draw: Draw, counts: Mapping[str, int] | None = None) -> list[str]:
    """The `count` items with the smallest numbers; with `counts` a number is the time of an exponential clock.

    >>> sorted(lots(["a", "b", "c"], 3, Draw(42, "sft", "u1")))
    ['a', 'b', 'c']
    """
    numbers: Floats = draw.stream(LOTS).random(len(items))
    if counts is not None:
        numbers = -np.log1p(-numbers) / np.array([counts[item] for item in items])
    return [items[index] for index in np.argsort(numbers, kind="stable")[:count].tolist()]


def ordered(items: Sequence[str], draw: Draw) -> list[str]:
    """`items` in the order of their numbers."""
    return [items[index] for index in np.argsort(draw.stream(ORDER).random(len(items)), kind="stable").tolist()]


def check_enough(count: int, members: frozenset[str], forbidden: frozenset[str]) -> None:
    """Raise DataError where a pool has fewer than `count` items outside `forbidden`."""
    available = len(members) - len(members & forbidden)
    if available < count:
        raise DataError(
            f"{count} negatives were asked for, but only {available} of {len(members)} items are outside what "
            f"one user knows. Lower --num-neg to {available} or less."
        )


class FirstSampler:
    """Candidate lists of version 1: items of `pool` uniformly, or in proportion to their `counts`."""

    version: ClassVar[int] = 1

    def __init__(self, pool: Sequence[str], counts: Mapping[str, int] | None = None) -> None:
        self._members = frozenset(pool)
        self._sample = _uniform(pool) if counts is None else _by_popularity(pool, counts)

    def listed(self, target: str, count: int, forbidden: frozenset[str], draw: Draw) -> list[str]:
        """The target among `count` negatives outside `forbidden`, in random order."""
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
    """`count` distinct draws outside `forbidden`; fewer where `tries` draws don't suffice."""
    accepted: dict[str, None] = {}
    while len(accepted) < count and tries > 0:
        tries -= 1
        item = draw()
        if item not in forbidden:
            accepted[item] = None
    return list(accepted)
