"""SnapKV's score (arXiv 2404.14469), for `sparsec.integrations.transformers.compress`.

The last queries of the prompt vote: a key's score is their mean attention to it, pooled over its neighbours, and its
mean over the query heads of a KV group. The last keys stay in any case.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, pad

from sparsec.integrations.transformers import Prompt


def score(prompt: Prompt, *, window: int = 32, kernel: int = 5) -> Tensor:
    q, k = prompt.q[:, :, -window:], prompt.k
    groups, keys = k.shape[1:3]
    if keys <= window:
        return torch.full(k.shape[:3], math.inf, device=k.device)
    scores = (q @ k.repeat_interleave(q.shape[1] // groups, 1).mT).float() * prompt.scale
    seen = torch.ones(window, keys, dtype=torch.bool, device=k.device).tril(keys - window)
    votes = scores.masked_fill(~seen, -math.inf).softmax(-1).mean(2)[..., :-window]
    pooled = avg_pool1d(votes, kernel, stride=1, padding=kernel // 2)
    return pad(pooled.unflatten(1, (groups, -1)).mean(2), (0, window), value=math.inf)
