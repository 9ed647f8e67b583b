"""Dense attention in float64 with its gradients by autograd, over a mask written by hand: what kernels are held to.

Invariant: nothing here imports sparsec.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Mask = Callable[[int, Tensor, Tensor], Tensor]
"""(head, i [Nq, 1], j [1, Nk]) -> whether i may see j."""


@dataclass(frozen=True, slots=True)
class Score:
    """Softcap x: s -> x * tanh(s / x). Alibi: minus a head's slope times |i - j|, the published ones where True.

    `sink` [H]: one more logit.
    """

    scale: float | None = None
    softcap: float | None = None
    alibi: bool | tuple[float, ...] = False
    sink: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """Outputs of attention and its gradients, all float64; `seen` [H, Nq, Nk]."""

    out: Tensor
    lse: Tensor
    dq: Tensor
    dk: Tensor
    dv: Tensor
    dsink: Tensor | None
    seen: Tensor


def published_slopes(heads: int) -> list[float]:
    """ALiBi's slopes as its authors' code finds them: by way of the next powers of two below and above."""
    n = 2 ** math.floor(math.log2(heads))
    start = 2.0 ** -(2.0 ** (3 - math.log2(n)))
    below = [start ** (t + 1) for t in range(n)]
    return below if n == heads else below + published_slopes(2 * n)[0::2][: heads - n]


def slopes_of(alibi: bool | tuple[float, ...], heads: int) -> list[float]:
    return published_slopes(heads) if alibi is True else list(alibi or ())


def mask_of(mask: Mask, heads: int, nq: int, nk: int, start: int) -> Tensor:
    i, j = torch.arange(start, start + nq)[:, None], torch.arange(nk)[None, :]
    return torch.stack([mask(h, i, j).expand(nq, nk) for h in range(heads)])


def dense(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor, start: int, grad_out: Tensor, grad_lse: Tensor | None, score: Score
) -> Results:
    """q [B, H, Nq, D]; k, v [B, G, Nk, D]; seen [H, Nq, Nk]; rows that see nothing have output 0."""
    leaves = [t.detach().double().requires_grad_() for t in (q, k, v)]
    sink = None if score.sink is None else score.sink.detach().double().requires_grad_()
    share, nq, nk = q.shape[1] // k.shape[1], q.shape[2], k.shape[2]
    keys, values = (t.repeat_interleave(share, 1) for t in leaves[1:])
    logits = leaves[0] @ keys.mT * (q.shape[3] ** -0.5 if score.scale is None else score.scale)
    if score.softcap is not None:
        logits = score.softcap * torch.tanh(logits / score.softcap)
    if score.alibi:
        far = (torch.arange(start, start + nq)[:, None] - torch.arange(nk)[None, :]).abs()
        slopes = torch.tensor(slopes_of(score.alibi, q.shape[1]), dtype=torch.float64)
        logits = logits - slopes[:, None, None] * far
    logits = logits.masked_fill(~seen, -torch.inf)
    if sink is not None:
        logits = torch.cat((logits, sink[None, :, None, None].expand(*logits.shape[:3], 1)), -1)
    empty = logits.isneginf().all(-1)
    lse = torch.logsumexp(logits.masked_fill(empty[..., None], 0.0), -1).masked_fill(empty, -torch.inf)
    p = torch.exp(logits - lse.masked_fill(empty, 0.0)[..., None])
    out = p[..., :nk] @ values
    total = (out * grad_out.double()).sum()
    if grad_lse is not None:
        total = total + (lse.masked_fill(empty, 0.0) * grad_lse.double()).sum()
    wanted = leaves if sink is None else [*leaves, sink]
    grads = torch.autograd.grad(total, wanted, allow_unused=True)
    dq, dk, dv = (g if g is not None else torch.zeros_like(t) for g, t in zip(grads, leaves, strict=False))
    return Results(out.detach(), lse.detach(), dq, dk, dv, None if sink is None else grads[3], seen)
