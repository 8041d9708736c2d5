"""Parts of the users by hash, so that a model trained on one part can judge the other."""

from __future__ import annotations

import hashlib


def in_fold(user_id: str, fold: str) -> bool:
    """Whether a user belongs to part i of n, written i/n; everyone does where no fold is named.

    >>> in_fold("u1", "1/2") != in_fold("u1", "2/2")
    True
    """
    if not fold:
        return True
    part, parts = map(int, fold.split("/"))
    return int(hashlib.sha256(f"fold:{user_id}".encode()).hexdigest()[:8], 16) % parts == part - 1
