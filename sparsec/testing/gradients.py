"""Gradients of one call of attention, held to float64 autograd through the reference.

Invariant: errors are judged by the tolerance policy, zeros and repeated runs bit by bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsec.sema.model import Score
from sparsec.testing.probes import Attend, seen_by_group, uninitialised_as_nan
from sparsec.testing.tolerance import PLAIN, Expected, assert_close, assert_errors, dense_attention

NAMES = ("dq", "dk", "dv", "dsink")
FEW = 64
"""Rows; of fewer, the errors of plain 16-bit attention may be next to nothing by chance: see `_floor`."""


def check_gradients(
    attend: Attend,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    score: Score = PLAIN,
    *,
    sink: Tensor | None = None,
    q_offset: int | None = None,
    through_lse: bool = True,
) -> None:
    """Holds one differentiable call, output and gradients, to the reference; raises AssertionError.

    Shapes as for `check_forward`. `sink`: the leaf that `attend` reads. Gradients of the output, and of the LSE unless
    `through_lse` is false, are normal. A row that sees no key gives dq 0, and a key that no query sees dk and dv 0,
    exactly. A second run has NaN in the keys and values that no query sees, and must give the same bits.
    """
    generator = torch.Generator().manual_seed(q.shape[2] + k.shape[2])
    grad_out = torch.randn(q.shape, generator=generator).to(q.dtype)
    grad_lse = torch.randn(q.shape[:3], generator=generator) if through_lse else None
    with uninitialised_as_nan():
        out, lse, *found = _run(attend, q, k, v, sink, grad_out, grad_lse)
    (exact_out, exact_lse, *exact), (plain_out, plain_lse, *plain) = (
        _dense(q, k, v, mask, score, sink, q_offset, grad_out, grad_lse, dtype) for dtype in (torch.float64, q.dtype)
    )
    assert_close(out, lse, Expected(exact_out, exact_lse, plain_out, plain_lse))
    for name, ours, right, usual in zip(NAMES, found, exact, plain, strict=False):
        assert ours.shape == right.shape, f"{name} is of shape {list(ours.shape)}, expected {list(right.shape)}"
        assert not bool(ours.isnan().any()), f"{name} holds NaN"
        assert_errors(
            name, (ours.double() - right).abs(), (usual.double() - right).abs(), q.dtype, floor=_floor(right, q, mask)
        )
    assert not bool(found[0][:, ~mask.any(dim=-1)].any()), "dq of a row that sees no key is not 0"
    unseen = ~seen_by_group(mask, k.shape[1])
    for name, ours in zip(NAMES[1:3], found[1:3], strict=True):
        assert not bool(ours[:, unseen].any()), f"{name} of a key that no query sees is not 0"
    k, v = (t.masked_fill(unseen[None, :, :, None], float("nan")) for t in (k, v))
    with uninitialised_as_nan():
        _, _, *again = _run(attend, q, k, v, sink, grad_out, grad_lse)
    for name, ours, other in zip(NAMES, found, again, strict=False):
        assert torch.equal(ours, other), f"{name} differs in a second run with NaN in the keys that no query sees"


def _floor(exact: Tensor, q: Tensor, mask: Tensor) -> float:
    """The error that rounding the output to 16 bits explains, inputs and gradients being of unit variance.

    That rounding shifts the gradient of a whole row, so what counts is the number of rows that weigh keys against each
    other; of a sink's gradient there is one number a head.
    """
    rows = q.shape[0] * int((mask.sum(dim=-1) > 1).sum())
    if q.dtype == torch.float32 or not exact.numel() or (rows >= FEW and exact.dim() > 1):
        return 0.0
    return torch.finfo(q.dtype).eps * (1 + float(exact.abs().max()))


def _run(
    attend: Attend, q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, grad_out: Tensor, grad_lse: Tensor | None
) -> list[Tensor]:
    """out, LSE, and the gradients of q, k, v and the sink."""
    leaves = [t.detach().requires_grad_() for t in (q, k, v)]
    out, lse = attend(*leaves)
    wanted = leaves if sink is None else [*leaves, sink]
    if grad_lse is None:
        return [out.detach(), lse.detach(), *torch.autograd.grad(out, wanted, grad_out)]
    return [out.detach(), lse.detach(), *torch.autograd.grad((out, lse), wanted, (grad_out, grad_lse.to(lse.dtype)))]


def _dense(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    score: Score,
    sink: Tensor | None,
    q_offset: int | None,
    grad_out: Tensor,
    grad_lse: Tensor | None,
    dtype: torch.dtype,
) -> list[Tensor]:
    """out, LSE, and the gradients of q, k, v and the sink, by autograd through the reference in `dtype`."""
    leaves = [t.detach().to(dtype).requires_grad_() for t in (q, k, v) + (() if sink is None else (sink,))]
    queries, keys, values, *extra = leaves
    out, lse = dense_attention(
        queries, keys, values, mask, score, sink=extra[0] if extra else None, q_offset=q_offset, dtype=dtype
    )
    loss = (out * grad_out.to(dtype)).sum()
    if grad_lse is not None:
        loss = loss + (lse * grad_lse.to(dtype)).masked_fill(lse.isneginf(), 0).sum()
    return [out.detach(), lse.detach(), *torch.autograd.grad(loss, leaves)]
