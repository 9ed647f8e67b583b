"""Attention over pages on CPU tensors: one library with a kernel for chunks of queries, and one for few of a request.

Invariant: outputs are the same bit for bit whatever the number of threads; nothing of a call is read in Python.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from sparsec.backends.base import Lookup
from sparsec.backends.cpu import calls
from sparsec.backends.cpu.cached import Entry, draw_tables_of
from sparsec.backends.cpu.emit_paged import emit_cpp_paged
from sparsec.backends.cpu.kernel import TORCH_DTYPES, address, compile_shared, open_library, table_address
from sparsec.backends.cpu.lookups import bias_arguments, lookup_table, with_whole_rows
from sparsec.backends.paged import Pages, check_requests
from sparsec.diagnostics.model import CallError
from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.plan.kv.cached import CachedPlan
from sparsec.plan.launch import CachedLaunch
from sparsec.plan.target import CPU_FEW_ROWS

_BAD_REQUESTS = 2
_CALL = calls.PAGED.packer()
PAGED_NAMES = ("attend_paged_chunks", "attend_paged_rows")
"""The entry points of a library; each takes a pointer to a call."""


@dataclass(frozen=True, slots=True)
class CpuPaged:
    """See `backends.paged.PagedKernel`; `entries` loads the library, building it the first time (BuildError).

    `few`: the most queries of a request for the kernel of single rows.
    """

    plan: CachedLaunch
    source: str
    entries: Callable[[], tuple[Entry, ...]]
    few: int

    @staticmethod
    def of(chunks: CachedPlan, rows: CachedPlan) -> CpuPaged:
        """The kernels of a pattern's plans for chunks and for few queries, not built before the first call."""
        return build_paged(((chunks, rows),))[0]

    @staticmethod
    def load(plan: CachedLaunch, source: str, library: Path) -> CpuPaged:
        """The kernels from a library that `compile_shared(source)` made, `source` being what `plan` launches."""
        return _kernel(plan, source, lambda: open_library(library), "sparsec")

    def build(self) -> None:
        self.entries()

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
        plan, requests = self.plan.chunks, len(pages.lengths)
        self._check(q, pages, sink)
        keys, values = with_whole_rows(plan, pages.keys, pages.values)
        out = torch.empty((*q.shape[:2], values.shape[3]), dtype=q.dtype)
        lse = torch.empty(q.shape[:2], dtype=torch.float32)
        sink = None if sink is None else sink.detach().contiguous()
        tables, covered = draw_tables_of(plan, lists) if plan.lists else (None, POSITION_LIMIT - 1)
        lookups = lookup_table(plan, inputs, requests)
        longest, whole_rows = min(pages.longest, covered), keys.stride(3) == values.stride(3) == 1
        strides = (0, q.stride(1), q.stride(0), q.stride(2)), *map(_by_group, (keys, values))
        call = _CALL.pack(
            *(each.data_ptr() for each in (q, keys, values, out, lse)),
            *(number for each in strides for number in each),
            *(q.shape[0], *keys.shape[:2], requests),
            *(pages.table.data_ptr(), pages.table.shape[1], longest),
            *(pages.starts.data_ptr(), pages.lengths.data_ptr(), self.few if whole_rows else 0),
            *(table_address(tables), table_address(lookups), address(sink), *bias_arguments(plan, key_bias, requests)),
            *(plan.scale(scale), torch.get_num_threads()),
        )
        status = next((status for entry in self.entries() if (status := entry(call)) != 0), 0)
        if status == _BAD_REQUESTS:
            check_requests(pages.starts.tolist(), pages.lengths.tolist(), q.shape[0], longest)
        if status != 0:
            raise MemoryError("the kernel's scratch could not be allocated")
        return out, lse

    def _check(self, q: Tensor, pages: Pages, sink: Tensor | None) -> None:
        """Raises CallError for tensors that the kernels cannot take."""
        plan = self.plan.chunks
        dtype, memory, requests = TORCH_DTYPES[plan.dtype], tuple(pages.keys.shape[:2]), len(pages.lengths)
        wanted = (
            ("q", q, dtype, (len(q), plan.heads, plan.head_dim)),
            ("keys", pages.keys, dtype, (*memory, plan.kv_heads, plan.head_dim)),
            ("values", pages.values, dtype, (*memory, plan.kv_heads, plan.value_dim)),
            ("table", pages.table, torch.int32, (requests, pages.table.shape[-1])),
            ("starts", pages.starts, torch.int32, (requests + 1,)),
            ("lengths", pages.lengths, torch.int32, (requests,)),
            *(() if sink is None else (("sink", sink, torch.float32, (plan.heads,)),)),
        )
        for name, tensor, kind, shape in wanted:
            apart = kind == torch.int32 and not tensor.is_contiguous()
            if (tensor.dtype, tuple(tensor.shape)) != (kind, shape) or not tensor.is_cpu or apart:
                got = f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"
                raise CallError(f"expected {name} {kind} {list(shape)} on the CPU, got {got}")
        if (sink is not None) != plan.score.learned:
            raise CallError(f"expected {'no' if sink is not None else 'a'} sink for this pattern")
        if len(q) and not len(pages.keys):
            raise CallError(f"expected pages for {len(q)} tokens, got none")


def _by_group(pages: Tensor) -> tuple[int, ...]:
    """Strides of [pages, G, page size, D]."""
    page, row, group, dim = pages.stride()
    return page, group, row, dim


def build_paged(plans: Sequence[tuple[CachedPlan, CachedPlan]], *, optimise: int = 3) -> tuple[CpuPaged, ...]:
    """The kernels of several patterns' two plans, built as one library when one of them is first called."""
    symbols = ["sparsec"] if len(plans) == 1 else [f"sparsec_{n}" for n in range(len(plans))]
    named = tuple(zip(plans, symbols, strict=True))
    source = "\n".join(emit_cpp_paged(*pair, symbol=symbol) for pair, symbol in named)

    @cache
    def library() -> ctypes.CDLL:
        return open_library(compile_shared(source, optimise=optimise))

    return tuple(_kernel(CachedLaunch.of(*pair), source, library, symbol) for pair, symbol in named)


def _kernel(plan: CachedLaunch, source: str, library: Callable[[], ctypes.CDLL], symbol: str) -> CpuPaged:
    @cache
    def entries() -> tuple[Entry, ...]:
        return tuple(library()[f"{symbol}_{name}"] for name in PAGED_NAMES)

    return CpuPaged(plan, source, entries, CPU_FEW_ROWS * plan.chunks.heads // plan.packs)
