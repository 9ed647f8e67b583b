"""The custom operators `sparsec::forward` and `sparsec::backward`: what autograd and `torch.compile` see of a kernel.

Invariant: outputs are new contiguous tensors, whatever the strides of the inputs; the fakes say exactly that.

They are defined by schema: `torch.library.custom_op` would import all of torch's compiler at the first call, which
takes longer than the call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsec.diagnostics.model import SparsecError
from sparsec.runtime.kernel import registered
from sparsec.runtime.tangents import library

torch.library.define(
    "sparsec::forward",
    "(Tensor q, Tensor k, Tensor v, Tensor? sink, Tensor? cu_seqlens, str kernel, SymInt q_offset, float? scale)"
    " -> (Tensor, Tensor)",
)
torch.library.define(
    "sparsec::backward",
    "(Tensor grad_out, Tensor? grad_lse, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor? sink,"
    " Tensor? cu_seqlens, str kernel, SymInt q_offset, float? scale) -> (Tensor, Tensor, Tensor, Tensor)",
)


@torch.library.impl("sparsec::forward", "CompositeExplicitAutograd")
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sink: Tensor | None,
    cu_seqlens: Tensor | None,
    kernel: str,
    q_offset: int,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    """Attention by the kernel registered under digest `kernel`: (out, LSE) as of `kernel.ForwardKernel`."""
    loaded = registered(kernel)
    lists = loaded.draws.tables(q.shape[2], q_offset, q.device)
    return loaded.forward.forward(
        q, k, v, q_offset=q_offset, scale=scale, lists=lists, sink=sink, cu_seqlens=cu_seqlens
    )


@torch.library.register_fake("sparsec::forward")  # type: ignore[untyped-decorator]  # torch leaves it untyped
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sink: Tensor | None,
    cu_seqlens: Tensor | None,
    kernel: str,
    q_offset: int,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:3], dtype=_lse_type(q))


@torch.library.impl("sparsec::backward", "CompositeExplicitAutograd")
def _backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    sink: Tensor | None,
    cu_seqlens: Tensor | None,
    kernel: str,
    q_offset: int,
    scale: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(dq, dk, dv, dsink); dsink is empty where there is no sink."""
    loaded = registered(kernel)
    lists = loaded.draws.tables(q.shape[2], q_offset, q.device)
    dq, dk, dv, dsink = loaded.backward.backward(
        grad_out,
        grad_lse,
        q,
        k,
        v,
        out,
        lse,
        q_offset=q_offset,
        scale=scale,
        lists=lists,
        sink=sink,
        cu_seqlens=cu_seqlens,
    )
    return dq, dk, dv, q.new_empty(0, dtype=torch.float32) if dsink is None else dsink


@torch.library.register_fake("sparsec::backward")  # type: ignore[untyped-decorator]  # torch leaves it untyped
def _(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    sink: Tensor | None,
    cu_seqlens: Tensor | None,
    kernel: str,
    q_offset: int,
    scale: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dsink = q.new_empty(0, dtype=torch.float32) if sink is None else sink.new_empty(sink.shape)
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), dsink


def _lse_type(q: Tensor) -> torch.dtype:
    return torch.float64 if q.dtype == torch.float64 else torch.float32


forward = torch.ops.sparsec.forward
backward = torch.ops.sparsec.backward


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, sink, cu_seqlens, ctx.kernel, ctx.q_offset, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output, sink, cu_seqlens)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, out, lse, sink, cu_seqlens = ctx.saved_tensors
    if grad_out is None:
        grad_out = torch.zeros_like(out)
    dq, dk, dv, dsink = backward(
        grad_out, grad_lse, q, k, v, out, lse, sink, cu_seqlens, ctx.kernel, ctx.q_offset, ctx.scale
    )
    return dq, dk, dv, None if sink is None else dsink, None, None, None, None


def _no_second_derivative(ctx: Any, *gradients: Tensor) -> tuple[None, ...]:
    raise SparsecError("expected a first derivative, got a second one: attention's backward pass has no gradient")


torch.library.register_autograd("sparsec::forward", _gradients, setup_context=_setup, lib=library)
torch.library.register_autograd("sparsec::backward", _no_second_derivative, lib=library)
