"""The mass of keys on CPU tensors: a third library, built when it is first asked for.

Invariant: a mass is the same bit for bit whatever the number of threads; a key that no query sees has 0.
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
from sparsec.backends.cpu.emit import emit_cpp_mass
from sparsec.backends.cpu.kernel import address, check_keys, compile_shared, draw_lists, open_library, table_address
from sparsec.backends.cpu.lookups import bias_arguments, lookup_table, with_whole_rows
from sparsec.diagnostics.model import CallError
from sparsec.plan.kernel import BackwardPlan
from sparsec.plan.launch import LaunchPlan

Entry = Callable[[bytes], int]
_CALL = calls.MASS.packer()


@dataclass(frozen=True, slots=True)
class CpuMass:
    """See `backends.base.MassKernel`; `entry` loads the kernel, building it the first time (BuildError)."""

    plan: LaunchPlan
    entry: Callable[[], Entry]

    @staticmethod
    def of(plan: BackwardPlan) -> CpuMass:
        """The kernel of a plan of gradients, neither printed nor built before its first call."""
        return build_masses([plan])[0]

    @staticmethod
    def load(plan: LaunchPlan, library: Path) -> CpuMass:
        """The kernel from a library that `compile_shared` made of what `plan` launches."""
        found: Entry = open_library(library).sparsec_mass
        return CpuMass(plan, lambda: found)

    def build(self) -> None:
        self.entry()

    def mass(
        self,
        q: Tensor,
        k: Tensor,
        lse: Tensor,
        *,
        q_offset: int,
        scale: float | None,
        lists: tuple[Tensor, ...],
        sink: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
    ) -> Tensor:
        plan = self.plan
        check_keys(plan, q, k, q_offset, sink, cu_seqlens)
        (k,) = with_whole_rows(plan, k)
        if lse.shape != q.shape[:3] or lse.dtype != torch.float32 or lse.device != q.device:
            raise CallError(f"expected lse float32 {list(q.shape[:3])}, got {lse.dtype} {list(lse.shape)}")
        mass = torch.empty((*q.shape[:2], k.shape[2]), dtype=torch.float32)
        lookups = lookup_table(plan, inputs, q.shape[0])
        tables = draw_lists(plan, lists, q_offset, q.shape[2])
        sink, cu_seqlens = (None if t is None else t.detach().contiguous() for t in (sink, cu_seqlens))
        call = _CALL.pack(
            *(t.data_ptr() for t in (q, k, lse, mass)),
            *(stride for t in (q, k, lse) for stride in t.stride()),
            *(q.shape[0], q.shape[2], k.shape[2], q_offset),
            *(table_address(tables), table_address(lookups), address(sink)),
            *bias_arguments(self.plan, key_bias, q.shape[0]),
            address(cu_seqlens),
            0 if cu_seqlens is None else cu_seqlens.shape[0] - 1,
            plan.scale(scale),
            torch.get_num_threads(),
        )
        if self.entry()(call) != 0:
            raise MemoryError("the kernel's scratch could not be allocated")
        return mass


def build_masses(plans: Sequence[BackwardPlan], *, optimise: int = 3) -> tuple[CpuMass, ...]:
    """The kernels of several plans, built as one library when one of them is first called."""
    symbols = [f"sparsec_{n}" for n in range(len(plans))]

    @cache
    def library() -> ctypes.CDLL:
        texts = (emit_cpp_mass(plan, symbol=symbol) for plan, symbol in zip(plans, symbols, strict=True))
        return open_library(compile_shared("\n".join(texts), optimise=optimise))

    return tuple(
        CpuMass(LaunchPlan.of(plan.forward), lambda symbol=symbol: library()[f"{symbol}_mass"])  # type: ignore[misc]  # of a lambda's default
        for plan, symbol in zip(plans, symbols, strict=True)
    )
