"""`SparseCache`: a transformers cache whose layers hold a `KVCache` for each time that they attend in a forward.

Invariant: `columns` counts what the model was fed, padding included; every `KVCache` holds the same tokens, without it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from sparsec.diagnostics.model import CallError
from sparsec.integrations.transformers.prompts import PromptPart
from sparsec.integrations.transformers.renewal import Renewal
from sparsec.runtime.inputs.checks import InputTensors
from sparsec.runtime.kv.cache import KVCache
from sparsec.runtime.kv.growth import room_after
from sparsec.runtime.kv.stored import kv_dtype_of
from sparsec.runtime.module import SparseAttention


class SparseCacheLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers comes without types here
    """One layer. `kvs`: the `KVCache` of each call of its attention in a forward, in order. `reached`: whether the
    model has handed it keys and values since that was last set to False."""

    is_compileable = False
    is_sliding = False
    supports_early_init = False

    def __init__(self, max_len: int, rollback: int, kv_dtype: str | None) -> None:
        super().__init__()
        self.max_len, self.rollback, self.kv_dtype = max_len, rollback, kv_dtype
        self.kvs: list[KVCache] = []
        self.columns = 0
        self.reached = False
        self.chosen_by: Tensor | None = None
        """The keys by which the layer chooses what it attends to: [batch, columns, D] or [batch, heads, columns, D]."""
        self.renewals: dict[int, Renewal] = {}
        """Of some of `kvs`, by their places, what finds the keys with the most attention anew after each call."""
        self.chunks: list[PromptPart] = []
        """Of a prompt that has not ended, for `compress`."""

    @property
    def kv(self) -> KVCache | None:
        """The first `KVCache`; None before the first call."""
        return self.kvs[0] if self.kvs else None

    @torch.compiler.disable(reason="a cache is made at the first call")  # type: ignore[no-untyped-call, untyped-decorator]
    def prepare(self, attn: SparseAttention, nth: int, batch: int, device: torch.device, *, drops: bool) -> None:
        """Makes the empty cache of the nth call in a forward, unless there is a fitting one.

        drops: whether keys go when the prompt ends, so that nobody need be warned of a cache that keeps every key.
        """
        if not self._fits(attn, nth, batch, device):
            self.renewals.pop(nth, None)
            with warnings.catch_warnings(action="ignore", category=UserWarning) if drops else nullcontext():
                more: dict[str, Any] = {"rollback": self.rollback, "kv_dtype": self.kv_dtype}
                made = attn.new_cache(batch, self.max_len, device=device, **more)
            self.kvs[nth : nth + 1] = [made]

    def _fits(self, attn: SparseAttention, nth: int, batch: int, device: torch.device) -> bool:
        if nth >= len(self.kvs):
            return False
        have = self.kvs[nth]
        stored = kv_dtype_of(self.kv_dtype, attn.dtype)
        return have.batch_size == batch and have.kv_dtype == stored and have.keys.device == device

    def update_indexer(self, keys: Tensor) -> Tensor:
        """Holds the new keys by which the layer chooses, and gives all of them."""
        held = self.chosen_by
        self.chosen_by = keys if held is None else torch.cat([held, keys], dim=-2)
        return self.chosen_by

    update_index = update_indexer  # its name for MiniMax M3

    def attend(
        self,
        attn: SparseAttention,
        nth: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        counts: Tensor | None,
        inputs: Mapping[str, InputTensors] | None,
        *,
        drops: bool,
    ) -> Tensor:
        """Attention, the nth of a forward, of q to what is held and to k, v, which are then held too; shapes, inputs,
        and `counts` for `lengths`, as for `SparseAttention.forward`; drops: as for `prepare`."""
        if self.columns == 0 and not self._fits(attn, nth, q.shape[0], q.device):
            self.prepare(attn, nth, q.shape[0], q.device, drops=drops)
        renewal = self.renewals.get(nth)
        if renewal is None:
            out: Tensor = attn(q, k, v, cache=self.kvs[nth], lengths=counts, inputs=inputs)
            return out
        out, mass = attn(q, k, v, cache=self.kvs[nth], lengths=counts, inputs=inputs, return_mass=renewal.groups)
        renewal.renew(self.kvs[nth], mass, inputs or {})
        return out

    @property
    def is_croppable(self) -> bool:
        """Whether `crop` takes tokens back at all; how many surely, `rollback` says."""
        return self.rollback > 0

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each sequence; empty before the first call."""
        return () if self.kv is None else self.kv.lengths

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Hands both on: the attention function attends first, and stores them after."""
        self.reached = True
        return key_states, value_states

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: `prepare` knows the module that the cache is for."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.columns + query_length, 0

    def get_seq_length(self) -> int:
        return self.columns

    def get_max_length(self) -> int:
        return self.max_len

    get_max_cache_shape = get_max_length  # its name before transformers 5.10

    def grow(self, max_len: int) -> None:
        """Room for `max_len` columns, no fewer than there are."""
        self.max_len = max_len
        self._each(lambda kv: kv.grow(max_len))

    def reset(self) -> None:
        self.columns = 0
        self.chosen_by = None
        self.renewals.clear()
        self.chunks.clear()
        self._each(KVCache.reset)

    def crop(self, tokens: int) -> None:
        """Takes back -tokens columns, or all beyond `tokens` of them; raises as `KVCache.truncate` does."""
        removed = -tokens if tokens <= 0 else max(0, self.columns - tokens)
        if removed == 0 or not self.kvs:
            return
        self._each(lambda kv: kv.truncate([max(0, length - removed) for length in kv.lengths]))
        self.columns = max(0, self.columns - removed)
        for nth, renewal in self.renewals.items():
            renewal.crop(self.kvs[nth].lengths)
        if self.chosen_by is not None:
            self.chosen_by = self.chosen_by[..., : self.columns, :]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._reorder(lambda batch: beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._reorder(lambda batch: torch.arange(batch).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        self._reorder(lambda batch: torch.arange(batch)[indices.cpu()])

    def _reorder(self, rows: Callable[[int], Tensor]) -> None:
        """Makes row n a copy of row rows(batch)[n]."""
        for nth, renewal in self.renewals.items():
            renewal.reorder(rows(self.kvs[nth].batch_size))
        self._each(lambda kv: kv.reorder(rows(kv.batch_size)))
        if self.chosen_by is not None:
            self.chosen_by = self.chosen_by[rows(len(self.chosen_by)).to(self.chosen_by.device)]

    def offload(self) -> None:
        raise CallError("expected a cache that stays where the model is, got a call to offload it")

    def _each(self, change: Callable[[KVCache], None]) -> None:
        for kv in self.kvs:
            change(kv)


class SparseCache(Cache):  # type: ignore[misc]  # likewise
    """The cache of a model that a pattern was applied to; made by `generate()`, or by `new_cache`.

    `max_len`: columns that each sequence may have, padding included; a cache that `grows` gets more when it has to.
    `nbytes`: bytes of all keys and values held. `taken`: whether a decoder got it since that was last set to False.
    `prompt`: the columns of a prompt that comes in chunks; None for one that is the first call. `own`: the layers that
    attend; the others are transformers' own, `states` by their places.
    """

    def __init__(
        self,
        layers: int,
        max_len: int,
        rollback: int = 0,
        *,
        grows: bool = False,
        prompt: int | None = None,
        states: Mapping[int, Any] | None = None,
        kv_dtype: str | None = None,
    ) -> None:
        for name, value, least in (("max_len", max_len, 1), ("rollback", rollback, 0), ("prompt", prompt, 1)):
            if value is not None and value < least:
                raise CallError(f"expected {name} of at least {least}, got {value}")
        self.max_len, self.grows, self.taken, self.prompt = max_len, grows, False, prompt
        others = states or {}
        super().__init__(
            layers=[
                others[place] if place in others else SparseCacheLayer(max_len, rollback, kv_dtype)
                for place in range(layers)
            ]
        )

    @property
    def own(self) -> list[SparseCacheLayer]:
        """The layers that attend, in order."""
        return [layer for layer in self.layers if isinstance(layer, SparseCacheLayer)]

    @property
    def max_cache_len(self) -> int:
        """`max_len`, under the name that a StaticCache has for it; hosts ask any cache that is not dynamic."""
        return self.max_len

    def begin(self, new: int) -> None:
        """Before a forward of `new` columns: checks that the layers hold the same tokens, and makes room if it may."""
        columns = self.own[0].columns
        held = [kv.state[0].numpy() for layer in self.own for kv in layer.kvs]
        if held and (held[0].max() > columns or not all(np.array_equal(each, held[0]) for each in held)):
            raise CallError(
                "expected a cache whose layers all hold the tokens of the calls that ended, got one that a call has "
                "left half filled; reset() empties it"
            )
        for layer in self.own:
            layer.reached = False
        needed = columns + new
        if self.grows and needed > self.max_len:
            self.max_len = room_after(self.max_len, needed)
            for layer in self.own:
                layer.grow(self.max_len)

    def end(self, new: int) -> None:
        """After a forward of `new` columns."""
        for layer in self.own:
            layer.columns += new

    @property
    def reached(self) -> bool:
        """Whether a layer's keys and values have come to this cache since `begin`."""
        return any(layer.reached for layer in self.own)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each sequence, padding not counted; empty before the first call."""
        found: tuple[int, ...] = self.own[0].lengths
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values, once the first call has made room for them."""
        return sum(kv.nbytes for layer in self.own for kv in layer.kvs)

    @property
    def batch_size(self) -> int:
        """Sequences; -1 before the first call."""
        return len(self.lengths) or -1
