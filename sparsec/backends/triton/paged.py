"""A pattern's cached plans -> launched Triton kernels over a server's pages: a class's query tiles, and its few rows.

Invariant: launches follow from shapes and the device alone, and nothing of a call is waited for; a new number of
tokens, requests or pages compiles nothing, a new page size does; two runs on the same inputs give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sparsec.backends.paged import Pages, check_requests
from sparsec.backends.triton.cached import draw_arguments
from sparsec.backends.triton.cached_entries import lasting, most_iterations, most_tiles, processors_of
from sparsec.backends.triton.call import aligned_tensor, strides, with_rows
from sparsec.backends.triton.emit_paged import REQUESTS, emit_triton_paged, with_dead_keys
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
from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.plan.heads import PackTable
from sparsec.plan.kv.cached import CachedPlan
from sparsec.plan.launch import CachedLaunch, LaunchClass
from sparsec.plan.target import DECODE_ROWS, MERGED, PLAIN, decode_program_rows, decode_splits
from sparsec.runtime.devices import PerDevice, device_tensor


@dataclass(frozen=True, slots=True)
class TritonPaged:
    """See `backends.paged.PagedKernel`. Starts and lengths are checked on the CPU alone.

    Pages whose rows are not dense, or lie very far apart, are copied at every call.
    """

    plan: CachedLaunch
    emit: Callable[[], str]
    allow_tf32: bool = False
    entries: PerDevice[_Entries] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", PerDevice(self._entries_on))

    @classmethod
    def of(cls, chunk_plan: CachedPlan, decode_plan: CachedPlan, *, allow_tf32: bool = False) -> TritonPaged:
        """Of the plans of `TritonCached.of`."""
        plans = with_dead_keys(chunk_plan), with_dead_keys(decode_plan)
        return cls(CachedLaunch.of(*plans), cache(lambda: emit_triton_paged(*plans)), allow_tf32)

    @property
    def source(self) -> str:
        return self.emit()

    def build(self) -> None:
        """Kernels are built at their first launch."""

    def attend(
        self,
        q: Tensor,
        pages: Pages,
        *,
        scale: float | None,
        lists: tuple[Tensor, ...] = (),
        sink: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        entries, plan, tokens = self.entries.on(q.device), self.plan.chunks, len(q)
        longest = min(pages.longest, POSITION_LIMIT - 1)
        if pages.starts.is_cpu:
            check_requests(pages.starts.tolist(), pages.lengths.tolist(), tokens, longest)
        out = new_like(q, zero=False, columns=plan.value_dim)
        lse = torch.empty(q.shape[:2], dtype=torch.float32, device=q.device)
        if not tokens:
            return out.to(q.dtype), lse
        of_heads, positive = with_positive_scale(q.transpose(0, 1)[None], plan.scale(scale))
        given: dict[str, object] = {**_of_memory(of_heads, pages), **_of_requests(pages, tokens, longest)}
        given |= {"out": out, "lse": lse, "scale_log2": positive * LOG2_E, "few": entries.few}
        given["sink"] = None if sink is None else aligned_tensor(sink)
        chunks = tokens // (entries.few + 1)  # at most so many requests have more than a few rows
        for of, launched, tables in zip(entries.chunk, plan.classes, with_lists(plan.classes, lists), strict=True):
            tiles = tokens // launched.query_tile + 2 * min(len(pages.lengths), chunks) if chunks else 0
            launch(of, tiles * len(launched.table), {**given, **draw_arguments(tables)})
        self._few(entries, pages, given, lists)
        return out.to(q.dtype), lse

    def _few(self, entries: _Entries, pages: Pages, given: dict[str, object], lists: tuple[Tensor, ...]) -> None:
        plan, requests, few = self.plan.few, len(pages.lengths), entries.few
        splits = entries.splits(requests, min(pages.longest, POSITION_LIMIT - 1))
        if most := max(splits) if max(splits) > 1 else 0:
            rows = most, requests, few, plan.heads
            given["parts"] = torch.empty((*rows, plan.value_dim), dtype=torch.float32, device=entries.merge.device)
            given["part_logs"] = torch.empty(rows, dtype=torch.float32, device=entries.merge.device)
        else:
            given |= {"parts": given["lse"], "part_logs": given["lse"]}
        of_classes = zip(entries.decode, plan.classes, splits, with_lists(plan.classes, lists), strict=True)
        for of, launched, split, tables in of_classes:
            programs = requests * entries.tiles(launched) * of.packs * split
            launch(of.entry, programs, {**given, "splits": split, **draw_arguments(tables)})
        if most:
            by_head = {head: split for each, split in zip(plan.classes, splits, strict=True) for head in each.heads}
            merged = [by_head[head] if by_head[head] > 1 else 0 for head in sorted(by_head)]
            given["head_splits"] = lasting(entries.numbers, entries.merge.device, splits, lambda: merged)
            launch(entries.merge, requests * few * plan.heads, given)

    def _entries_on(self, device: torch.device) -> _Entries:
        check_runs_triton(device)
        target, plan, fixed = target_of(device), self.plan, constants(self.plan.chunks, self.allow_tf32, device)
        module, packed = load_module(self.source), [plan.decode_packs(of, target, 1) for of in plan.few.classes]
        few = min(DECODE_ROWS, *(decode_program_rows(len(each.members[0])) // len(each.members[0]) for each in packed))
        return _Entries(
            plan,
            tuple(
                KernelEntry(
                    getattr(module, f"attend_{n}"),
                    device,
                    plan.chunk_shape(of, target),
                    {**fixed, "table": device_tensor(of.table, device), "REQUESTS": REQUESTS},
                )
                for n, of in enumerate(plan.chunks.classes)
            ),
            tuple(
                _few_entry(getattr(module, f"decode_{n}"), device, plan, of, packs, target, few, fixed)
                for n, (of, packs) in enumerate(zip(plan.few.classes, packed, strict=True))
            ),
            KernelEntry(module.merge, device, PLAIN, {"PARTS": MERGED}),
            few,
            target,
        )


@dataclass(frozen=True, slots=True)
class _FewEntry:
    """The kernel of a class for requests with few rows; `packs`: its programs for the rows of one query tile."""

    entry: KernelEntry
    packs: int


@dataclass(frozen=True, slots=True)
class _Entries:
    """All kernels of a pattern over pages on one device; `few`: the most rows of a request for those of `decode`."""

    plan: CachedLaunch
    chunk: tuple[KernelEntry, ...]
    decode: tuple[_FewEntry, ...]
    merge: KernelEntry
    few: int
    target: str
    numbers: dict[Any, Tensor] = field(default_factory=dict)

    def tiles(self, launched: LaunchClass) -> int:
        """The most query tiles of few rows."""
        return most_tiles(self.few, launched.query_tile)

    def splits(self, requests: int, longest: int) -> tuple[int, ...]:
        """In how many parts programs of each class take their keys."""
        found, plan = [], self.plan
        for launched, of in zip(plan.few.classes, self.decode, strict=True):
            groups = {head // plan.few.share for head in launched.heads}
            of_groups = (most_iterations(plan.layout.groups[group], longest, launched.key_tile) for group in groups)
            iterations = max(of_groups) + most_tiles(self.few, launched.key_tile)
            programs = requests * of.packs
            found.append(decode_splits(self.target, processors_of(self.merge.device), programs, iterations))
        return tuple(found)


def _few_entry(
    function: Any,
    device: torch.device,
    plan: CachedLaunch,
    of: LaunchClass,
    packs: PackTable,
    target: str,
    few: int,
    fixed: Mapping[str, object],
) -> _FewEntry:
    width = len(packs.members[0])
    rows = decode_program_rows(width * few)
    given: dict[str, object] = {"packs": len(packs.members), "width": width, "ROWS": rows}
    given |= {"table": device_tensor(packs.table, device), "members": device_tensor(packs.members, device)}
    return _FewEntry(
        KernelEntry(function, device, plan.decode_shape(of, target, rows), {**fixed, **given}), len(packs.members)
    )


def _of_memory(q: Tensor, pages: Pages) -> dict[str, object]:
    """Of q [1, H, tokens, D] and the pages."""
    q, keys, values = with_rows(q), _with_near_rows(pages.keys), _with_near_rows(pages.values)
    numbers = {"pages": len(keys), "PAGE": pages.page_size}
    return {"q": q, "keys": keys, "values": values, **numbers, **strides({"q": q, "k": keys, "v": values})}


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
