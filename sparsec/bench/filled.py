"""Caches that hold normal numbers, as if tokens had been read."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparsec.runtime.kv.cache import KVCache
from sparsec.runtime.kv.stored import to_stored, width_of


def fill_cache(cache: KVCache, lengths: int | Sequence[int]) -> None:
    """Normal numbers in every slot, and so many tokens of each sequence."""
    for arena in (cache.keys, cache.values):
        if arena.is_floating_point():
            arena.normal_()
        else:
            beside = width_of(0, arena.dtype)
            for row in arena:  # one sequence at a time
                row.copy_(to_stored(torch.randn(len(row), row.shape[1] - beside, device=row.device), arena.dtype))
    cache.lengths_tensor.copy_(torch.as_tensor(lengths).expand(cache.batch_size))
    cache.refresh()
