"""A pattern's cached plans -> launched Triton kernels over a server's pages: a class's query tiles, and its few rows.

Invariant: launches follow from shapes and the device alone, and nothing of a call is waited for; a new number of
tokens, requests or pages compiles nothing, a new page size does; two runs on the same inputs give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from sparsec.backends.base import Lookup
from sparsec.backends.paged import Pages, check_requests
from sparsec.backends.triton.asking import find_visits
from sparsec.backends.triton.cached import draw_arguments, tells_apart
from sparsec.backends.triton.cached_entries import CachedText, lasting, most_iterations, most_tiles
from sparsec.backends.triton.call import aligned_tensor, bias_arguments, strides, with_rows
from sparsec.backends.triton.emit_paged import REQUESTS, emit_triton_paged
from sparsec.backends.triton.kernel import (
    LOG2_E,
    check_runs_triton,
    constants,
    new_like,
    target_of,
    with_lists,
    with_positive_scale,
)
from sparsec.backends.triton.launches import KernelEntry, launch, processors_of
from sparsec.backends.triton.lookups import input_arguments
from sparsec.backends.triton.modules import load_module
from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.plan.heads import PackTable
from sparsec.plan.kv.cached import CachedPlan
from sparsec.plan.kv.pages import with_dead_keys
from sparsec.plan.launch import CachedLaunch, LaunchClass
from sparsec.plan.list_shapes import gather_rows, gather_shape
from sparsec.plan.target import (
    DECODE_ROWS,
    MERGED,
    PLAIN,
    WALKED_TILES,
    LaunchShape,
    decode_program_rows,
    decode_splits,
)
from sparsec.runtime.devices import PerDevice, device_tensor


@dataclass(frozen=True, slots=True)
class TritonPaged(CachedText):
    """See `backends.paged.PagedKernel`. Starts and lengths are checked on the CPU alone.

    Pages whose rows are not dense, or lie very far apart, are copied at every call. `alone`: of programs that have one
    query head each, for inputs that tell those of a KV group apart.
    """

    entries: PerDevice[_Entries] = field(init=False, repr=False, compare=False)
    alone: PerDevice[_Entries] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", PerDevice(partial(self._entries_on, apart=False)))
        object.__setattr__(self, "alone", PerDevice(partial(self._entries_on, apart=True)))

    @classmethod
    def of(cls, chunk_plan: CachedPlan, decode_plan: CachedPlan, *, allow_tf32: bool = False) -> TritonPaged:
        """Of the plans of `TritonCached.of`."""
        plans = with_dead_keys(chunk_plan), with_dead_keys(decode_plan)
        return cls(CachedLaunch.of(*plans), cache(lambda: emit_triton_paged(*plans)), allow_tf32)

    def attend(
        self,
        q: Tensor,
        pages: Pages,
        *,
        scale: float | None,
        lists: tuple[Tensor, ...] = (),
        sink: Tensor | None = None,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        plan, tokens = self.plan.chunks, len(q)
        entries = (self.alone if tells_apart(inputs, key_bias, plan.kv_heads) else self.entries).on(q.device)
        longest = min(pages.longest, POSITION_LIMIT - 1)
        if pages.starts.is_cpu:
            check_requests(pages.starts.tolist(), pages.lengths.tolist(), tokens, longest)
        gathers = any(entries.gathers)  # what tiles give and what lists give meet in `out`, so it is rounded at the end
        out = new_like(q, zero=False, wide=gathers, columns=plan.value_dim)
        lse = torch.empty(q.shape[:2], dtype=torch.float32, device=q.device)
        if not tokens:
            return out.to(q.dtype), lse
        of_heads, positive = with_positive_scale(q.transpose(0, 1)[None], plan.scale(scale))
        given: dict[str, object] = {**_of_memory(of_heads, pages), **_of_requests(pages, tokens, longest)}
        given |= {"out": out, "lse": lse, "scale_log2": positive * LOG2_E, "few": entries.few}
        given |= {"sink": None if sink is None else aligned_tensor(sink), **bias_arguments(key_bias)}
        self._chunks(entries, pages, {**given, **input_arguments(plan, inputs)}, lists)
        self._few(entries, pages, {**given, **input_arguments(self.plan.few, inputs)}, lists)
        given |= input_arguments(plan, inputs)
        for of, tables in zip(entries.gathers, with_lists(plan.classes, lists), strict=True):
            if of is not None:
                launch(of.entry, tokens * of.packs, {**given, **draw_arguments(tables)})
        return out.to(q.dtype), lse

    def _chunks(self, entries: _Entries, pages: Pages, given: dict[str, object], lists: tuple[Tensor, ...]) -> None:
        plan, tokens, longest = self.plan.chunks, given["tokens"], given["longest"]
        assert isinstance(tokens, int) and isinstance(longest, int), "numbers of the call"
        most = tokens // (entries.few + 1)  # at most so many requests have more than a few rows
        of_classes = zip(entries.chunk, plan.classes, with_lists(plan.classes, lists), strict=True)
        for of, launched, tables in of_classes if most else ():
            tiles = tokens // launched.query_tile + 2 * min(len(pages.lengths), most)
            of.attend(tiles * len(launched.table), 1, longest, {**given, **draw_arguments(tables)})

    def _few(self, entries: _Entries, pages: Pages, given: dict[str, object], lists: tuple[Tensor, ...]) -> None:
        plan, requests, few = self.plan.few, len(pages.lengths), entries.few
        longest = min(pages.longest, POSITION_LIMIT - 1)
        splits = entries.splits(requests, longest)
        if most := max(splits) if max(splits) > 1 else 0:
            rows = most, requests, few, plan.heads
            given["parts"] = torch.empty((*rows, plan.value_dim), dtype=torch.float32, device=entries.merge.device)
            given["part_logs"] = torch.empty(rows, dtype=torch.float32, device=entries.merge.device)
        else:
            given |= {"parts": given["lse"], "part_logs": given["lse"]}
        of_classes = zip(entries.decode, plan.classes, splits, with_lists(plan.classes, lists), strict=True)
        for of, launched, split, tables in of_classes:
            programs = requests * entries.tiles(launched) * of.packs
            of.attend(programs, split, longest, {**given, "splits": split, **draw_arguments(tables)})
        if most:
            by_head = {head: split for each, split in zip(plan.classes, splits, strict=True) for head in each.heads}
            merged = [by_head[head] if by_head[head] > 1 else 0 for head in sorted(by_head)]
            given["head_splits"] = lasting(entries.numbers, entries.merge.device, splits, lambda: merged)
            launch(entries.merge, requests * few * plan.heads, given)

    def _entries_on(self, device: torch.device, *, apart: bool) -> _Entries:
        check_runs_triton(device)
        on = _On(self.plan, load_module(self.source), device, target_of(device), apart, self.allow_tf32)
        few = min(on.most_rows(of) for of in self.plan.few.classes)
        classes = range(len(self.plan.chunks.classes))
        return _Entries(
            self.plan,
            tuple(map(on.chunk, classes)),
            tuple(on.few(n, few) for n in classes),
            tuple(map(on.gather, classes)),
            KernelEntry(on.module.merge, device, PLAIN, {"PARTS": MERGED}),
            few,
            on.target,
        )


@dataclass(frozen=True, slots=True)
class _TileKernels:
    """Of one class; `visits` finds the tiles that inputs add, `tiles` attends to these and to all others; None for a
    kernel that it lacks. `packs`: programs of few rows for those of one query tile."""

    visits: KernelEntry | None
    tiles: KernelEntry | None
    packs: int
    key_tile: int

    def attend(self, programs: int, splits: int, longest: int, given: dict[str, object]) -> None:
        """By so many programs for each of the splits of their keys, of which a request has `longest` at most."""
        if self.visits is not None:
            find_visits(self.visits, programs, -(-longest // self.key_tile), given)
        if self.tiles is not None:
            launch(self.tiles, programs * splits, given)


@dataclass(frozen=True, slots=True)
class _GatherKernel:
    """That of a class for lists of rows; `packs`: its programs for one row."""

    entry: KernelEntry
    packs: int


@dataclass(frozen=True, slots=True)
class _Entries:
    """All kernels of a pattern over pages on one device; `few`: the most rows of a request for those of `decode`."""

    plan: CachedLaunch
    chunk: tuple[_TileKernels, ...]
    decode: tuple[_TileKernels, ...]
    gathers: tuple[_GatherKernel | None, ...]
    merge: KernelEntry
    few: int
    target: str
    numbers: dict[Any, Tensor] = field(default_factory=dict)

    def tiles(self, launched: LaunchClass) -> int:
        """The most query tiles of few rows."""
        return most_tiles(self.few, launched.query_tile)

    def splits(self, requests: int, longest: int) -> tuple[int, ...]:
        """In how many parts programs of each class take their keys: of one without tiles nothing is put together."""
        found, plan = [], self.plan
        for launched, of in zip(plan.few.classes, self.decode, strict=True):
            groups = {head // plan.few.share for head in launched.heads}
            of_groups = (most_iterations(plan.layout.groups[group], longest, launched.key_tile) for group in groups)
            iterations = max(of_groups) + most_tiles(self.few, launched.key_tile)
            programs = requests * of.packs
            parts = decode_splits(self.target, processors_of(self.merge.device), programs, iterations)
            found.append(1 if of.tiles is None else parts)
        return tuple(found)


@dataclass(frozen=True, slots=True)
class _On:
    """What makes the entries of a device. `apart`: each query head has programs of its own."""

    plan: CachedLaunch
    module: Any
    device: torch.device
    target: str
    apart: bool
    allow_tf32: bool

    def chunk(self, n: int) -> _TileKernels:
        launched = self.plan.chunks.classes[n]
        given: dict[str, object] = {"table": device_tensor(launched.table, self.device), "REQUESTS": REQUESTS}
        return self._tiles(f"attend_{n}", self.plan.chunk_shape(launched, self.target), given, 0, launched.key_tile)

    def most_rows(self, launched: LaunchClass) -> int:
        """The most rows of a request that one program has, of all heads of a pack."""
        width = len(self._packs(launched).members[0])
        return min(DECODE_ROWS, decode_program_rows(width) // width)

    def few(self, n: int, few: int) -> _TileKernels:
        launched = self.plan.few.classes[n]
        packs = self._packs(launched)
        rows = decode_program_rows(len(packs.members[0]) * few)
        shape, given = self.plan.decode_shape(launched, self.target, rows), {**self._packed(packs), "ROWS": rows}
        return self._tiles(f"decode_{n}", shape, given, len(packs.members), launched.key_tile)

    def gather(self, n: int) -> _GatherKernel | None:
        plan, packs = self.plan.chunks, self._packs(self.plan.chunks.classes[n])
        shape, keys = gather_shape(self.target, plan.head_dim, plan.dtype)
        rows = gather_rows(len(packs.members[0]))
        given = {**self._packed(packs), "ROWS": rows, "KEYS": keys, "REQUESTS": REQUESTS}
        entry = self._entry(f"gather_attend_{n}", shape, given)
        return None if entry is None else _GatherKernel(entry, len(packs.members))

    def _tiles(
        self, name: str, shape: LaunchShape, given: dict[str, object], packs: int, key_tile: int
    ) -> _TileKernels:
        visits = self._entry(f"list_{name}", PLAIN, {**given, "WALK": WALKED_TILES})
        return _TileKernels(visits, self._entry(name, shape, given), packs, key_tile)

    def _entry(self, name: str, shape: LaunchShape, given: Mapping[str, object]) -> KernelEntry | None:
        function = getattr(self.module, name, None)
        fixed = constants(self.plan.chunks, self.allow_tf32, self.device)
        return None if function is None else KernelEntry(function, self.device, shape, {**fixed, **given})

    def _packs(self, launched: LaunchClass) -> PackTable:
        return self.plan.decode_packs(launched, self.target, 1, apart=self.apart)

    def _packed(self, packs: PackTable) -> dict[str, object]:
        return {
            "table": device_tensor(packs.table, self.device),
            "members": device_tensor(packs.members, self.device),
            "packs": len(packs.members),
            "width": len(packs.members[0]),
        }


def _of_memory(q: Tensor, pages: Pages) -> dict[str, object]:
    """Of q [1, H, tokens, D] and the pages."""
    q, keys, values = with_rows(q), _with_near_rows(pages.keys), _with_near_rows(pages.values)
    numbers = {"pages": len(keys), "PAGE": pages.page_size}
    found = {"q": q, "keys": keys, "values": values, **numbers, **strides({"q": q, "k": keys, "v": values})}
    return found | {"q_batch": 0}  # all requests' rows are in one


def _with_near_rows(pages: Tensor) -> Tensor:
    """[pages, G, page size, D], of pages with dense rows that lie less than 2**31 elements apart."""
    found = with_rows(pages.transpose(1, 2))
    return found if found.stride(2) * found.shape[2] < 1 << 31 else found.contiguous()


def _of_requests(pages: Pages, tokens: int, longest: int) -> dict[str, object]:
    return {
        "starts": pages.starts,
        "lengths": pages.lengths,
        "page_table": pages.table,
        "requests": len(pages.lengths),
        "room": pages.table.shape[1],
        "tokens": tokens,
        "longest": longest,
    }
