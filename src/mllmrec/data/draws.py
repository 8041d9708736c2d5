"""Randomness without order: a draw depends on (seed, purpose, key) and on nothing else.

Rows may be shuffled, sharded or resumed and every example still gets the same negatives, because each has a generator
of its own. Folds are parts of the users by hash, so that a model trained on one part can judge the other.
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


def in_fold(user_id: str, fold: str) -> bool:
    """Whether a user belongs to part i of n, written i/n; everyone does where no fold is named.

    >>> in_fold("u1", "1/2") != in_fold("u1", "2/2")
    True
    """
    if not fold:
        return True
    part, parts = map(int, fold.split("/"))
    return int(hashlib.sha256(f"fold:{user_id}".encode()).hexdigest()[:8], 16) % parts == part - 1


def _digest(seed: int, purpose: str, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\x1f{purpose}\x1f{key}".encode()).digest(), "big")
