"""The processes of one launch, as torchrun and accelerate describe them in the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

LONGEST_WAIT = timedelta(days=7)


def rank_and_size() -> tuple[int, int]:
    """(rank, number of processes); (0, 1) for a single process."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


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
