"""Attention over a cache on CPU tensors: one library with a kernel for chunks, one for a few queries, and the storing.

Invariant: outputs are the same bit for bit whatever the number of threads; no length is read in Python.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sparsec.backends.base import Cached, KeyMass, Lookup
from sparsec.backends.cpu import calls
from sparsec.backends.cpu.emit_cached import emit_cpp_cached, emit_cpp_cached_mass
from sparsec.backends.cpu.kept import list_call
from sparsec.backends.cpu.kernel import (
    TORCH_DTYPES,
    DrawList,
    address,
    check_call,
    compile_shared,
    open_library,
    table_address,
)
from sparsec.backends.cpu.lookups import bias_arguments, lookup_table, with_whole_rows
from sparsec.backends.room import check_room
from sparsec.diagnostics.model import CallError
from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.plan.kv.cached import CachedPlan
from sparsec.plan.launch import CachedLaunch, LaunchPlan
from sparsec.plan.target import CPU_FEW_ROWS
from sparsec.runtime.kv.lists import check_append
from sparsec.runtime.kv.stored import width_of

_BAD_LENGTHS, _NO_ROOM = 2, 3
_CALL = calls.CACHED.packer()
_UNSAID = (0,) * (calls.CACHED.numbers - 22)
"""Of a call that encodes, between its tokens and its threads."""

Entry = Callable[[bytes], int]


class Entries(NamedTuple):
    """The entry points of a library; each takes a pointer to a call."""

    attend_chunk: Entry
    attend_rows: Entry
    store: Entry
    append: Entry | None = None
    """Of lists of kept keys."""
    encode: Entry | None = None
    """Of a cache that stores keys and values in another dtype."""


NAMES = ("attend_chunk", "attend_rows", "store")
"""The entry points of a library without lists."""
NAMES_WITH_LISTS = (*NAMES, "append")


@dataclass(frozen=True, slots=True)
class CpuCached:
    """See `backends.base.CachedKernel`; `entries` loads the library, building it the first time (BuildError).

    `few`: the most queries of a call for the kernel of single rows (`plan.target.CPU_FEW_ROWS`). `add_mass` loads the
    entry point of a library of its own, which adds the mass of keys row by row; without it there is none. `kv_dtype`:
    what the cache stores that is not what calls give.
    """

    plan: CachedLaunch
    source: str
    entries: Callable[[], Entries]
    few: int
    add_mass: Callable[[], Entry] | None = None
    kv_dtype: str | None = None
    advances: ClassVar[bool] = True

    @property
    def weighs(self) -> bool:
        return self.add_mass is not None

    @staticmethod
    def of(chunks: CachedPlan, rows: CachedPlan, kv_dtype: str | None = None) -> CpuCached:
        """The kernels of a pattern's plans for chunks and for few queries, not built before the first call."""
        return build_cached(((chunks, rows),), kv_dtype=kv_dtype)[0]

    @staticmethod
    def load(plan: CachedLaunch, source: str, library: Path, mass: Path | None, symbol: str = "sparsec") -> CpuCached:
        """The kernels from a library that `compile_shared(source)` made, `source` being what `plan` launches, and from
        that of their mass of keys, if there is one; the entry points begin with `symbol`."""
        loaded, of_mass = open_library(library), None if mass is None else open_library(mass)
        add_mass = None if of_mass is None else lambda: of_mass[f"{symbol}_add_mass"]
        return _kernel(plan, source, lambda: loaded, symbol, add_mass)

    def build(self) -> None:
        self.entries()

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
        checked: bool = False,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        plan = self.plan.chunks
        if not checked:
            check_call(plan, q, k, v, 0, sink, None)
            self._check_new(k, v, cache)
        few = q.shape[2] <= self.few
        k, v = self._encoded(k, v)
        if few or cache.mass is not None:
            k, v = (t if t.stride(3) == 1 else t.contiguous() for t in (k, v))
        else:
            k, v = with_whole_rows(plan, k, v)
        out = torch.empty((*q.shape[:3], plan.value_dim), dtype=q.dtype)
        lse = torch.empty(q.shape[:3], dtype=torch.float32)
        sink = None if sink is None else sink.detach().contiguous()
        tables, longest = draw_tables_of(plan, lists) if plan.lists else (None, POSITION_LIMIT)
        if cache.kept is not None and not plan.of_inputs:
            lookups = list_call(plan, cache).lookups
        else:
            lookups = lookup_table(plan, inputs, q.shape[0], cache.kept)
        of_attend = (
            *(out.data_ptr(), lse.data_ptr(), table_address(tables), table_address(lookups)),
            address(sink),
            bias_arguments(plan, key_bias, q.shape[0]),
            plan.scale(scale),
        )
        entries = self.entries()
        attend = entries.attend_rows if few else entries.attend_chunk
        before = () if entries.append is None else (entries.append,)
        assert store or not before, "marked keys are seen in the lists"
        after: tuple[Entry, ...] = (entries.store,) if store else ()
        if cache.mass is not None:
            assert self.add_mass is not None, "asked of kernels that weigh"
            after = self.add_mass(), *after
        self._run((*before, attend, *after), (q, k, v), cache, longest, of_attend)
        return out, lse

    def store(self, k: Tensor, v: Tensor, cache: Cached) -> None:
        self._check_new(k, v, cache)
        k, v = self._encoded(k, v)
        entries = self.entries()
        named = (entries.store,) if entries.append is None else (entries.append, entries.store)
        self._run(named, (k, k, v), cache, POSITION_LIMIT, (0, 0, 0, 0, 0, (0,) * 6, 0.0))

    def _encoded(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The call's keys and values as the cache stores them."""
        if self.kv_dtype is None:
            return k, v
        dtype, encode = TORCH_DTYPES[self.kv_dtype], self.entries().encode
        assert encode is not None, "of kernels that take another dtype"
        keys, values = (torch.empty((*t.shape[:3], width_of(t.shape[3], dtype)), dtype=dtype) for t in (k, v))
        call = _CALL.pack(
            *(0, k.data_ptr(), v.data_ptr(), keys.data_ptr(), values.data_ptr(), 0, 0),
            *(0, 0, 0, 0, *k.stride(), *v.stride()),
            *(k.shape[0], k.shape[2], *_UNSAID, torch.get_num_threads()),
        )
        encode(call)
        return keys, values

    def _run(
        self,
        entries: tuple[Entry, ...],
        given: tuple[Tensor, Tensor, Tensor],
        cache: Cached,
        longest: int,
        of_attend: tuple[int, int, int, int, int, tuple[int, ...], float],
    ) -> None:
        """One call on q, k and v, for each of the entries; `of_attend`: out, lse, lists, inputs, sink, bias, scale."""
        q, k, v = given
        keys, values, lengths, places = cache.keys, cache.values, cache.lengths, cache.places
        if not cache.checked:
            self._check_cache(cache)
        batch, slots, _ = keys.shape
        new, counts = k.shape[2], 0
        if cache.counts is not None:
            _check_tensor("counts", cache.counts, (batch,), torch.int32)
            counts = cache.counts.data_ptr()
        out, lse, lists, inputs, sink, bias, scale = of_attend
        longest = min(longest, cache.max_len)
        state = 0 if cache.state is None else cache.state.data_ptr()
        kept = 0 if cache.kept is None else list_call(self.plan.chunks, cache).with_marks()
        mass = (0, 0, 0) if cache.mass is None else _mass_arguments(cache.mass, batch, self.plan.chunks)
        call = _CALL.pack(
            *(q.data_ptr(), k.data_ptr(), v.data_ptr(), keys.data_ptr(), values.data_ptr(), out, lse),
            *(*q.stride(), *k.stride(), *v.stride()),
            *(batch, new, slots, longest),
            *(lengths.data_ptr(), counts, state, places.data_ptr(), kept, *mass),
            *(lists, inputs, sink, *bias),
            *(scale, torch.get_num_threads()),
        )
        status = next((status for entry in entries if (status := entry(call)) != 0), 0)
        if status == _BAD_LENGTHS:
            have, more = cache.numbers(new)
            check_room(have, more, longest)
            raise CallError(
                f"expected lengths from 0, counts from 0 to {new} and regions within {slots} slots, "
                f"got {have}, {more} and {cache.places.tolist()}"
            )
        if status == _NO_ROOM and cache.kept is not None:
            check_append(cache.kept, new, cache.counted(new))
        if status != 0:
            raise MemoryError("the kernel's scratch could not be allocated")

    def _check_new(self, k: Tensor, v: Tensor, cache: Cached) -> None:
        """Raises CallError for keys and values that the cache cannot take."""
        plan = self.plan.chunks
        dtype, rows = TORCH_DTYPES[plan.dtype], (len(cache.keys), plan.kv_heads, *k.shape[2:3])
        for name, tensor, dim in (("k", k, plan.head_dim), ("v", v, plan.value_dim)):
            wanted = dtype, (*rows, dim)
            if (tensor.dtype, tuple(tensor.shape)) != wanted or not tensor.is_cpu:
                raise CallError(f"expected {name} {wanted}, got {tensor.dtype} {list(tensor.shape)} on {tensor.device}")

    def _check_cache(self, cache: Cached) -> None:
        """Raises CallError for tensors that the kernels cannot take."""
        plan = self.plan.chunks
        keys, dtype = cache.keys, TORCH_DTYPES[self.kv_dtype or plan.dtype]
        batch, slots = keys.shape[:2]
        _check_tensor("keys", keys, (batch, slots, width_of(plan.head_dim, dtype)), dtype)
        _check_tensor("values", cache.values, (batch, slots, width_of(plan.value_dim, dtype)), dtype)
        _check_tensor("lengths", cache.lengths, (batch,), torch.int32)
        _check_tensor("places", cache.places, (plan.kv_heads, self.plan.regions, 2), torch.int32)
        if cache.state is not None:
            _check_tensor("state", cache.state, (3, batch), torch.int64)
        cache.checked = True


def draw_tables_of(plan: LaunchPlan, lists: tuple[Tensor, ...]) -> tuple[ctypes.Array[ctypes.Structure], int]:
    """The tables as the kernels take them, and the number of positions that all of them cover."""
    longest, rows = POSITION_LIMIT, []
    for spec, table in zip(plan.lists, lists, strict=True):
        if (table.dtype, table.dim(), table.is_contiguous()) != (torch.int32, 3, True):
            raise CallError(f"expected contiguous int32 tables of draws, got {table.dtype} {list(table.shape)}")
        if (table.shape[0], table.shape[2]) != (len(spec.lanes), spec.width):
            wanted = [len(spec.lanes), "blocks", spec.width]
            raise CallError(f"expected a table of draws of shape {wanted}, got {list(table.shape)}")
        longest = min(longest, table.shape[1] * spec.block)
        rows.append(DrawList(table.data_ptr(), 0, table.shape[1]))
    return (DrawList * len(rows))(*rows), longest


def _check_tensor(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if (tensor.dtype, tuple(tensor.shape)) != (dtype, shape) or not (tensor.is_cpu and tensor.is_contiguous()):
        raise CallError(
            f"expected {name} of a cache to be contiguous on the CPU, {dtype} {list(shape)}, "
            f"got {tensor.dtype} {list(tensor.shape)} on {tensor.device}"
        )


def _mass_arguments(mass: KeyMass, batch: int, plan: LaunchPlan) -> tuple[int, int, int]:
    keys, groups = mass.sums.shape[-1], mass.groups
    _check_tensor("mass", mass.sums, (batch, plan.heads, keys), torch.float32)
    if groups is not None:
        _check_tensor("mass groups", groups, (plan.kv_heads,), torch.bool)
    return mass.sums.data_ptr(), keys, 0 if groups is None else groups.data_ptr()


def build_cached(
    plans: Sequence[tuple[CachedPlan, CachedPlan]], *, optimise: int = 3, kv_dtype: str | None = None
) -> tuple[CpuCached, ...]:
    """The kernels of several patterns' two plans, built as one library when one of them is first called."""
    symbols = ["sparsec"] if len(plans) == 1 else [f"sparsec_{n}" for n in range(len(plans))]
    named = tuple(zip(plans, symbols, strict=True))
    source = "\n".join(emit_cpp_cached(*pair, symbol=symbol, kv_dtype=kv_dtype) for pair, symbol in named)

    @cache
    def library() -> ctypes.CDLL:
        return open_library(compile_shared(source, optimise=optimise))

    @cache
    def of_mass() -> ctypes.CDLL:
        texts = (emit_cpp_cached_mass(*pair, symbol=symbol, kv_dtype=kv_dtype) for pair, symbol in named)
        return open_library(compile_shared("\n".join(texts), optimise=optimise))

    return tuple(
        _kernel(
            CachedLaunch.of(*pair),
            source,
            library,
            symbol,
            lambda symbol=symbol: of_mass()[f"{symbol}_add_mass"],  # type: ignore[misc]  # of a lambda's default
            kv_dtype,
        )
        for pair, symbol in named
    )


def _kernel(
    plan: CachedLaunch,
    source: str,
    library: Callable[[], ctypes.CDLL],
    symbol: str,
    add_mass: Callable[[], Entry] | None = None,
    kv_dtype: str | None = None,
) -> CpuCached:
    names = (*(NAMES if plan.kept is None else NAMES_WITH_LISTS), *(() if kv_dtype is None else ("encode",)))

    @cache
    def entries() -> Entries:
        return Entries(**{name: library()[f"{symbol}_{name}"] for name in names})

    return CpuCached(plan, source, entries, CPU_FEW_ROWS * plan.chunks.heads // plan.packs, add_mass, kv_dtype)
