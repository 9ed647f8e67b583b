"""`SparseCache`: a transformers cache whose layers hold a sparsec `KVCache` each.

Invariant: `columns` counts what the model was fed, padding included; the `KVCache` counts tokens alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from sparsec.diagnostics.model import CallError
from sparsec.runtime.kv_cache import KVCache
from sparsec.runtime.module import SparseAttention


class SparseCacheLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers comes without types here
    """One layer: its `KVCache`, made at the first call, for that call's batch size, dtype and device."""

    is_compileable = False
    is_sliding = False
    is_croppable = False  # beyond `rollback` tokens it is not
    supports_early_init = False

    def __init__(self, max_len: int, rollback: int) -> None:
        super().__init__()
        self.max_len, self.rollback = max_len, rollback
        self.kv: KVCache | None = None
        self.columns = 0

    @torch.compiler.disable(reason="attention over a cache reads lengths on the host, so it runs between graphs")  # type: ignore[no-untyped-call, untyped-decorator]
    def attend(self, attn: SparseAttention, q: Tensor, k: Tensor, v: Tensor, counts: Sequence[int] | None) -> Tensor:
        """Attention of q to what is held and to k, v, which are then held too; shapes, and `counts` for `lengths`, as
        for `SparseAttention.forward`."""
        if self.kv is None or (self.columns == 0 and self.kv.batch_size != q.shape[0]):
            self.kv = attn.new_cache(q.shape[0], self.max_len, rollback=self.rollback, device=q.device)
        out: Tensor = attn(q, k, v, cache=self.kv, lengths=counts)
        self.columns += q.shape[2]
        return out

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each sequence; empty before the first call."""
        return () if self.kv is None else self.kv.lengths

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Hands both on: the attention function attends first, and stores them after."""
        return key_states, value_states

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: `attend` knows the module that the cache is for."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.columns + query_length, 0

    def get_seq_length(self) -> int:
        return self.columns

    def get_max_length(self) -> int:
        return self.max_len

    get_max_cache_shape = get_max_length  # its name before transformers 5.10

    def reset(self) -> None:
        self.columns = 0
        if self.kv is not None:
            self.kv.reset()

    def crop(self, tokens: int) -> None:
        """Takes back -tokens columns, or all beyond `tokens` of them; raises as `KVCache.truncate` does."""
        removed = -tokens if tokens <= 0 else max(0, self.columns - tokens)
        if removed == 0 or self.kv is None:
            return
        self.kv.truncate([max(0, length - removed) for length in self.kv.lengths])
        self.columns = max(0, self.columns - removed)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        if self.kv is not None:
            self.kv.reorder(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.kv is not None:
            self.kv.reorder(torch.arange(self.kv.batch_size).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        if self.kv is not None:
            self.kv.reorder(torch.arange(self.kv.batch_size)[indices.cpu()])

    def offload(self) -> None:
        raise CallError("expected a cache that stays where the model is, got a call to offload it")


class SparseCache(Cache):  # type: ignore[misc]  # likewise
    """The cache of a model that a pattern was applied to; made by `generate()`, or by `new_cache`.

    `max_len`: columns that each sequence may have, padding included. `nbytes`: bytes of all keys and values held.
    """

    def __init__(self, layers: int, max_len: int, rollback: int = 0) -> None:
        for name, value, least in (("max_len", max_len, 1), ("rollback", rollback, 0)):
            if value < least:
                raise CallError(f"expected {name} of at least {least}, got {value}")
        self.max_len = max_len
        super().__init__(layers=[SparseCacheLayer(max_len, rollback) for _ in range(layers)])

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each sequence, padding not counted; empty before the first call."""
        found: tuple[int, ...] = self.layers[0].lengths
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values, once the first call has made room for them."""
        return sum(layer.kv.nbytes for layer in self.layers if layer.kv is not None)

    @property
    def batch_size(self) -> int:
        """Sequences; -1 before the first call."""
        return len(self.lengths) or -1
