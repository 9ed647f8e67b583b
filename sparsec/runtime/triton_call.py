"""Tensors of one call -> launches of generated kernels, each given the arguments that it names.

Invariant: a new length, batch size or offset changes no argument that Triton compiles for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from sparsec.codegen.triton import group_spans, head_dim_chunks, head_table
from sparsec.plan.kernel import HeadClass, KernelPlan
from sparsec.plan.target import LaunchShape
from sparsec.runtime.packed import document_tiles
from sparsec.sema.model import Documents

FP_FUSION = True
"""Multiply and add become one instruction; passed to every compile, so that Triton's default does not matter."""
SUM_ROWS = 16
"""Rows of one program of `row_sums`."""
_VECTOR_BYTES = 16
_ROW_REACH = 1 << 31
"""Offsets within one tile are 32 bits wide."""


@dataclass(frozen=True, slots=True)
class Call:
    """What the launches of one call share; `numbers` are arguments by name."""

    plan: KernelPlan
    batch: int
    n_queries: int
    n_keys: int
    q_offset: int
    cu_seqlens: Tensor | None
    numbers: Mapping[str, object]

    @classmethod
    def of(
        cls,
        plan: KernelPlan,
        strided: Mapping[str, Tensor],
        q_offset: int,
        cu_seqlens: Tensor | None,
        constants: Mapping[str, object],
    ) -> Call:
        """`strided`: tensors [B, heads, rows, D] by the names that their strides have, among them q and k."""
        q, k = strided["q"], strided["k"]
        numbers = {"nq": q.shape[2], "nk": k.shape[2], "q0": q_offset, "batches": q.shape[0], **constants}
        numbers |= strides(strided)
        return cls(plan, q.shape[0], q.shape[2], k.shape[2], q_offset, cu_seqlens, numbers)

    def query_tiles(
        self,
        kernel: Any,
        head_class: HeadClass,
        shape: LaunchShape,
        lists: Sequence[Tensor],
        tensors: Mapping[str, Tensor | None],
        sources: Mapping[str, Tensor],
    ) -> None:
        """One program a query tile and head; `sources` are read by key tiles."""
        size, offset = head_class.program.query_tile, self.q_offset
        first = offset // size
        tiles = (offset + self.n_queries - 1) // size + 1 - first
        documents = self._document_tiles(size)
        places = self.batch * tiles if documents is None else len(documents)
        arguments = {"first_tile": first, "tiles": tiles, "document_tiles": documents, **tensors}
        programs, rows = places * len(head_class.heads), head_class.program.key_tile
        self._run(kernel, programs, head_class, shape, lists, arguments, sources, rows)

    def key_tiles(
        self,
        kernel: Any,
        head_class: HeadClass,
        shape: LaunchShape,
        lists: Sequence[Tensor],
        tensors: Mapping[str, Tensor | None],
        sources: Mapping[str, Tensor],
    ) -> None:
        """One program a key tile and KV group; `sources` are read by query tiles."""
        size = head_class.program.key_tile
        documents = self._document_tiles(size)
        places = self.batch * -(-self.n_keys // size) if documents is None else len(documents)
        spans = group_spans(self.plan, head_class)
        device = sources["queries"].device
        arguments = {"spans": on_device(spans, device), "document_tiles": documents, **tensors}
        programs, rows = places * len(spans), head_class.program.query_tile
        self._run(kernel, programs, head_class, shape, lists, arguments, sources, rows)

    def _document_tiles(self, size: int) -> Tensor | None:
        if self.cu_seqlens is None or self.plan.documents is Documents.NONE:
            return None
        restart = self.plan.documents is Documents.RESTART
        return document_tiles(self.cu_seqlens, self.n_queries, size, restart=restart)

    def _run(
        self,
        kernel: Any,
        programs: int,
        head_class: HeadClass,
        shape: LaunchShape,
        lists: Sequence[Tensor],
        arguments: Mapping[str, object],
        sources: Mapping[str, Tensor],
        rows: int,
    ) -> None:
        tma = shape.tma and self.numbers["VECTOR"] != 1 and all(_fits_descriptor(t) for t in sources.values())
        device = next(iter(sources.values())).device
        given = {**self.numbers, **arguments, "TMA": tma, "table": on_device(head_table(head_class), device)}
        given |= {f"draws_{n}": table for n, table in enumerate(lists)}
        for chunk in head_dim_chunks(self.plan.head_dim):
            for name, tensor in sources.items():
                given[f"{name}_{chunk.index}"] = (
                    TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), [1, 1, rows, chunk.width])
                    if tma
                    else tensor
                )
        launch(kernel, programs, given, shape.warps, shape.stages, shape.maxnreg)


