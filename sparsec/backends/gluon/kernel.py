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
from sparsec.backends.gluon.emit import GROUP_ROWS, LISTED_KEYS, emit_gluon, list_numbers, padded
from sparsec.backends.gluon.listed import listed_rows
from sparsec.backends.triton.call import ClassEntry, LaunchCall, aligned_tensor, as_dtype, with_rows
from sparsec.backends.triton.emit import emit_triton
from sparsec.backends.triton.kernel import LOG2_E, constants, new_like, with_lists, with_positive_scale
from sparsec.backends.triton.kernel import target_of as triton_target_of
from sparsec.backends.triton.launches import VECTOR_BYTES, KernelEntry, launch
from sparsec.backends.triton.modules import load_module
from sparsec.backends.triton.replays import Replays, given_to
from sparsec.diagnostics.model import CallError
from sparsec.plan.kernel import KernelPlan
from sparsec.plan.launch import LaunchPlan
from sparsec.plan.target import GLUON, PLAIN, LaunchShape
from sparsec.runtime.devices import PerDevice, device_tensor

SHAPE = LaunchShape(4, 1, True)
"""Of the first warp group; the kernel itself asks for the others."""
_MOST_STRIDE = 1 << 40


def target_of(device: torch.device) -> str:
    """Raises CallError for a device that is no GPU of compute capability 9.0."""
    if device.type != "cuda" or torch.version.hip or torch.cuda.get_device_capability(device) != (9, 0):
        raise CallError(f"expected a GPU of compute capability 9.0 for target 'gluon', got {device}")
    return GLUON


