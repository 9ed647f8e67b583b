"""Gradients of one call of attention, held to float64 autograd through the reference.

Invariant: errors are judged by the tolerance policy, zeros and repeated runs bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from sparsec.reference.attention import PLAIN, attention
from sparsec.sema.model import Score
from sparsec.testing.probes import Attend, seen, seen_by_group, uninitialised_as_nan
from sparsec.testing.tolerance import Expected, assert_close, assert_errors

SINK, BIAS = "dsink", "dbias"


def check_gradients(
    attend: Attend,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    score: Score = PLAIN,
    *,
    sink: Tensor | None = None,
    key_bias: Tensor | None = None,
    q_offset: int | None = None,
    through_lse: bool = True,
    probes: bool = True,
) -> None:
    """Holds one differentiable call, output and gradients, to the reference; raises AssertionError.

    Shapes as for `check_forward`. `sink`, `key_bias`: the leaves that `attend` reads. Gradients of the output, and of
    the LSE unless `through_lse` is false, are normal. A row that sees no key gives dq 0, and a key that no query sees
    dk, dv and dbias 0, exactly. A second run has NaN in the keys and values that no query sees, and must give the same
    bits, unless `probes` is false.

    A backward pass reads the output as it was stored; what storing rounds off shifts a row's gradients as a gradient
    of its LSE would (FlashAttention's algorithm 4: both enter by the row's delta alone). It reads the LSE as a float32
    at best, and what that rounds off multiplies a row's weights. So exact gradients of the output that was stored and
    of the rounded exact LSE, themselves rounded to q's dtype, are a second yardstick beside plain attention, and the
    larger counts. A sink's gradient is float32: beyond the shift it is held to plain float32.
    """
    mask, beside = seen(mask, key_bias, q.shape[1]), {SINK: sink, BIAS: key_bias}
    leaves = {name: leaf for name, leaf in beside.items() if leaf is not None}
    names = ("dq", "dk", "dv", *leaves)
    generator = torch.Generator().manual_seed(q.shape[2] + k.shape[2])
    grad_out = torch.randn((*q.shape[:3], v.shape[3]), generator=generator).to(q.dtype)
    normal = torch.randn(q.shape[:3], generator=generator)
    grad_lse = normal if through_lse else None
    with uninitialised_as_nan():
        out, lse, *found = _run(attend, q, k, v, leaves, grad_out, grad_lse)
    reference = partial(_by_reference, q, k, v, mask, score, leaves, q_offset)
    usual = normal if through_lse else torch.zeros_like(normal)
    exact_out, exact_lse, *exact = reference(grad_out, usual, torch.float64)
    plain_out, plain_lse, *plain = reference(grad_out, usual, q.dtype)
    assert_close(out, lse, Expected(exact_out, exact_lse, plain_out, plain_lse))
    shifted = usual - (grad_out * (out.double() - exact_out)).sum(dim=-1)
    grown = (exact_lse - exact_lse.float()).nan_to_num(0.0).exp()  # a row that sees no key has an LSE of -inf
    _, _, *stored = reference(grad_out * grown[..., None], shifted * grown, torch.float64)
    if sink is not None and q.dtype != torch.float32:
        plain[3] = reference(grad_out, usual, torch.float32)[5]
    seeing = mask.any(dim=-1).expand(q.shape[:3])
    within = partial(assert_errors, rows=int(seeing.sum()))
    for name, ours, right, usually, kept in zip(names, found, exact, plain, stored, strict=True):
        if ours.shape != right.shape:
            raise AssertionError(f"{name} is of shape {list(ours.shape)}, expected {list(right.shape)}")
        if bool(ours.isnan().any()):
            raise AssertionError(f"{name} holds NaN")
        error, by_plain, by_storing = ((t.to(ours.dtype).double() - right).abs() for t in (ours, usually, kept))
        if name == SINK:
            within(name, (error - by_storing).clamp(min=0), by_plain, dtype=ours.dtype)
        else:
            within(name, error, by_plain, by_storing, dtype=ours.dtype)
    if bool(found[0][~seeing].any()):
        raise AssertionError("dq of a row that sees no key is not 0")
    unseen = ~seen_by_group(mask, k.shape[1]).expand(k.shape[:3])
    for name, ours in zip(names[1:3], found[1:3], strict=True):
        if bool(ours[unseen].any()):
            raise AssertionError(f"{name} of a key that no query sees is not 0")
    if key_bias is not None and bool(found[-1][~_seen_by(mask, key_bias)].any()):
        raise AssertionError(f"{BIAS} of a key that no query sees is not 0")
    if not probes:
        return
    k, v = (t.masked_fill(unseen[..., None], float("nan")) for t in (k, v))
    with uninitialised_as_nan():
        _, _, *again = _run(attend, q, k, v, leaves, grad_out, grad_lse)
    for name, ours, other in zip(names, found, again, strict=True):
        if not torch.equal(ours, other):
            raise AssertionError(f"{name} differs in a second run with NaN in the keys that no query sees")


def _seen_by(mask: Tensor, bias: Tensor) -> Tensor:
    """Like the bias [b, x, Nk]: whether any query sees the key."""
    of_heads = mask.expand(-1 if mask.dim() == 4 else 1, *mask.shape[-3:]).any(dim=-2)
    share = of_heads.shape[1] // bias.shape[1]
    found = of_heads.reshape(len(of_heads), bias.shape[1], share, bias.shape[2]).any(dim=2)
    return (found.any(dim=0, keepdim=True) if len(bias) == 1 else found).expand_as(bias)


def _run(
    attend: Attend,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    more: Mapping[str, Tensor],
    grad_out: Tensor,
    grad_lse: Tensor | None,
) -> list[Tensor]:
    """out, LSE, and the gradients of q, k, v and of more leaves."""
    leaves = [t.detach().requires_grad_() for t in (q, k, v)]
    out, lse = attend(*leaves)
    wanted = [*leaves, *more.values()]
    if grad_lse is None:
        found = torch.autograd.grad(out, wanted, grad_out)
    else:
        found = torch.autograd.grad((out, lse), wanted, (grad_out, grad_lse.to(lse.dtype)))
    return [out.detach(), lse.detach(), *(each.cpu() for each in found)]


def _by_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    score: Score,
    more: Mapping[str, Tensor],
    q_offset: int | None,
    grad_out: Tensor,
    grad_lse: Tensor,
    dtype: torch.dtype,
) -> list[Tensor]:
    """out, LSE, and the gradients of q, k, v and of more leaves, by autograd through the reference in `dtype`."""
    leaves = [t.detach().to("cpu", dtype).requires_grad_() for t in (q, k, v, *more.values())]
    beside = dict(zip(more, leaves[3:], strict=True))
    queries, keys, values, *_ = leaves
    out, lse = attention(
        *(queries, keys, values, mask, score),
        sink=beside.get(SINK),
        key_bias=beside.get(BIAS),
        q_offset=q_offset,
        dtype=dtype,
    )
    loss = (out * grad_out.to(dtype)).sum() + (lse * grad_lse.to(dtype)).masked_fill(lse.isneginf(), 0).sum()
    return [out.detach(), lse.detach(), *torch.autograd.grad(loss, leaves)]
