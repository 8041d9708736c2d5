"""Randomness without order: a draw depends on (seed, purpose, key) and on nothing else.

Rows may be shuffled, sharded or resumed and every example still gets the same negatives, because each asks for a
generator of its own.
"""

from __future__ import annotations

import hashlib
import random


def generator(seed: int, purpose: str, key: str) -> random.Random:
    """A generator of one example for one purpose.

    >>> generator(42, "negatives", "u1").random() == generator(42, "negatives", "u1").random()
    True
    >>> generator(42, "negatives", "u1").random() == generator(42, "order", "u1").random()
    False
    """
    return random.Random(_digest(seed, purpose, key))


def uniform(seed: int, purpose: str, key: str) -> float:
    """A number in [0, 1) for one key, for shares and orders.

    >>> 0 <= uniform(0, "hint", "a") < 1
    True
    """
    return (_digest(seed, purpose, key) >> 203) / (1 << 53)


def _digest(seed: int, purpose: str, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\x1f{purpose}\x1f{key}".encode()).digest(), "big")
