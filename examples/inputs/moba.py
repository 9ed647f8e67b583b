"""MoBA's selector (arXiv 2502.13189), for `moba.sparse`.

Every query takes its own chunk and, of the chunks before it, those whose mean key has the largest product with the
query, `top` chunks in all.
"""

from __future__ import annotations

import math

import torch
from scores import block_means, for_heads, wide
from torch import Tensor


def select(layer: int, q: Tensor, k: Tensor, *, top: int = 3, chunk: int = 512) -> dict[str, Tensor]:
    scores = wide(q) @ block_means(for_heads(k, q), chunk).mT
    own = torch.arange(k.shape[-2] - q.shape[-2], k.shape[-2], device=q.device) // chunk
    later = torch.arange(scores.shape[-1], device=q.device) >= own[:, None]
    best = scores.masked_fill(later, -math.inf).topk(min(top - 1, scores.shape[-1]), -1)
    return {"picks": best.indices.masked_fill(best.values == -math.inf, -1)}
