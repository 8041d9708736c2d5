"""Draw version 2, made again from its description alone: Philox in plain Python, then negatives, lots and order."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping

import pytest

from mllmrec.data.candidates.negatives import Draw, PoolSampler

MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
WEYL = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
WORD = (1 << 64) - 1
POOL = [f"i{number}" for number in range(300)]


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Four words of Philox4x64-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011)."""
    for _ in range(10):
        (high_0, low_0), (high_1, low_1) = (
            divmod(factor * word, 1 << 64) for factor, word in zip(MULTIPLIERS, counter[::2], strict=True)
        )
        counter = [high_1 ^ counter[1] ^ key[0], low_1, high_0 ^ counter[3] ^ key[1], low_0]
        key = [(word + step) & WORD for word, step in zip(key, WEYL, strict=True)]
    return counter


def numbers(draw: Draw, part: int) -> Iterator[float]:
    """Numbers in [0, 1) of one part: the top 53 bits of each word, from a counter that begins at 1."""
    digest = hashlib.sha256(f"{draw.seed}\x1f{draw.purpose}\x1f{draw.example_id}".encode()).digest()
    value = int.from_bytes(digest[:16], "big")
    key, block = [value & WORD, value >> 64], 0
    while True:
        block += 1
        for word in philox([block & WORD, block >> 64, part, 0], key):
            yield (word >> 11) / (1 << 53)


def by_number(items: list[str], draw: Draw, part: int, counts: Mapping[str, int] | None = None) -> list[str]:
    drawn = zip(items, numbers(draw, part), strict=False)
    times = {item: -math.log1p(-u) / counts[item] if counts else u for item, u in drawn}
    return sorted(items, key=times.__getitem__)


def listed_again(
    pool: list[str], target: str, count: int, forbidden: set[str], draw: Draw, counts: Mapping[str, int] | None
) -> list[str]:
    """The whole draw by its description, one number at a time."""
    pool = sorted(pool)
    weights = [counts[item] if counts else 1 for item in pool]
    chosen: list[str] = []
    if not counts and len(pool) <= 4 * (count + len(forbidden)):
        chosen = by_number([item for item in pool if item not in forbidden], draw, 1)[:count]
    stream = numbers(draw, 0)
    for _ in range(50 * count):
        if len(chosen) == count:
            break
        at, index = next(stream) * sum(weights), 0
        while at >= weights[index]:
            at, index = at - weights[index], index + 1
        if pool[index] not in {*forbidden, *chosen}:
            chosen.append(pool[index])
    left = [item for item in pool if item not in {*forbidden, *chosen}]
    chosen += by_number(left, draw, 1, counts)[: count - len(chosen)]
    return by_number([target, *chosen], draw, 2)


@pytest.mark.parametrize(
    ("pool", "count", "counts"),
    [
        (POOL, 9, None),
        (POOL, 99, None),
        (POOL[:30], 9, None),
        (POOL, 9, {item: 1 + number % 7 for number, item in enumerate(POOL)}),
        (POOL[:12], 9, {item: 10**6 if number == 5 else 1 for number, item in enumerate(POOL[:12])}),
    ],
    ids=["uniform", "many", "few to choose from", "popularity", "popularity by lots"],
)
def test_a_draw_can_be_made_again_from_its_description(
    pool: list[str], count: int, counts: Mapping[str, int] | None
) -> None:
    sampler = PoolSampler(reversed(pool), counts)
    forbidden = set(pool[:2])
    for user in range(5):
        draw = Draw(42, "candidates/test", f"user-{user}")
        drawn = sampler.listed(pool[0], count, frozenset(forbidden), draw)
        assert drawn == listed_again(pool, pool[0], count, forbidden, draw, counts)


def test_frozen_draws_stay_what_they_were() -> None:
    """A change here changes every candidate file ever frozen by version 2."""
    drawn = PoolSampler(POOL).listed("i7", 9, frozenset({"i7"}), Draw(42, "candidates/test", "0123456789abcdef"))
    assert drawn == ["i172", "i59", "i140", "i175", "i14", "i7", "i26", "i263", "i195", "i112"]