@dataclass(frozen=True, slots=True)
class GluonKernel:
    """The forward kernels of one plan, and those of Triton that compute again what these are not sure of."""

    plan: LaunchPlan
    source: str
    again: str
    entries: PerDevice[tuple[KernelEntry | None, ...]] = field(init=False, repr=False, compare=False)
    """None of a class without tiles."""
    lists: PerDevice[dict[int, KernelEntry]] = field(init=False, repr=False, compare=False)
    """Of the lists of keys for all queries, by their numbers."""
    unsure: PerDevice[tuple[ClassEntry, ...]] = field(init=False, repr=False, compare=False)
    replays: Replays = field(default_factory=Replays, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", PerDevice(self._entries_on))
        object.__setattr__(self, "lists", PerDevice(self._lists_on))
        object.__setattr__(self, "unsure", PerDevice(self._unsure_on))

    @classmethod
    def of(cls, plan: KernelPlan) -> GluonKernel:
        """Raises NotPrinted."""
        return cls(LaunchPlan.of(plan), emit_gluon(plan), emit_triton(plan, unsure=True))

    def _entries_on(self, device: torch.device) -> tuple[KernelEntry | None, ...]:
        module, fixed = load_module(self.source), constants(self.plan, False, device)
        kernels = (getattr(module, f"forward_{n}", None) for n in range(len(self.plan.classes)))
        return tuple(
            None
            if kernel is None
            else KernelEntry(kernel, device, SHAPE, {**fixed, "table": device_tensor(each.table, device)})
            for kernel, each in zip(kernels, self.plan.classes, strict=True)
        )

    def _lists_on(self, device: torch.device) -> dict[int, KernelEntry]:
        module, numbers = load_module(self.source), list_numbers(self.plan)
        return {n: KernelEntry(getattr(module, f"copy_listed_{n}"), device, PLAIN, {}) for n in numbers}

    def _unsure_on(self, device: torch.device) -> tuple[ClassEntry, ...]:
        plan, target = self.plan, triton_target_of(device)
        module, fixed = load_module(self.again), constants(plan, False, device)
        return tuple(
            ClassEntry.of(module, f"forward_{n}", device, target, plan.shape(each, target), plan, each, fixed)
            for n, each in enumerate(plan.classes)
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
        """See `backends.base.ForwardKernel`."""
        given, key = given_to((q, k, v, *lists), (sink, cu_seqlens, key_bias), inputs, q_offset, scale)
        if (found := self.replays.run(key, given)) is not None:
            return as_dtype(found[0], q.dtype), found[1]
        recorded = self.replays.recorder(key, q.device)
        plan, packed = self.plan, cu_seqlens is not None
        entries = tuple(zip(self.entries.on(q.device), self.unsure.on(q.device), strict=True))
        # What tiles give and what lists give meet in it, so it is rounded once, at the end.
        out = new_like(q, zero=packed, wide=any(of.gathers for _, of in entries), columns=v.shape[3])
        lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
        if packed:  # a row may be in no document
            lse.fill_(-math.inf)
        if q.numel() == 0:
            return out.to(q.dtype), lse
        q, scale = with_positive_scale(q, plan.scale(scale))
        strided = {"q": with_rows(q), "k": with_rows(k), "v": with_rows(v), "out": out}
        call = LaunchCall.of(plan, strided, q_offset, cu_seqlens, scale * LOG2_E, inputs, key_bias, recorded)
        tensors = {**strided, "lse": lse, "sink": None if sink is None else aligned_tensor(sink)}
        sources = {"keys": strided["k"], "values": strided["v"]}
        if k.shape[2] == 0:  # no tile is visited, and a descriptor describes something
            k, v = (tensor.new_zeros((*tensor.shape[:2], 1, tensor.shape[3])) for tensor in (k, v))
        q, k, v = (_described(tensor) for tensor in (q, k, v))
        queries, unsure = _descriptor(q, GROUP_ROWS), list[Tensor]()
        listed = listed_rows(self.lists.on(q.device), call, k, v, plan.heads)
        for (entry, again), each, tables in zip(entries, plan.classes, with_lists(plan.classes, lists), strict=True):
            described = {"keys": _descriptor(k, each.key_tile), "values": _descriptor(v, each.key_tile)}
            described |= {name: _descriptor(rows, LISTED_KEYS) for name, rows in listed.items()}

            def first(
                own: dict[str, object],
                programs: int,
                entry: KernelEntry | None = entry,
                described: dict[str, TensorDescriptor] = described,
            ) -> None:
                unsure.append(torch.zeros(programs, dtype=torch.int32, device=out.device))
                own["unsure"] = unsure[-1]
                assert entry is not None, "the kernels of a class with tiles come in twos"
                launch(entry, programs, {**own, **described, "queries": queries}, recorded)

            call.query_tiles(again, tables, tensors, sources, before=first)
        if recorded is not None:
            fills = (0.0, -math.inf) if packed else (None, None)
            made = (*zip((out, lse), fills, strict=True), *((each, 0.0) for each in unsure))
            self.replays.keep(key, recorded, given, made)
        return as_dtype(out, q.dtype), lse


def _described(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where TMA takes none with such an address or such strides."""
    strides = [of for of, size in zip(tensor.stride()[:3], tensor.shape[:3], strict=True) if size > 1]
    whole = tensor.stride(3) == 1 and tensor.data_ptr() % VECTOR_BYTES == 0
    sizes = [of * tensor.element_size() for of in strides]
    if whole and all(size % VECTOR_BYTES == 0 and 0 < size < _MOST_STRIDE for size in sizes):
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def _descriptor(tensor: Tensor, rows: int) -> TensorDescriptor:
    """Of a dimension of size 1 the stride may be any number."""
    strides = [of if size > 1 else VECTOR_BYTES for of, size in zip(tensor.stride(), tensor.shape, strict=True)]
    copied = box(rows, tensor.shape[3])
    return TensorDescriptor(tensor, list(tensor.shape), [*strides[:3], 1], copied, layout_of_box(copied, tensor.dtype))


def box(rows: int, columns: int) -> list[int]:
    """What one copy has: so many rows of a head, and all columns."""
    return [1, 1, rows, padded(columns)]


def layout_of_box(copied: list[int], dtype: torch.dtype) -> gl.NVMMASharedLayout:
    """How a box lies in shared memory."""
    return gl.NVMMASharedLayout.get_default_for(copied, gl.bfloat16 if dtype == torch.bfloat16 else gl.float16)
