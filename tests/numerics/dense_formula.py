"""Dense attention as a formula, with its gradients by autograd, and the tolerance policy for what a kernel computes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from dense_gradients import slopes_of
from torch import Tensor

NAMES = ("out", "lse", "dq", "dk", "dv", "dsink")


@dataclass(frozen=True, slots=True)
class Formula:
    """mask: bool [H, Nq, Nk]; distance: |i - j|, [Nq, Nk] (for alibi). `scale` None means 1/sqrt(D)."""

    mask: Tensor
    distance: Tensor | None = None
    scale: float | None = None
    softcap: float | None = None
    alibi: bool | tuple[float, ...] = False

    def attention(self, q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None) -> tuple[Tensor, Tensor]:
        """(out, LSE) in the inputs' dtype; a row that sees nothing has 0, and -inf or its sink."""
        heads = q.shape[1]
        k, v = (t.repeat_interleave(heads // t.shape[1], dim=1) for t in (k, v))
        scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if self.scale is None else self.scale)
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        if self.alibi:
            slope = torch.tensor(slopes_of(self.alibi, heads), dtype=torch.float64)
            scores = scores - (slope[:, None, None] * self.distance).to(scores.dtype)
        scores = scores.masked_fill(~self.mask, -math.inf)
        empty = ~self.mask.any(dim=-1).expand(q.shape[:3])
        if sink is not None:
            column = sink.to(scores.dtype)[:, None, None].expand(*q.shape[:3], 1)
            scores = torch.cat((scores, column), dim=-1)
            return torch.softmax(scores, dim=-1)[..., :-1] @ v, scores.logsumexp(dim=-1)
        lse = scores.masked_fill(empty[..., None], 0).logsumexp(dim=-1).masked_fill(empty, -math.inf)
        weights = torch.softmax(scores.masked_fill(empty[..., None], 0), dim=-1).masked_fill(~self.mask, 0)
        return weights @ v, lse

    def outcome(self, qkv: list[Tensor], sink: Tensor | None, grads: tuple[Tensor, Tensor | None]) -> list[Tensor]:
        """out, LSE, dq, dk, dv and, with a sink, dsink, in the dtype of q; `grads` are those of out and of the LSE."""
        leaves = [t.detach().clone().requires_grad_() for t in (*qkv, *(() if sink is None else (sink,)))]
        out, lse = self.attention(*leaves[:3], leaves[3] if sink is not None else None)
        total = (out * grads[0].to(out.dtype)).sum()
        if grads[1] is not None:
            total = total + (lse.masked_fill(lse == -math.inf, 0) * grads[1].to(out.dtype)).sum()
        return [out.detach(), lse.detach(), *torch.autograd.grad(total, leaves)]


def assert_close(
    got: list[Tensor],
    formula: Formula,
    qkv: list[Tensor],
    grads: tuple[Tensor, Tensor | None],
    sink: Tensor | None = None,
) -> None:
    """Against float64: the largest error at most 2x, the mean at most 1.1x that of plain attention in the same dtype
    (float32: 10x); the LSE, a float32, is held to plain float32 attention. Rows that see nothing are exact."""
    low = qkv[0].dtype
    wide_grads = tuple(None if t is None else t.double() for t in grads)
    exact = formula.outcome([t.double() for t in qkv], None if sink is None else sink.double(), wide_grads)
    plain = formula.outcome(qkv, sink, grads)
    plain[1] = formula.attention(*(t.float() for t in qkv), sink)[1]
    assert len(got) == len(exact)
    for name, actual, want, other, like in zip(NAMES, got, exact, plain, (qkv[0], None, *qkv, sink), strict=False):
        if like is not None:
            assert actual.shape == like.shape and actual.dtype == like.dtype and actual.is_contiguous(), name
        assert not actual.isnan().any(), name
        infinite = want == -math.inf
        assert torch.equal(actual == -math.inf, infinite), name
        error, allowed = ((t.double() - want).masked_fill(infinite, 0).abs() for t in (actual, other))
        of_most, of_mean = (10.0, 10.0) if low == torch.float32 or name == "lse" else (2.0, 1.1)
        if error.numel():
            assert error.max() <= max(of_most * allowed.max().item(), 1e-5), name
            assert error.mean() <= max(of_mean * allowed.mean().item(), 1e-5), name
    empty = (~formula.mask.any(dim=-1)).expand(got[0].shape[:3])
    assert not got[0][empty].any()
    if len(got) > 2:
        assert not got[2][empty].any()
