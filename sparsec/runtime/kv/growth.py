"""A KV cache -> one with room for longer sequences, which holds what the first one holds.

Invariant: a region that has more slots in the longer cache has not wrapped around in the shorter one, for a ring is
short of its reach only where it has a slot for every key; so a key keeps its number within its region.
"""

from __future__ import annotations

import torch

from sparsec.runtime.kv.cache import KVCache
from sparsec.runtime.kv.ops import cache_tables


def grown(cache: KVCache, max_len: int) -> KVCache:
    """A cache like `cache`, with its keys, values and lengths, for sequences of up to `max_len` tokens, no fewer than
    it has room for. Raises CallError for more slots than a cache may have."""
    assert max_len >= cache.max_len
    longer = KVCache(
        cache.layout,
        batch_size=cache.batch_size,
        max_len=max_len,
        head_dim=cache.keys.shape[2],
        value_dim=cache.values.shape[2],
        dtype=cache.keys.dtype,
        device=cache.keys.device,
        kernel=cache.kernel,
        rollback=cache.rollback,
        lists=cache_tables(cache.kernel, max_len, cache.keys.device),
        marks=tuple(
            mark if mark.shape[-1] == 1 else torch.nn.functional.pad(mark, (0, max_len - cache.max_len))
            for mark in cache.marks
        ),
    )
    longer.whole, longer.room = cache.whole, cache.room
    if cache.kept is not None:
        longer.kept = cache.kept.having({name: each.clone() for name, each in cache.kept.tensors.items()})
    layout, rollback = cache.layout, cache.rollback
    before, after = layout.places(cache.max_len, rollback), layout.places(max_len, rollback)
    for group, wider in zip(before, after, strict=True):
        for (base, slots), (target, room) in zip(group, wider, strict=True):
            assert slots <= room
            longer.keys[:, target : target + slots] = cache.keys[:, base : base + slots]
            longer.values[:, target : target + slots] = cache.values[:, base : base + slots]
    longer.lengths_tensor.copy_(cache.lengths_tensor)
    longer.state.copy_(cache.state)
    return longer
