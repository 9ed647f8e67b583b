"""Attention over an explicit mask, dense and in float64: what every kernel is compared with.

Invariant: a query whose row is empty has output 0 and log-sum-exp -inf, never NaN.
"""

from __future__ import annotations

from typing import assert_never

import torch

from sparsec.diagnostics.model import CallError
from sparsec.sema.model import Score
from sparsec.sema.modifiers import Alibi, KeyBias, LearnedSink, Softcap

PLAIN = Score()
"""No score modifier, and the scale left out."""


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor,
    score: Score = PLAIN,
    *,
    sink: torch.Tensor | None = None,
    key_bias: torch.Tensor | None = None,
    q_offset: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(out [B, H, Nq, Dv], lse [B, H, Nq]) in `dtype`, with gradients to q, k, v, sink and key_bias.

    q [B, H, Nq, D]; k [B, G, Nk, D]; v [B, G, Nk, Dv]; G divides H; mask bool [H, Nq, Nk], [B, H, Nq, Nk] or
    broadcastable to it; lse is the natural logarithm of the sum of exp(score) over the row. `sink` [H]: one more logit
    a head in the sum, with no value, where a modifier learns one. `key_bias` [B or 1, X, Nk], X = 1, G or H: what the
    modifier of that name adds; a key whose bias is -inf is not seen. Queries start at `q_offset`, Nk - Nq if left out.
    Raises CallError for head counts, slopes or a bias that do not fit.
    """
    heads, kv_heads = q.shape[1], k.shape[1]
    if heads % kv_heads:
        raise CallError(f"expected the KV heads to divide the query heads, got {kv_heads} and {heads}")
    scale = q.shape[-1] ** -0.5 if score.scale is None else score.scale
    keys = k.to(dtype).repeat_interleave(heads // kv_heads, dim=1)
    values = v.to(dtype).repeat_interleave(heads // kv_heads, dim=1)
    scores = (q.to(dtype) @ keys.transpose(-1, -2)) * scale
    for modifier in score.modifiers:
        match modifier:
            case Softcap(x):
                scores = x * torch.tanh(scores / x)
            case Alibi():
                slopes = modifier.of_heads(heads)
                if len(slopes) != heads:
                    raise CallError(f"expected a slope for each of {heads} heads, got {len(slopes)}")
                scores = scores - _distances(slopes, q.shape[2], k.shape[2], q_offset).to(scores)
            case KeyBias():
                if key_bias is None:
                    raise CallError("expected key_bias, which the score adds, got none")
                scores = scores + _of_heads(key_bias, heads).to(scores)[..., None, :]
            case LearnedSink():
                pass
            case _:
                assert_never(modifier)
    if key_bias is not None:
        mask = mask & (_of_heads(key_bias, heads)[..., None, :] != float("-inf"))
    scores = scores.masked_fill(~mask, float("-inf"))
    seen = mask.any(dim=-1).expand(scores.shape[:-1])
    if sink is not None:
        extra = sink.to(dtype)[:, None, None].expand(*scores.shape[:-1], 1)
        scores, seen = torch.cat((scores, extra), dim=-1), torch.ones_like(seen)
    # An empty row would be -inf - -inf: give it a finite row and take its weights away afterwards.
    finite = torch.where(seen[..., None], scores, torch.zeros_like(scores))
    weights = torch.softmax(finite, dim=-1)[..., : k.shape[2]] * seen[..., None]
    lse = torch.logsumexp(finite, dim=-1).masked_fill(~seen, float("-inf"))
    # A key that no query sees may hold NaN, and 0 * NaN is NaN.
    used = mask.expand(*q.shape[:3], k.shape[2]).any(dim=-2)[..., None]
    return weights @ torch.where(used, values, torch.zeros_like(values)), lse


def _of_heads(values: torch.Tensor, heads: int) -> torch.Tensor:
    """[B, X, n] for each of `heads` query heads: [B, heads, n]."""
    return values.repeat_interleave(heads // values.shape[1], dim=1)


def _distances(slopes: tuple[float, ...], n_q: int, n_k: int, q_offset: int | None) -> torch.Tensor:
    """Each head's slope times |i - j|, float64 [H, Nq, Nk]."""
    start = n_k - n_q if q_offset is None else q_offset
    i, j = torch.arange(start, start + n_q)[:, None], torch.arange(n_k)[None, :]
    return torch.tensor(slopes, dtype=torch.float64)[:, None, None] * (i - j).abs()
