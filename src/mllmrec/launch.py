"""The processes of one launch, as torchrun and accelerate describe them in the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

LONGEST_WAIT = timedelta(days=7)


def rank_and_size() -> tuple[int, int]:
    """(rank, number of processes); (0, 1) for a single process."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class WorkShare:
    """The part of a stage's work that one process does: every `count`-th key, beginning with number `index`."""

    index: int = 0
    count: int = 1

    @classmethod
    def of(cls, shard: str = "") -> WorkShare:
        """The share of this process: of the whole work, or of one shard `i/n` of it."""
        part, parts = (int(number) for number in shard.split("/")) if shard else (1, 1)
        rank, size = rank_and_size()
        return cls(index=(part - 1) * size + rank, count=parts * size)

    def take(self, keys: Sequence[str]) -> Sequence[str]:
        """The keys of this share.

        >>> WorkShare(index=1, count=3).take(["a", "b", "c", "d", "e"])
        ['b', 'e']
        """
        return keys[self.index :: self.count]


@contextmanager
def joined() -> Iterator[None]:
    """All processes enter and leave the block together; does nothing for a single process."""
    if rank_and_size()[1] == 1:
        yield
        return
    import torch.distributed

    torch.distributed.init_process_group("gloo", timeout=LONGEST_WAIT)
    try:
        yield
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()


def meet() -> None:
    """Inside a `joined` block: wait until all processes have come here."""
    if rank_and_size()[1] > 1:
        import torch.distributed

        torch.distributed.barrier()