def launch(
    kernel: Any, programs: int, given: Mapping[str, object], warps: int, stages: int, maxnreg: int | None = None
) -> None:
    """Runs `programs` programs with those of the given arguments that the kernel names."""
    if programs:
        named = {name: given[name] for name in kernel.arg_names}
        limit = {} if maxnreg is None else {"maxnreg": maxnreg}  # AMD's compiler knows no such option
        kernel[(programs,)](**named, num_warps=warps, num_stages=stages, enable_fp_fusion=FP_FUSION, **limit)


def row_sums(
    kernel: Any, g: Tensor, out: Tensor, lse: Tensor, grad_lse: Tensor | None, sink: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of each row the log-sum-exp to base 2 and sum(g * out) - grad_lse, float32 [B, H, Nq]; dsink [H]."""
    batch, heads, rows, _ = g.shape
    log_sum, delta = torch.empty_like(lse), torch.empty_like(lse)
    tiles = -(-rows // SUM_ROWS)
    parts = None if sink is None else lse.new_empty((batch, heads, tiles))
    given = {"g": g, "out": out, "lse": lse, "sink": sink, "sink_parts": parts, "log_sum": log_sum, "delta": delta}
    given["grad_lse"] = None if grad_lse is None else grad_lse.to(torch.float32).contiguous()
    numbers = {**strides({"g": g, "out": out}), "nq": rows, "tiles": tiles, "ROWS": SUM_ROWS}
    launch(kernel, batch * heads * tiles, {**given, **numbers}, 4, 1)
    return log_sum, delta, None if parts is None else parts.sum((0, 2))


def with_rows(tensor: Tensor) -> Tensor:
    """The tensor itself if its last dimension is dense and its rows lie close enough; else a copy."""
    dense = tensor.stride(3) == 1 or tensor.shape[3] == 1
    return tensor if dense and tensor.stride(2) * 256 < _ROW_REACH else tensor.contiguous()


def strides(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """The strides, in vectors, and VECTOR: elements in 16 bytes if every row starts on such a boundary, else 1."""
    vector = _vector(*tensors.values())
    numbers: dict[str, object] = {"VECTOR": vector}
    for name, tensor in tensors.items():
        for part, stride in zip(("batch", "head", "row"), tensor.stride()[:3], strict=True):
            numbers[f"{name}_{part}"] = stride // vector
    return numbers


def _vector(*tensors: Tensor) -> int:
    vector = _VECTOR_BYTES // tensors[0].element_size()
    for tensor in tensors:
        count = _VECTOR_BYTES // tensor.element_size()
        if tensor.data_ptr() % _VECTOR_BYTES or any(stride % count for stride in tensor.stride()[:3]):
            return 1
    return vector


def _fits_descriptor(tensor: Tensor) -> bool:
    """Whether a TMA descriptor may describe the tensor: no repeated or empty dimension, strides below 2**40 bytes."""
    strides = tensor.stride()[:3]
    return tensor.shape[2] > 0 and all(0 < stride * tensor.element_size() < 1 << 40 for stride in strides)


@lru_cache(maxsize=256)
def on_device(rows: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
    return torch.tensor(rows, dtype=torch.int32, device=device)
