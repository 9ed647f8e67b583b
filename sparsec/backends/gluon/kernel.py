"""Generated Gluon source -> launched forward kernels, on GPUs of compute capability 9.0.

Invariant: a new length, batch size or offset compiles nothing; two runs on the same inputs give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from sparsec.backends.base import Lookup
from sparsec.backends.gluon.emit import GROUP_ROWS, emit_gluon, padded
from sparsec.backends.triton.call import aligned_tensor, bias_arguments
from sparsec.backends.triton.kernel import LOG2_E, constants, load_module, new_like, with_lists, with_positive_scale
from sparsec.backends.triton.launches import KernelEntry, launch
from sparsec.backends.triton.packed import document_tiles
from sparsec.diagnostics.model import CallError
from sparsec.plan.kernel import KernelPlan
from sparsec.plan.launch import LaunchPlan
from sparsec.plan.target import GLUON, LaunchShape
from sparsec.runtime.devices import PerDevice, device_tensor
from sparsec.sema.model import Documents

SHAPE = LaunchShape(4, 1, True)
"""Of the first warp group; the kernel itself asks for the others."""
_VECTOR_BYTES = 16
_MOST_STRIDE = 1 << 40


def target_of(device: torch.device) -> str:
    """Raises CallError for a device that is no GPU of compute capability 9.0."""
    if device.type != "cuda" or torch.version.hip or torch.cuda.get_device_capability(device) != (9, 0):
        raise CallError(f"expected a GPU of compute capability 9.0 for target 'gluon', got {device}")
    return GLUON


@dataclass(frozen=True, slots=True)
class GluonKernel:
    """The forward kernels of one plan."""

    plan: LaunchPlan
    source: str
    entries: PerDevice[tuple[KernelEntry, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", PerDevice(self._entries_on))

    @classmethod
    def of(cls, plan: KernelPlan) -> GluonKernel:
        """Raises NotPrinted."""
        return cls(LaunchPlan.of(plan), emit_gluon(plan))

    def _entries_on(self, device: torch.device) -> tuple[KernelEntry, ...]:
        module, fixed = load_module(self.source), constants(self.plan, False, device)
        return tuple(
            KernelEntry(
                getattr(module, f"forward_{n}"), device, SHAPE, {**fixed, "table": device_tensor(each.table, device)}
            )
            for n, each in enumerate(self.plan.classes)
        )

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        q_offset: int,
        scale: float | None = None,
        lists: Sequence[Tensor] = (),
        sink: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `backends.base.ForwardKernel`, but for this: a NaN or an infinity among the values of a key that a row
        does not see reaches the row if its query tile has the key in a tile that it does not see in full."""
        plan, packed = self.plan, cu_seqlens is not None
        out = new_like(q, zero=packed, columns=v.shape[3])
        lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
        if packed:  # a row may be in no document
            lse.fill_(-math.inf)
        if q.numel() == 0:
            return out, lse
        q, scale = with_positive_scale(q, plan.scale(scale))
        batch, _, n_queries, _ = q.shape
        given: dict[str, object] = {
            "out": out,
            "lse": lse,
            "sink": None if sink is None else aligned_tensor(sink),
            "nq": n_queries,
            "nk": k.shape[2],
            "q0": q_offset,
            "batches": batch,
            "scale_log2": scale * LOG2_E,
            **bias_arguments(key_bias),
        }
        if k.shape[2] == 0:  # no tile is visited, and a descriptor describes something
            k, v = (tensor.new_zeros((*tensor.shape[:2], 1, tensor.shape[3])) for tensor in (k, v))
        q, k, v = (_described(tensor) for tensor in (q, k, v))
        given["queries"] = _descriptor(q, GROUP_ROWS)
        entries = self.entries.on(q.device)
        for entry, each, tables in zip(entries, plan.classes, with_lists(plan.classes, lists), strict=True):
            own = given | {f"draws_{n}": table for n, table in enumerate(tables)}
            own |= {"keys": _descriptor(k, each.key_tile), "values": _descriptor(v, each.key_tile)}
            places = self._places(each.query_tile, batch, n_queries, q_offset, cu_seqlens, own)
            launch(entry, places * len(each.table), own)
        return out, lse

    def _places(
        self, size: int, batch: int, rows: int, offset: int, cu_seqlens: Tensor | None, given: dict[str, object]
    ) -> int:
        """How many query tiles all sequences or documents have; what finds them is then given."""
        if cu_seqlens is not None:
            restart = self.plan.documents is Documents.RESTART
            given["document_tiles"] = table = document_tiles(cu_seqlens, rows, size, restart=restart)
            return len(table)
        first = offset // size
        given["first_tile"], given["tiles"] = first, (offset + rows - 1) // size + 1 - first
        return batch * ((offset + rows - 1) // size + 1 - first)


def _described(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where TMA takes none with such an address or such strides."""
    strides = [of for of, size in zip(tensor.stride()[:3], tensor.shape[:3], strict=True) if size > 1]
    whole = tensor.stride(3) == 1 and tensor.data_ptr() % _VECTOR_BYTES == 0
    sizes = [of * tensor.element_size() for of in strides]
    if whole and all(size % _VECTOR_BYTES == 0 and 0 < size < _MOST_STRIDE for size in sizes):
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def _descriptor(tensor: Tensor, rows: int) -> TensorDescriptor:
    """Of a dimension of size 1 the stride may be any number."""
    strides = [of if size > 1 else _VECTOR_BYTES for of, size in zip(tensor.stride(), tensor.shape, strict=True)]
    copied = box(rows, tensor.shape[3])
    return TensorDescriptor(tensor, list(tensor.shape), [*strides[:3], 1], copied, layout_of_box(copied, tensor.dtype))


def box(rows: int, columns: int) -> list[int]:
    """What one copy has: so many rows of a head, and all columns."""
    return [1, 1, rows, padded(columns)]


def layout_of_box(copied: list[int], dtype: torch.dtype) -> gl.NVMMASharedLayout:
    """How a box lies in shared memory."""
    return gl.NVMMASharedLayout.get_default_for(copied, gl.bfloat16 if dtype == torch.bfloat16 else gl.float16)
