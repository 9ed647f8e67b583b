"""The gradients' kernel on CPU tensors: a second library, built when the first gradient is asked for.

Invariant: gradients are the same bit for bit whatever the number of threads; an empty row has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from sparsec.backends.base import Lookup
from sparsec.backends.cpu import calls
from sparsec.backends.cpu.emit import emit_cpp_backward
from sparsec.backends.cpu.kernel import (
    address,
    check_call,
    compile_shared,
    draw_lists,
    open_library,
    table_address,
)
from sparsec.backends.cpu.lookups import bias_arguments, lookup_table, with_whole_rows
from sparsec.diagnostics.model import CallError
from sparsec.plan.kernel import BackwardPlan
from sparsec.plan.launch import BackwardLaunch

Entry = Callable[[bytes], int]
_CALL = calls.BACKWARD.packer()


@dataclass(frozen=True, slots=True)
class CpuBackward:
    """The gradients' kernel of one plan; `entry` loads it, building it the first time (BuildError)."""

    plan: BackwardLaunch
    entry: Callable[[], Entry]

    @staticmethod
    def of(plan: BackwardPlan) -> CpuBackward:
        """The kernel of `plan`, neither printed nor built before its first call."""

        @cache
        def entry() -> Entry:
            found: Entry = open_library(compile_shared(emit_cpp_backward(plan))).sparsec_backward
            return found

        return CpuBackward(BackwardLaunch.of(plan), entry)

    @staticmethod
    def load(plan: BackwardLaunch, library: Path) -> CpuBackward:
        """The kernel from a library that `compile_shared` made of what `plan` launches."""
        found: Entry = open_library(library).sparsec_backward
        return CpuBackward(plan, lambda: found)

    def build(self) -> None:
        self.entry()

    def backward(
        self,
        grad_out: Tensor,
        grad_lse: Tensor | None,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        *,
        q_offset: int,
        scale: float | None,
        lists: tuple[Tensor, ...],
        sink: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
        of_bias: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """(dq, dk, dv, dsink, dbias) from the gradients of out and of the LSE (float32 [B, H, Nq]; None for zeros).

        The rest is what `CpuKernel.forward` took and gave, any strides. dq, dk, dv are contiguous, like q,
        k and v; dsink, float32 [H], is None without a learned sink, and dbias, float32 [B, H, Nk], without `of_bias`.
        Raises CallError, BuildError.
        """
        plan = self.plan.forward
        check_call(plan, q, k, v, q_offset, sink, cu_seqlens)
        k, v = with_whole_rows(plan, k, v)
        wanted = (*q.shape[:3], v.shape[3])
        for name, tensor in (("grad_out", grad_out), ("out", out)):
            if tensor.shape != wanted or tensor.dtype != q.dtype or tensor.device != q.device:
                raise CallError(f"expected {name} {q.dtype} {list(wanted)}, got {tensor.dtype} {list(tensor.shape)}")
        for name, rows in (("lse", lse), ("grad_lse", grad_lse)):
            if rows is not None and (
                rows.shape != q.shape[:3] or rows.dtype != torch.float32 or rows.device != q.device
            ):
                raise CallError(f"expected {name} float32 {list(q.shape[:3])}, got {rows.dtype} {list(rows.shape)}")
        dq, dk, dv = (torch.empty(t.shape, dtype=t.dtype) for t in (q, k, v))
        dsink = None if sink is None else torch.empty_like(sink)
        dbias = torch.zeros((*q.shape[:2], k.shape[2]), dtype=torch.float32) if of_bias else None
        tables = draw_lists(plan, lists, q_offset, q.shape[2])
        lookups = lookup_table(plan, inputs, q.shape[0])
        sink, cu_seqlens = (None if t is None else t.detach().contiguous() for t in (sink, cu_seqlens))
        given = (grad_out, q, k, v, out, lse, lse if grad_lse is None else grad_lse)
        call = _CALL.pack(
            *(address(t) for t in (grad_out, q, k, v, out, lse, grad_lse, dq, dk, dv)),
            *(stride for t in given for stride in t.stride()),
            *(q.shape[0], q.shape[2], k.shape[2], q_offset),
            *(table_address(tables), table_address(lookups), address(sink)),
            *bias_arguments(plan, key_bias, q.shape[0]),
            *(address(dsink), address(dbias), address(cu_seqlens)),
            0 if cu_seqlens is None else cu_seqlens.shape[0] - 1,
            plan.scale(scale),
            torch.get_num_threads(),
        )
        if self.entry()(call) != 0:
            raise MemoryError("the kernel's scratch could not be allocated")
        return dq, dk, dv, dsink, dbias


def build_backwards(plans: Sequence[BackwardPlan], *, optimise: int = 3) -> tuple[CpuBackward, ...]:
    """The gradients' kernels of several plans, built now as one library. Raises BuildError."""
    symbols = [f"sparsec_{n}" for n in range(len(plans))]
    source = "\n".join(emit_cpp_backward(plan, symbol=symbol) for plan, symbol in zip(plans, symbols, strict=True))
    library = open_library(compile_shared(source, optimise=optimise))
    return tuple(_loaded(plan, library[f"{symbol}_backward"]) for plan, symbol in zip(plans, symbols, strict=True))


def _loaded(plan: BackwardPlan, entry: Entry) -> CpuBackward:
    return CpuBackward(BackwardLaunch.of(plan), lambda: entry)
