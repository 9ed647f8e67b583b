"""FlexPrefill's selector (arXiv 2502.20766, Algorithms 2 to 4), for `flexprefill.sparse`.

The last `block` queries decide about a head. If means of blocks guess their attention well (the root of the
Jensen-Shannon divergence is below `tau`), the head takes the fewest tiles that hold `gamma` of the mass of all means.
If not, it takes the fewest key blocks, and the fewest distances in blocks, that hold `gamma` of the mass of those
queries. Every head takes the first key block and the diagonal.
"""

from __future__ import annotations

import math

import torch
from scores import block_means, block_sums, by_distance, for_heads, last_queries, listed, smallest_cover, wide
from torch import Tensor


def select(
    layer: int, q: Tensor, k: Tensor, *, gamma: float = 0.9, tau: float = 0.1, block: int = 128
) -> dict[str, Tensor]:
    first = k.shape[-2] - q.shape[-2]
    mass = last_queries(q, k, block)
    vertical = block_sums(mass.mean(-2), block)
    slash = block_sums(by_distance(mass), block) / mass.shape[-2]
    keys = block_means(for_heads(k, q), block)

    guess = wide(q)[:, :, -block:].mean(-2, keepdim=True) @ keys.mT / math.sqrt(q.shape[-1])
    aware = (divergence(guess.softmax(-1).squeeze(-2), vertical).sqrt() < tau)[..., None]

    tiles = block_means(wide(q), block, first) @ keys.mT / math.sqrt(q.shape[-1])
    own = first // block + torch.arange(tiles.shape[-2], device=q.device)
    later = torch.arange(tiles.shape[-1], device=q.device) > own[:, None]
    share = tiles.masked_fill(later, -math.inf).softmax(-1)
    picks = smallest_cover(share.flatten(-2), gamma).unflatten(-1, share.shape[-2:])

    nearest = torch.arange(keys.shape[-2], device=q.device) == 0
    return {
        "vertical": listed(smallest_cover(vertical, gamma) & ~aware | nearest),
        "slash": listed(smallest_cover(slash, gamma) & ~aware | nearest),
        "picks": picks & aware[..., None],
    }


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Jensen and Shannon's, over the last dimension."""
    middle = ((p + q) / 2).log()
    return (torch.xlogy(p, p) - p * middle + torch.xlogy(q, q) - q * middle).sum(-1).clamp(min=0) / 2
