"""Quest's selector (arXiv 2406.10774), for `quest.sparse`.

The largest score that a query can have in a page is bounded by the minimum and the maximum of each of the page's
channels. A new token reads the `budget` pages with the largest bounds, the newest page always one of them. The prompt
reads everything, and so do the first `dense` layers of the model, which take no inputs. (A server keeps the minima and
maxima of its pages; they are taken anew here.)
"""

from __future__ import annotations

import math

import torch
from scores import for_heads, wide
from torch import Tensor
from torch.nn.functional import pad


def select(layer: int, q: Tensor, k: Tensor, *, budget: int = 128, page: int = 16, dense: int = 2) -> dict[str, Tensor]:
    if layer < dense:
        return {}
    keys, queries, device = k.shape[-2], q.shape[-2], q.device
    if queries > 1:
        none = torch.empty(*q.shape[:3], 0, dtype=torch.int64, device=device)
        return {"prompt": torch.full((q.shape[0],), keys, device=device), "picks": none}
    low, high = (
        pad(for_heads(k, q), (0, 0, 0, -keys % page), value=value).unflatten(-2, (-1, page))
        for value in (math.inf, -math.inf)
    )
    low, high = low.amin(-2)[..., : (keys - 1) // page, :], high.amax(-2)[..., : (keys - 1) // page, :]
    bound = wide(q).clamp(min=0) @ high.mT + wide(q).clamp(max=0) @ low.mT
    picks = bound.topk(min(budget - 1, bound.shape[-1]), -1).indices
    return {"prompt": torch.zeros(q.shape[0], dtype=torch.int64, device=device), "picks": picks}
