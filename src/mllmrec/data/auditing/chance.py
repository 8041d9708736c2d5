"""Statistics of the audit: could this have come about by chance? Each returns a probability; below LEVEL it is told.

The level is strict because an audit makes dozens of comparisons and an alarm stops a pipeline.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from mllmrec.data.draws import uniform

LEVEL = 1e-4
EXPECTED_PER_CELL = 10


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the target stands in one list: `position` counts from 0 in a list of `length`."""

    example_id: str
    target_id: str
    position: int
    length: int


@dataclass(frozen=True, kw_only=True)
class Attack:
    """A guess of positions from a table: `hits` of `tried`, where a guess without the table has chance `chance`."""

    tried: int
    hits: int
    chance: float
    probability: float


def evenness(places: Sequence[Place]) -> float | None:
    """Chi-square probability that targets stand at every position equally often; None for too few lists.

    Neighbouring positions are counted together until ten targets are expected in each cell, lists of each length for
    themselves; the sums of squares and the degrees of freedom add up.

    >>> places = [Place(example_id=str(n), target_id="a", position=n % 5, length=5) for n in range(100)]
    >>> evenness(places)
    1.0
    """
    from scipy.special import chdtrc

    by_length = defaultdict[int, Counter[int]](Counter)
    for place in places:
        by_length[place.length][place.position] += 1
    statistic, freedom = 0.0, 0
    for length, counts in by_length.items():
        num_cells = min(length, counts.total() // EXPECTED_PER_CELL)
        if num_cells < 2:
            continue
        cells = [position * num_cells // length for position in range(length)]
        sizes, found = Counter(cells), Counter[int]()
        for position, count in counts.items():
            found[cells[position]] += count
        for cell in range(num_cells):
            expected = counts.total() * sizes[cell] / length
            statistic += (found[cell] - expected) ** 2 / expected
        freedom += num_cells - 1
    return float(chdtrc(freedom, statistic)) if freedom else None


def lookup_attack(places: Sequence[Place]) -> Attack | None:
    """Guess positions by a table from target to its commonest position, made on one half and tried on the other.

    Chance is 1 / length, or the share of the commonest position where that is larger: an uneven file is another
    finding. None when no target of the second half occurs in the first.
    """
    table = defaultdict[tuple[str, int], Counter[int]](Counter)
    tried, commonest = list[Place](), Counter((place.length, place.position) for place in places)
    for place in places:
        if uniform(0, "audit/lookup", place.example_id) < 0.5:
            table[place.target_id, place.length][place.position] += 1
        else:
            tried.append(place)
    tried = [place for place in tried if (place.target_id, place.length) in table]
    if not tried:
        return None
    guesses = {key: min(counts, key=lambda position: (-counts[position], position)) for key, counts in table.items()}
    hits = sum(guesses[place.target_id, place.length] == place.position for place in tried)
    lengths = Counter(place.length for place in places)
    best = {length: max(commonest[length, at] for at in range(length)) / count for length, count in lengths.items()}
    chance = sum(max(1 / place.length, best[place.length]) for place in tried) / len(tried)
    return Attack(tried=len(tried), hits=hits, chance=chance, probability=at_least(hits, len(tried), chance))


def at_least(hits: int, tried: int, chance: float) -> float:
    """Probability of `hits` or more of `tried` at `chance` each.

    >>> at_least(1, 2, 0.5)
    0.75
    """
    from scipy.special import bdtrc

    return 1.0 if hits <= 0 or chance >= 1 else float(bdtrc(hits - 1, tried, chance))


def events(found: int, expected: float) -> float:
    """Poisson probability of `found` or more rare events where `expected` come by chance."""
    from scipy.special import pdtrc

    return 1.0 if found <= 0 else float(pdtrc(found - 1, expected))
