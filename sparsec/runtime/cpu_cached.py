"""Attention over a cache on CPU tensors: one library with a kernel for chunks, one for a few queries, and the storing.

Invariant: outputs are the same bit for bit whatever the number of threads; no length is read in Python.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sparsec.codegen.cpp_cached import emit_cpp_cached, packs
from sparsec.diagnostics.model import CallError
from sparsec.ir.tiles import ListSpec
from sparsec.plan.cached import CachedPlan, plan_cached
from sparsec.plan.target import tile_sizes
from sparsec.runtime.cached_kernel import Cached
from sparsec.runtime.cpu import DrawList, check_call, compile_shared, scale_of
from sparsec.sema.model import Heads

ROWS = 3
"""The kernel of single rows takes up to this many queries for each head of a pack, for it reads every key once a row
and pack; that of chunks, which reads it once a head, takes as long for one query as for a tile of them."""
_POSITION_LIMIT = 1 << 30
_BAD_LENGTHS = 2
_CALL = struct.Struct("@7P12q4q5Pfi")
"""`struct sparsec_cached_call` of templates/cpu/cached_call.cpp.jinja; packed, for a ctypes structure takes longer."""

Entry = Callable[[bytes], int]


class Entries(NamedTuple):
    """The entry points of a library; each takes a pointer to a call."""

    attend_chunk: Entry
    attend_rows: Entry
    store: Entry


@dataclass(frozen=True, slots=True)
class CpuCached:
    """See `runtime.cached_kernel.CachedKernel`; `entries` loads the library, building it the first time (BuildError).

    `plan` is that of chunks; `lists`: the specs of its tables of draws; `few`: see ROWS.
    """

    plan: CachedPlan
    source: str
    entries: Callable[[], Entries]
    lists: tuple[ListSpec, ...]
    few: int

    @staticmethod
    def of(pattern: Heads, head_dim: int, dtype: str) -> CpuCached:
        """The kernels of a pattern, not built before the first call. Raises NoCache, TooManyBands, TooManyClasses."""
        return build_cached(((pattern, head_dim, dtype),))[0]

    @staticmethod
    def load(chunks: CachedPlan, rows: CachedPlan, source: str, library: Path) -> CpuCached:
        """The kernels from a library that `compile_shared(source)` made, `source` being `emit_cpp_cached` of plans."""
        loaded = ctypes.CDLL(str(library))
        return _kernel(chunks, rows, source, lambda: loaded, "sparsec")

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cache: Cached,
        *,
        scale: float | None,
        lists: tuple[Tensor, ...] = (),
        sink: Tensor | None = None,
        store: bool = False,
    ) -> tuple[Tensor, Tensor]:
        plan = self.plan.attend
        check_call(plan, q, k, v, 0, sink, None)
        few = q.shape[2] <= self.few
        if few:
            k, v = (t if t.stride(3) == 1 else t.contiguous() for t in (k, v))
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        lse = torch.empty(q.shape[:3], dtype=torch.float32)
        sink = None if sink is None else sink.detach().contiguous()
        tables, longest = self._tables(lists)
        of_attend = (
            *(out.data_ptr(), lse.data_ptr(), ctypes.addressof(tables)),
            0 if sink is None else sink.data_ptr(),
            scale_of(plan, scale),
        )
        entries = self.entries()
        attend = entries.attend_rows if few else entries.attend_chunk
        self._run((attend, entries.store) if store else (attend,), (q, k, v), cache, longest, of_attend)
        return out, lse

    def store(self, k: Tensor, v: Tensor, cache: Cached) -> None:
        self._run((self.entries().store,), (k, k, v), cache, _POSITION_LIMIT, (0, 0, 0, 0, 0.0))

    def _tables(self, lists: tuple[Tensor, ...]) -> tuple[ctypes.Array[DrawList], int]:
        """The tables as the kernels take them, and the number of positions that all of them cover."""
        longest, rows = _POSITION_LIMIT, []
        for spec, table in zip(self.lists, lists, strict=True):
            if (table.dtype, table.dim(), table.is_contiguous()) != (torch.int32, 3, True):
                raise CallError(f"expected contiguous int32 tables of draws, got {table.dtype} {list(table.shape)}")
            if (table.shape[0], table.shape[2]) != (len(spec.lanes), spec.width):
                wanted = [len(spec.lanes), "blocks", spec.width]
                raise CallError(f"expected a table of draws of shape {wanted}, got {list(table.shape)}")
            longest = min(longest, table.shape[1] * spec.block)
            rows.append(DrawList(table.data_ptr(), 0, table.shape[1]))
        return (DrawList * len(rows))(*rows), longest

    def _run(
        self,
        entries: tuple[Entry, ...],
        given: tuple[Tensor, Tensor, Tensor],
        cache: Cached,
        longest: int,
        of_attend: tuple[int, int, int, int, float],
    ) -> None:
        """One call on q, k and v, for each of the entries; `of_attend`: out, lse, lists, sink, scale.

        Raises CallError for what does not fit.
        """
        q, k, v = given
        keys, values, lengths, counts, places = cache.keys, cache.values, cache.lengths, cache.counts, cache.places
        batch, groups, new, head_dim = k.shape
        slots = keys.shape[1]
        found = (keys, values, lengths, counts, places)
        shapes = [(batch, slots, head_dim)] * 2 + [(batch,)] * 2 + [(groups, self.plan.regions, 2)]
        if [t.shape for t in found] != shapes or not all(t.is_cpu and t.is_contiguous() for t in found):
            raise CallError(f"expected a cache of contiguous tensors {shapes}, got {[tuple(t.shape) for t in found]}")
        if not (keys.dtype == values.dtype == k.dtype == v.dtype and k.shape == v.shape):
            raise CallError(f"expected keys and values alike and in {keys.dtype}, got {k.dtype} and {v.dtype}")
        if not lengths.dtype == counts.dtype == places.dtype == torch.int32:
            raise CallError("expected lengths, counts and places in int32")
        out, lse, lists, sink, scale = of_attend
        call = _CALL.pack(
            *(q.data_ptr(), k.data_ptr(), v.data_ptr(), keys.data_ptr(), values.data_ptr(), out, lse),
            *(*q.stride(), *k.stride(), *v.stride()),
            *(batch, new, slots, longest),
            *(lengths.data_ptr(), counts.data_ptr(), places.data_ptr(), lists, sink),
            *(scale, torch.get_num_threads()),
        )
        status = next((status for entry in entries if (status := entry(call)) != 0), 0)
        if status == _BAD_LENGTHS:
            raise CallError(
                f"expected lengths from 0, counts from 0 to {new}, at most {longest} tokens in all "
                f"and regions within {slots} slots"
            )
        if status != 0:
            raise MemoryError("the kernel's scratch could not be allocated")


def build_cached(requests: Sequence[tuple[Heads, int, str]], *, optimise: int = 3) -> tuple[CpuCached, ...]:
    """The kernels of several (pattern, head_dim, dtype), built as one library when one of them is first called."""
    symbols = ["sparsec"] if len(requests) == 1 else [f"sparsec_{n}" for n in range(len(requests))]
    plans = [cached_plans(*request) for request in requests]
    source = "\n".join(emit_cpp_cached(*pair, symbol=symbol) for pair, symbol in zip(plans, symbols, strict=True))

    @cache
    def library() -> ctypes.CDLL:
        return ctypes.CDLL(str(compile_shared(source, optimise=optimise)))

    return tuple(_kernel(*pair, source, library, symbol) for pair, symbol in zip(plans, symbols, strict=True))


def cached_plans(pattern: Heads, head_dim: int, dtype: str) -> tuple[CachedPlan, CachedPlan]:
    """The plans of chunks and of single rows; both have the same tables of draws."""
    query_tile, key_tile, *_ = tile_sizes("cpu", head_dim, dtype)
    chunks, rows = (
        plan_cached(pattern, head_dim=head_dim, dtype=dtype, query_tile=queries, key_tile=key_tile)
        for queries in (query_tile, 1)
    )
    return chunks, rows


def _kernel(
    chunks: CachedPlan, rows: CachedPlan, source: str, library: Callable[[], ctypes.CDLL], symbol: str
) -> CpuCached:
    @cache
    def entries() -> Entries:
        return Entries(*(library()[f"{symbol}_{name}"] for name in Entries._fields))

    lists = tuple(spec for head_class in chunks.attend.classes for spec in head_class.program.lists)
    few = ROWS * chunks.attend.heads // len(packs(rows.attend))
    return CpuCached(chunks, source, entries, lists, few)
