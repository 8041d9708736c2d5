"""Keeping freed memory for the next tensor, where the system's allocator would give it back.

glibc returns freed blocks of some size to the system and asks for new ones, page by page, in the next layer. A small
model on a CPU makes thousands of such blocks a step; `benchmarks/freed_memory.py` tells what the detour costs.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT = 32 * 2**20
"""Bytes of a block above which it is still given back: the most that every version of glibc takes."""
TRIMMED_ABOVE = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have the allocator of this process keep what is freed; False where there is no glibc to tell."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(M_TRIM_THRESHOLD, TRIMMED_ABOVE))
