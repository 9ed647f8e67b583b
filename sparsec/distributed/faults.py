"""A collective that has failed -> the ranks that no longer answer, told by the store that the process group has.

Invariant: it waits for GRACE seconds at most, whatever the others do.
"""

from __future__ import annotations

import time

import torch.distributed as dist
from torch.distributed import ProcessGroup
from torch.distributed.distributed_c10d import _get_process_group_store

GRACE = 3.0
"""Seconds in which a rank that is alive is to meet the same failure."""


def silent_ranks(group: ProcessGroup) -> tuple[int, ...]:
    """The ranks of the group that have not come here too within GRACE seconds; rank 0 if the store is gone."""
    own, ranks = dist.get_rank(group), range(dist.get_world_size(group))
    try:
        store = _get_process_group_store(group)
        store.set(f"sparsec/met a failure/{own}", "")
        waiting, end = [rank for rank in ranks if rank != own], time.monotonic() + GRACE
        while waiting and time.monotonic() < end:
            waiting = [rank for rank in waiting if not store.check([f"sparsec/met a failure/{rank}"])]
            time.sleep(0.05)
        return tuple(waiting)
    except (RuntimeError, dist.DistError):  # the rank that keeps the store is gone
        return (0,) if own else ()
