"""Near-duplicates among traces.

A text is its set of three-word runs, and two texts are near-duplicates when the Jaccard similarity of their sets is at
least 4/5. All are found exactly without comparing all pairs: with the runs of every text ordered from rare to common,
two such sets of n runs share L of their first n - ceil(4n/5) + L, so that a text is compared only with those it shares
several rare runs with. One of a group stays, the others are repeats of it, and nothing is compared with those again.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllmrec.data.title_spellings import words

SHARED, OF = 4, 5
RUN_WORDS, NUM_HASHES, CHUNK = 3, 1 << 22, 1000
COMMON = 8
Runs = NDArray[np.integer[Any]]


def find_repeats(texts: Iterable[tuple[str, str]], rank: Callable[[str], Any] | None = None) -> dict[str, str]:
    """For (key, text) pairs, a mapping of each repeat's key to the key of the text that it repeats.

    Of near-duplicates the one whose key `rank` puts first stays; without `rank` the first in order.

    >>> pairs = [("a", "one two three four"), ("b", "five six seven"), ("c", "One two three, four!")]
    >>> find_repeats(pairs), find_repeats(pairs, lambda key: -ord(key))
    ({'c': 'a'}, {'a': 'c'})
    """
    keys, sets = hashed_runs(texts)
    order = sorted(range(len(keys)), key=lambda at: rank(keys[at])) if rank is not None else range(len(keys))
    frequency = np.bincount(np.concatenate([np.empty(0, np.int32), *sets]), minlength=1)
    by_run: defaultdict[int, array[int]] = defaultdict(lambda: array("i"))
    repeats: dict[str, str] = {}
    for position, at in enumerate(order):
        rare = _rarest(sets[at], frequency)
        enough = min(COMMON, -(-SHARED * len(sets[at]) // OF))
        candidates = (order[other] for other in _sharing(rare, by_run, enough))
        original = next((other for other in candidates if alike(sets[at], sets[other])), None)
        if original is not None:
            repeats[keys[at]] = keys[original]
            continue
        for run in rare:
            by_run[run].append(position)
    return repeats


def alike(one: Runs, other: Runs) -> bool:
    """Whether two sets, given as sorted hashes, have a Jaccard similarity of at least 4/5."""
    shorter, longer = sorted((len(one), len(other)))
    if OF * shorter < SHARED * longer:
        return False
    common = len(np.intersect1d(one, other, assume_unique=True))
    return OF * common >= SHARED * (shorter + longer - common)


def hashed_runs(texts: Iterable[tuple[str, str]]) -> tuple[list[str], list[Runs]]:
    """The keys, and of each text the set of its runs as sorted hashes."""
    from sklearn.feature_extraction.text import HashingVectorizer

    counter = HashingVectorizer(analyzer=_runs, n_features=NUM_HASHES, alternate_sign=False, norm=None)
    keys, sets, pairs = list[str](), list[Runs](), iter(texts)
    while chunk := list(islice(pairs, CHUNK)):
        counted = counter.transform([text for _, text in chunk])
        counted.sort_indices()
        keys += [key for key, _ in chunk]
        sets += [counted.indices[start:end].astype(np.int32) for start, end in pairwise(counted.indptr)]
    return keys, sets


def _rarest(own: Runs, frequency: Runs) -> list[int]:
    """The first runs of a text from rare to common, without those that no other text has."""
    ordered = own[np.argsort(frequency[own], kind="stable")]
    length = len(own) - -(-SHARED * len(own) // OF) + COMMON
    return [run for run in ordered[:length].tolist() if frequency[run] > 1]


def _sharing(rare: Sequence[int], by_run: Mapping[int, array[int]], enough: int) -> list[int]:
    """The positions, ascending, of the earlier texts that have at least `enough` of these runs."""
    lists = [np.frombuffer(by_run[run], dtype=np.int32) for run in rare if run in by_run]
    if len(lists) < enough:
        return []
    counts = np.bincount(np.concatenate(lists))
    positions: list[int] = np.flatnonzero(counts >= enough).tolist()
    return positions


def _runs(text: str) -> Sequence[str]:
    """The runs of three words; a shorter text is one run."""
    written = words(text)
    return [" ".join(written[at : at + RUN_WORDS]) for at in range(max(1, len(written) - RUN_WORDS + 1))]
