"""A cache layout -> its memory: the arenas of keys and values, and the table of where regions lie."""

from __future__ import annotations

import math
import mmap
from contextlib import suppress

import torch
from torch import Tensor

from sparsec.diagnostics.model import CallError
from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.plan.kv.layout import CacheLayout

LARGE_PAGE = 1 << 21
"""Bytes."""


def arena(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on a CPU in pages as large as the system gives, since a step reads all of an arena once."""
    nbytes = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or nbytes < LARGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(shape, dtype=dtype, device=device)
    # Shared memory, which mmap makes unless told otherwise, has no large pages.
    memory = mmap.mmap(-1, nbytes + LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a system without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    start = -torch.frombuffer(memory, dtype=torch.uint8).data_ptr() % LARGE_PAGE
    return torch.frombuffer(memory, dtype=dtype, count=math.prod(shape), offset=start).view(shape)


def slots_for(layout: CacheLayout, max_len: int, rollback: int) -> int:
    """Slots of one sequence. Raises CallError for more than a cache may have."""
    slots = layout.slots(max_len, rollback)
    if slots > POSITION_LIMIT:
        raise CallError(
            f"expected at most {POSITION_LIMIT} slots, got {slots} for max_len {max_len} and rollback {rollback}"
        )
    return slots


def places_table(layout: CacheLayout, max_len: int, rollback: int) -> Tensor:
    """int32 [groups, regions, 2]: base and capacity."""
    groups = layout.places(max_len, rollback)
    table = torch.zeros((len(groups), layout.most_regions, 2), dtype=torch.int32)
    for g, group in enumerate(groups):
        for r, place in enumerate(group):
            table[g, r] = torch.tensor(place)
    return table
