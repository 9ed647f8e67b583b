"""The custom operators `sparsec::forward`, `backward` and `mass`: what torch and `torch.compile` see of a kernel.

Invariant: outputs are new contiguous tensors, whatever the strides of the inputs; the fakes say exactly that.

They are defined by schema: `torch.library.custom_op` would import all of torch's compiler at the first call, which
takes longer than the call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsec.runtime.kernel import registered

torch.library.define(
    "sparsec::forward",
    "(Tensor q, Tensor k, Tensor v, Tensor? sink, Tensor? cu_seqlens, Tensor[]? inputs, Tensor? key_bias,"
    " str kernel, SymInt q_offset, float? scale) -> (Tensor, Tensor)",
)
torch.library.define(
    "sparsec::backward",
    "(Tensor grad_out, Tensor? grad_lse, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor? sink,"
    " Tensor? cu_seqlens, Tensor[]? inputs, Tensor? key_bias, bool of_bias, str kernel, SymInt q_offset, float? scale)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
torch.library.define(
    "sparsec::mass",
    "(Tensor q, Tensor k, Tensor lse, Tensor? sink, Tensor? cu_seqlens, Tensor[]? inputs, Tensor? key_bias,"
    " str kernel, SymInt q_offset, float? scale) -> Tensor",
)


def forward_now(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sink: Tensor | None,
    cu_seqlens: Tensor | None,
    inputs: list[Tensor] | None,
    key_bias: Tensor | None,
    kernel: str,
    q_offset: int,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    """Attention by the kernel of the name `kernel`: (out, LSE) as of `kernel.ForwardKernel`."""
    loaded = registered(kernel, q.device)
    lists = loaded.draws.tables(q.shape[2], q_offset, q.device)
    lookups = loaded.lookups(inputs, q.shape[2], k.shape[2], q_offset) if inputs else ()
    return loaded.forward.forward(
        q,
        k,
        v,
        q_offset=q_offset,
        scale=scale,
        lists=lists,
        sink=sink,
        cu_seqlens=cu_seqlens,
        inputs=lookups,
        key_bias=key_bias,
    )


torch.library.impl("sparsec::forward", "CompositeExplicitAutograd", forward_now)


@torch.library.register_fake("sparsec::forward")  # type: ignore[untyped-decorator]  # torch leaves it untyped
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sink: Tensor | None,
    cu_seqlens: Tensor | None,
    inputs: list[Tensor] | None,
    key_bias: Tensor | None,
    kernel: str,
    q_offset: int,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    return q.new_empty((*q.shape[:3], v.shape[3])), q.new_empty(q.shape[:3], dtype=_lse_type(q))


def gradients_now(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    sink: Tensor | None,
    cu_seqlens: Tensor | None,
    inputs: list[Tensor] | None,
    key_bias: Tensor | None,
    of_bias: bool,
    kernel: str,
    q_offset: int,
    scale: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """dq, dk, dv, dsink where there is a sink, and dbias with `of_bias`."""
    loaded = registered(kernel, q.device)
    lists = loaded.draws.tables(q.shape[2], q_offset, q.device)
    lookups = loaded.lookups(inputs, q.shape[2], k.shape[2], q_offset) if inputs else ()
    dq, dk, dv, dsink, of_heads = loaded.backward.backward(
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
        inputs=lookups,
        key_bias=key_bias,
        of_bias=of_bias,
    )
    return dq, dk, dv, dsink, None if key_bias is None or of_heads is None else _shared(of_heads, key_bias)


def _backward(grad_out: Tensor, grad_lse: Tensor | None, q: Tensor, *given: Any) -> tuple[Tensor, ...]:
    """As `gradients_now`; an operator gives tensors, so what is not there is empty."""
    *found, dsink, dbias = gradients_now(grad_out, grad_lse, q, *given)
    return *found, *(q.new_empty(0, dtype=torch.float32) if each is None else each for each in (dsink, dbias))


torch.library.impl("sparsec::backward", "CompositeExplicitAutograd", _backward)


def _shared(of_heads: Tensor, like: Tensor) -> Tensor:
    """Gradients [B, H, Nk] added up over the sequences and query heads that share a bias of `like` [b, x, Nk]."""
    batch, heads, keys = of_heads.shape
    of_sequences = of_heads if like.shape[0] == batch else of_heads.sum(dim=0, keepdim=True)
    shared = of_sequences.reshape(like.shape[0], like.shape[1], heads // like.shape[1], keys)
    return shared.sum(dim=2).to(like.dtype)


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
    inputs: list[Tensor] | None,
    key_bias: Tensor | None,
    of_bias: bool,
    kernel: str,
    q_offset: int,
    scale: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    none = q.new_empty(0, dtype=torch.float32)
    dsink = none if sink is None else sink.new_empty(sink.shape)
    dbias = key_bias.new_empty(key_bias.shape) if of_bias and key_bias is not None else torch.empty_like(none)
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), dsink, dbias


@torch.library.impl("sparsec::mass", "CompositeExplicitAutograd")
def _mass(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    sink: Tensor | None,
    cu_seqlens: Tensor | None,
    inputs: list[Tensor] | None,
    key_bias: Tensor | None,
    kernel: str,
    q_offset: int,
    scale: float | None,
) -> Tensor:
    """Of each key, the weights of the queries added up, as of `backends.base.MassKernel`."""
    loaded = registered(kernel, q.device)
    lists = loaded.draws.tables(q.shape[2], q_offset, q.device)
    lookups = loaded.lookups(inputs or (), q.shape[2], k.shape[2], q_offset)
    return loaded.mass.mass(
        q,
        k,
        lse,
        q_offset=q_offset,
        scale=scale,
        lists=lists,
        sink=sink,
        cu_seqlens=cu_seqlens,
        inputs=lookups,
        key_bias=key_bias,
    )


@torch.library.register_fake("sparsec::mass")  # type: ignore[untyped-decorator]  # torch leaves it untyped
def _(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    sink: Tensor | None,
    cu_seqlens: Tensor | None,
    inputs: list[Tensor] | None,
    key_bias: Tensor | None,
    kernel: str,
    q_offset: int,
    scale: float | None,
) -> Tensor:
    return q.new_empty((*q.shape[:2], k.shape[2]), dtype=torch.float32)


def _lse_type(q: Tensor) -> torch.dtype:
    return torch.float64 if q.dtype == torch.float64 else torch.float32


forward = torch.ops.sparsec.forward
backward = torch.ops.sparsec.backward
mass = torch.ops.sparsec.mass
