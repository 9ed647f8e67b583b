"""A pattern's cached plans -> launched Triton kernels over a KV cache: chunks of queries, decoding, storing.

Invariant: launches follow from shapes and the device alone, never from lengths, and a new length, count of tokens in
the cache or batch size compiles nothing; two runs on the same inputs give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparsec.backends.base import Cached, Lookup
from sparsec.backends.triton.call import aligned_tensor, bias_arguments, strides, with_rows
from sparsec.backends.triton.emit_cached import emit_triton_cached
from sparsec.backends.triton.kernel import (
    LOG2_E,
    check_runs_triton,
    constants,
    load_module,
    new_like,
    target_of,
    with_lists,
    with_positive_scale,
)
from sparsec.backends.triton.launches import KernelEntry, launch
from sparsec.ir.bands.liveness import Region
from sparsec.plan.heads import PackTable
from sparsec.plan.kv.cached import CachedPlan
from sparsec.plan.launch import CachedLaunch
from sparsec.plan.target import DECODE_ROWS, MERGED, PLAIN, STORE_ROWS, decode_program_rows, decode_splits
from sparsec.runtime.devices import PerDevice, device_tensor


@dataclass(frozen=True, slots=True)
class Pack:
    """The decode kernel of one class, for so many query rows: an entry, its packs of heads, and rows of a program."""

    entry: KernelEntry
    packs: int
    heads: Tensor
    """int64, the heads of the class."""


@dataclass(frozen=True, slots=True)
class Entries:
    """All kernels of a pattern over a cache on one device, class by class; `decode[n]` serves n + 1 query rows."""

    chunk: tuple[KernelEntry, ...]
    decode: tuple[tuple[Pack, ...], ...]
    merge: KernelEntry
    store: KernelEntry
    splits: Callable[[int, int, int], tuple[int, ...]]
    """In how many parts each class takes its keys, for a batch, its query rows and the slots of the arena."""


@dataclass(frozen=True, slots=True)
class TritonCached:
    """See `backends.base.CachedKernel`; the kernels of few queries take up to DECODE_ROWS."""

    plan: CachedLaunch
    emit: Callable[[], str]
    allow_tf32: bool = False
    entries: PerDevice[Entries] = field(init=False, repr=False, compare=False)
    advances: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", PerDevice(self._entries_on))

    @classmethod
    def of(cls, chunk_plan: CachedPlan, decode_plan: CachedPlan, *, allow_tf32: bool = False) -> TritonCached:
        """Two plans of one pattern, of tiles of `plan.target.cached_tile_sizes` and `decode_tile_sizes`."""
        emit = cache(lambda: emit_triton_cached(chunk_plan, decode_plan))
        return cls(CachedLaunch.of(chunk_plan, decode_plan), emit, allow_tf32)

    @classmethod
    def load(cls, plan: CachedLaunch, source: str) -> TritonCached:
        """The kernels of `source`, which `emit_triton_cached` made of what `plan` launches."""
        return cls(plan, lambda: source)

    @property
    def source(self) -> str:
        return self.emit()

    def build(self) -> None:
        """Kernels are built at their first launch."""

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
        check_runs_triton(q)
        plan = self.plan.chunks
        out = new_like(q, zero=False, columns=v.shape[3])
        lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
        if q.numel() == 0:
            return out.to(q.dtype), lse
        q, positive = with_positive_scale(q, plan.scale(scale))
        given = _shared(with_rows(q), with_rows(k), with_rows(v), cache)
        given |= {"scale_log2": positive * LOG2_E, "out": out, "lse": lse}
        given |= bias_arguments(key_bias)
        given["sink"] = None if sink is None else aligned_tensor(sink)
        entries = self.entries.on(q.device)
        (self._decode if q.shape[2] <= DECODE_ROWS else self._chunk)(entries, given, q, cache, lists)
        if store:
            _store(entries, given, k)
        return out.to(q.dtype), lse

    def _chunk(
        self, entries: Entries, given: dict[str, object], q: Tensor, cache: Cached, lists: Sequence[Tensor]
    ) -> None:
        classes = self.plan.chunks.classes
        for entry, launched, tables in zip(entries.chunk, classes, with_lists(classes, lists), strict=True):
            tiles = _tiles(q.shape[2], launched.query_tile)
            programs = q.shape[0] * tiles * len(launched.table)
            launch(entry, programs, {**given, "tiles": tiles, **_draws(tables)})

    def _decode(
        self, entries: Entries, given: dict[str, object], q: Tensor, cache: Cached, lists: Sequence[Tensor]
    ) -> None:
        classes = self.plan.few.classes
        batch, heads, rows, _ = q.shape
        classes_packs, splits = entries.decode[rows - 1], entries.splits(batch, rows, cache.keys.shape[1])
        most = max(splits)
        parts = part_logs = given["lse"]
        if most > 1:
            part_logs = torch.empty((most, batch, heads, rows), dtype=torch.float32, device=q.device)
            parts = part_logs.new_empty((*part_logs.shape, self.plan.few.value_dim))
        given |= {"parts": parts, "part_logs": part_logs}
        for n, tables in enumerate(with_lists(classes, lists)):
            pack, tiles = classes_packs[n], _tiles(rows, classes[n].query_tile)
            own = {"tiles": tiles, "splits": splits[n], **_draws(tables)}
            launch(pack.entry, batch * tiles * pack.packs * splits[n], {**given, **own})
        if most > 1:
            by_head = torch.full((heads,), splits[0], dtype=torch.int32, device=q.device)
            for pack, split in zip(classes_packs, splits, strict=True):
                if split != splits[0]:
                    by_head.index_fill_(0, pack.heads, split)
            launch(entries.merge, batch * heads * rows, {**given, "head_splits": by_head})

    def store(self, k: Tensor, v: Tensor, cache: Cached) -> None:
        check_runs_triton(k)
        if k.numel() == 0:
            return
        k, v = with_rows(k), with_rows(v)
        _store(self.entries.on(k.device), _shared(k, k, v, cache), k)

    def _entries_on(self, device: torch.device) -> Entries:
        module, target, plan = load_module(self.source), target_of(device), self.plan.chunks
        fixed, chunk = constants(plan, self.allow_tf32, device), []
        for n, launched in enumerate(plan.classes):
            given = {**fixed, "table": device_tensor(launched.table, device)}
            chunk.append(
                KernelEntry(getattr(module, f"attend_{n}"), device, self.plan.chunk_shape(launched, target), given)
            )
        table, most = device_tensor(self.plan.store, device), _processors(device)
        return Entries(
            tuple(chunk),
            tuple(zip(*(self._packs(module, n, fixed, target, device) for n in range(len(chunk))), strict=True)),
            KernelEntry(module.merge, device, PLAIN, {"PARTS": MERGED}),
            KernelEntry(module.store, device, PLAIN, {"table": table, "ROWS": STORE_ROWS}),
            lru_cache(maxsize=64)(partial(self._splits, target, most)),
        )

    def _packs(
        self, module: Any, n: int, fixed: Mapping[str, object], target: str, device: torch.device
    ) -> Iterator[Pack]:
        """Of class `n`, for 1, 2, ... DECODE_ROWS query rows."""
        launched, made = self.plan.few.classes[n], dict[PackTable, dict[str, object]]()
        heads = device_tensor(launched.heads, device, torch.int64)
        for rows in range(1, DECODE_ROWS + 1):
            found = self.plan.decode_packs(launched, target, rows)
            if found not in made:
                made[found] = {
                    "table": device_tensor(found.table, device),
                    "members": device_tensor(found.members, device),
                    "packs": len(found.members),
                    "width": len(found.members[0]),
                }
            most = decode_program_rows(len(found.members[0]) * rows)
            shape = self.plan.decode_shape(launched, target, most)
            entry = KernelEntry(getattr(module, f"decode_{n}"), device, shape, {**fixed, **made[found], "ROWS": most})
            yield Pack(entry, len(found.members), heads)

    def _splits(self, target: str, processors: int, batch: int, rows: int, slots: int) -> tuple[int, ...]:
        """How a call's work is divided: shapes and the device decide, not lengths."""
        plan, groups = self.plan.few, self.plan.layout.groups
        found = []
        for launched in plan.classes:
            kept = max(_iterations(groups[head // plan.share], slots, launched.key_tile) for head in launched.heads)
            packs = len(self.plan.decode_packs(launched, target, rows).table)
            programs = batch * packs * -(-rows // launched.query_tile)
            iterations = kept + _tiles(rows, launched.key_tile)
            found.append(decode_splits(target, processors, programs, iterations))
        return tuple(found)


def _store(entries: Entries, given: Mapping[str, object], k: Tensor) -> None:
    batch, groups, rows, _ = k.shape
    tiles = -(-rows // STORE_ROWS)
    launch(entries.store, batch * groups * tiles, {**given, "tiles": tiles})


def _shared(q: Tensor, k: Tensor, v: Tensor, cache: Cached) -> dict[str, object]:
    """Arguments of every kernel."""
    strided = {"q": q, "k": k, "v": v}
    return {
        **strided,
        **strides(strided, cache.keys, cache.values),
        "keys": cache.keys,
        "values": cache.values,
        "lengths": cache.lengths,
        "counts": cache.counted(q.shape[2]),
        "places": cache.places,
        "nq": q.shape[2],
        "slots": cache.keys.shape[1],
        "batches": q.shape[0],
    }


def _tiles(rows: int, size: int) -> int:
    """The most tiles of an absolute grid that `rows` rows may touch."""
    return -(-(rows - 1) // size) + 1


def _draws(tables: Sequence[Tensor]) -> dict[str, object]:
    named: dict[str, object] = {f"draws_{n}": table for n, table in enumerate(tables)}
    return named | {f"blocks_{n}": table.shape[1] for n, table in enumerate(tables)}


def _iterations(group: tuple[Region, ...], slots: int, key_tile: int) -> int:
    """At least as many key tiles as one query may need of the group's arena."""
    tiles = 0
    for region in group:
        keys = region.reach
        if region.stop is not None:
            keys = min(keys or region.stop, region.stop - region.start)
        tiles += _tiles(min(slots, slots if keys is None else keys) + 1, key_tile)
    return tiles


def _processors(device: torch.device) -> int:
    """Multiprocessors."""
    return 1 if device.type == "cpu" else torch.cuda.get_device_properties(device).multi_processor_count
