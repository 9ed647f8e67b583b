"""A pattern's cached plans -> launched Triton kernels over a KV cache: chunks of queries, decoding, storing.

Invariant: launches follow from shapes and the device alone, never from lengths, and a new length, count of tokens in
the cache or batch size compiles nothing; two runs on the same inputs give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparsec.codegen.triton import head_table
from sparsec.codegen.triton_cached import emit_triton_cached, group_table, packs
from sparsec.ir.liveness import Region
from sparsec.plan.cached import CachedPlan
from sparsec.plan.kernel import HeadClass
from sparsec.plan.target import DECODE_ROWS, cached_shape, decode_rows, decode_shape, decode_splits
from sparsec.runtime.cached_kernel import Cached
from sparsec.runtime.triton import (
    check_device,
    constants,
    load_module,
    new_like,
    scale_of,
    target_of,
    with_lists,
    with_positive_scale,
)
from sparsec.runtime.triton_call import launch, on_device, strides, with_rows

STORE_ROWS = 16
"""Rows of one program of `store`."""
MERGED = 16
"""Splits that one step of `merge` adds."""


@dataclass(frozen=True, slots=True)
class TritonCached:
    """See `runtime.cached_kernel.CachedKernel`; `plan` serves chunks, `decode_plan` up to DECODE_ROWS queries."""

    plan: CachedPlan
    decode_plan: CachedPlan
    emit: Callable[[], str]
    allow_tf32: bool = False
    advances: ClassVar[bool] = False

    @classmethod
    def of(cls, chunk_plan: CachedPlan, decode_plan: CachedPlan, *, allow_tf32: bool = False) -> TritonCached:
        """Two plans of one pattern, of tiles of `plan.target.cached_tile_sizes` and `decode_tile_sizes`."""
        return cls(chunk_plan, decode_plan, cache(lambda: emit_triton_cached(chunk_plan, decode_plan)), allow_tf32)

    @classmethod
    def load(cls, chunk_plan: CachedPlan, decode_plan: CachedPlan, source: str) -> TritonCached:
        """The kernels of `source`, which `emit_triton_cached` made of plans that launch as these do."""
        return cls(chunk_plan, decode_plan, lambda: source)

    @property
    def source(self) -> str:
        return self.emit()

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
    ) -> tuple[Tensor, Tensor]:
        check_device(q)
        plan = self.plan.attend
        out = new_like(q, zero=False)
        lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
        if q.numel() == 0:
            return out.to(q.dtype), lse
        q, positive = with_positive_scale(q, scale_of(plan, scale))
        given = _shared(with_rows(q), k, v, cache) | constants(plan, positive, self.allow_tf32)
        given |= {"out": out, "lse": lse, "sink": sink}
        module = load_module(self.source)
        (self._decode if q.shape[2] <= DECODE_ROWS else self._chunk)(module, given, q, cache, lists)
        if store:
            self.store(k, v, cache)
        return out.to(q.dtype), lse

    def _chunk(self, module: Any, given: dict[str, object], q: Tensor, cache: Cached, lists: Sequence[Tensor]) -> None:
        plan, target = self.plan.attend, target_of(q.device)
        for n, (head_class, tables) in enumerate(with_lists(plan.classes, lists)):
            size = head_class.program.query_tile
            tiles = _tiles(q.shape[2], size)
            own = {"table": on_device(head_table(head_class), q.device), "tiles": tiles, **_draws(tables)}
            shape = cached_shape(target, plan.head_dim, plan.dtype, size, head_class.program.key_tile)
            programs = q.shape[0] * tiles * len(head_class.heads)
            launch(getattr(module, f"attend_{n}"), programs, given | own, shape.warps, shape.stages, shape.maxnreg)

    def _decode(self, module: Any, given: dict[str, object], q: Tensor, cache: Cached, lists: Sequence[Tensor]) -> None:
        plan, target = self.decode_plan.attend, target_of(q.device)
        batch, heads, rows, head_dim = q.shape
        shares = [self._share(head_class, q, cache, target) for head_class in plan.classes]
        most = max(share.splits for share in shares)
        parts = part_logs = given["lse"]
        if most > 1:
            parts = torch.empty((most, batch, heads, rows, head_dim), dtype=torch.float32, device=q.device)
            part_logs = torch.empty((most, batch, heads, rows), dtype=torch.float32, device=q.device)
        given |= {"parts": parts, "part_logs": part_logs}
        for n, (head_class, tables) in enumerate(with_lists(plan.classes, lists)):
            share, tiles = shares[n], _tiles(rows, head_class.program.query_tile)
            own: dict[str, object] = {"tiles": tiles, "splits": share.splits, "ROWS": share.rows, **_draws(tables)}
            own |= {"packs": len(share.members), "width": len(share.members[0])}
            own |= {"table": on_device(share.table, q.device), "members": on_device(share.members, q.device)}
            shape = decode_shape(target, head_dim, plan.dtype, share.rows, head_class.program.key_tile)
            programs = batch * tiles * len(share.members) * share.splits
            launch(getattr(module, f"decode_{n}"), programs, given | own, shape.warps, shape.stages, shape.maxnreg)
        if most > 1:
            splits = {head: share.splits for share in shares for head in share.heads}
            table = on_device((tuple(splits[head] for head in range(heads)),), q.device)
            launch(module.merge, batch * heads * rows, given | {"head_splits": table, "PARTS": MERGED}, 4, 1)

    def _share(self, head_class: HeadClass, q: Tensor, cache: Cached, target: str) -> _Share:
        """How a class's work is divided: shapes and the device decide, not lengths."""
        plan, program, rows = self.decode_plan.attend, head_class.program, q.shape[2]
        found = packs(plan, head_class, max(1, decode_rows(target, plan.head_dim, plan.dtype) // rows))
        groups = {head // (plan.heads // plan.kv_heads) for head in head_class.heads}
        kept = max(_trips(self.plan.layout.groups[g], cache.keys.shape[1], program.key_tile) for g in groups)
        programs = q.shape[0] * len(found.table) * -(-rows // program.query_tile)
        trips = kept + _tiles(rows, program.key_tile)
        return _Share(
            head_class.heads,
            found.table,
            found.members,
            max(16, 1 << (len(found.members[0]) * rows - 1).bit_length()),
            decode_splits(target, _processors(q.device), programs, trips),
        )

    def store(self, k: Tensor, v: Tensor, cache: Cached) -> None:
        check_device(k)
        if k.numel() == 0:
            return
        tiles = -(-k.shape[2] // STORE_ROWS)
        table = on_device(group_table(self.plan.store), k.device)
        given = _shared(k, k, v, cache) | {"table": table, "tiles": tiles, "ROWS": STORE_ROWS}
        launch(load_module(self.source).store, k.shape[0] * k.shape[1] * tiles, given, 4, 1)


@dataclass(frozen=True, slots=True)
class _Share:
    """Packs of the heads of a class, rows of one program, and into how many parts keys are split."""

    heads: tuple[int, ...]
    table: tuple[tuple[int, ...], ...]
    members: tuple[tuple[int, ...], ...]
    rows: int
    splits: int


def _shared(q: Tensor, k: Tensor, v: Tensor, cache: Cached) -> dict[str, object]:
    """Arguments of every kernel."""
    strided = {"q": q, "k": with_rows(k), "v": with_rows(v)}
    return {
        **strided,
        **strides({**strided, "arena_k": cache.keys[:, None], "arena_v": cache.values[:, None]}),
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


def _trips(group: tuple[Region, ...], slots: int, key_tile: int) -> int:
    """At least as many key tiles as one query may need of the group's arena."""
    trips = 0
    for region in group:
        keys = region.reach
        if region.stop is not None:
            keys = min(keys or region.stop, region.stop - region.start)
        trips += _tiles(min(slots, slots if keys is None else keys) + 1, key_tile)
    return trips


@lru_cache(maxsize=16)
def _processors(device: torch.device) -> int:
    return 1 if device.type == "cpu" else torch.cuda.get_device_properties(device).multi_processor_count
