"""Attention over an explicit mask, dense and in float64: what every kernel is compared with.

Invariant: a query whose row is empty has output 0 and log-sum-exp -inf, never NaN.
"""

from __future__ import annotations

import torch

from sparsec.diagnostics.model import CallError


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(out [B, H, Nq, Dv], lse [B, H, Nq]) in float64, with gradients to q, k and v.

    q [B, H, Nq, D]; k [B, G, Nk, D]; v [B, G, Nk, Dv]; G divides H; mask bool [H, Nq, Nk] or broadcastable to it;
    `scale` is 1/sqrt(D) if left out. lse is the natural logarithm of the sum of exp(scale * q.k) over the row.
    """
    heads, kv_heads = q.shape[1], k.shape[1]
    if heads % kv_heads:
        raise CallError(f"expected the KV heads to divide the query heads, got {kv_heads} and {heads}")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    keys = k.double().repeat_interleave(heads // kv_heads, dim=1)
    values = v.double().repeat_interleave(heads // kv_heads, dim=1)
    scores = (q.double() @ keys.transpose(-1, -2)) * scale
    scores = scores.masked_fill(~mask, float("-inf"))
    seen = mask.any(dim=-1).expand(scores.shape[:-1])
    # An empty row would be -inf - -inf: give it a finite row and take its weights away afterwards.
    finite = torch.where(seen[..., None], scores, torch.zeros_like(scores))
    weights = torch.softmax(finite, dim=-1) * seen[..., None]
    lse = torch.logsumexp(finite, dim=-1).masked_fill(~seen, float("-inf"))
    # A key that no query sees may hold NaN, and 0 * NaN is NaN.
    used = mask.expand(scores.shape[-3:]).any(dim=-2)[None, :, :, None]
    return weights @ torch.where(used, values, torch.zeros_like(values)), lse
