"""`SparseAttention.new_cache`: what it is asked is checked, then the cache is made.

Invariant: an error is raised before any memory is taken.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from sparsec.diagnostics.arguments import integer
from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.plan.kv.layout import CacheLayout
from sparsec.runtime.devices import check_device
from sparsec.runtime.kernel import registered
from sparsec.runtime.kv.cache import KVCache
from sparsec.runtime.kv.stored import kv_dtype_of

if TYPE_CHECKING:
    from sparsec.runtime.module import SparseAttention


def fresh_cache(
    attn: SparseAttention,
    kernel: str,
    layout: CacheLayout,
    device: torch.device,
    *,
    batch_size: int,
    max_len: int | None,
    rollback: int,
    kv_dtype: torch.dtype | str | None,
) -> KVCache:
    """An empty cache for a module with that kernel and layout. Raises and warns as `new_cache` does."""
    for growth in layout.growth:
        warnings.warn(f"the cache keeps every key for {growth}", stacklevel=3)
    batch_size, rollback = integer("batch_size", batch_size, 1), integer("rollback", rollback, 0)
    max_len = None if max_len is None else integer("max_len", max_len, 1, POSITION_LIMIT - 1)
    held = kv_dtype_of(kv_dtype, attn.dtype)
    check_device(attn.target, device)
    if held != attn.dtype:  # then there may be no kernels
        registered(kernel, device).over_cache(attn.dtype, held, lists=False)
    return KVCache(
        layout,
        batch_size=batch_size,
        max_len=max_len,
        head_dim=attn.head_dim,
        value_dim=attn.value_dim,
        dtype=held,
        device=device,
        rollback=rollback,
        kernel=kernel,
    )
