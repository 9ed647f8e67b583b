"""XAttention's selector (arXiv 2503.16428), for `xattention.sparse`.

The score of `stride` queries and `stride` keys is the sum along their antidiagonal. A row of a soft-max over these
scores stands for `stride` queries. A tile has the mass of its part of the rows, and each block of queries takes the
fewest tiles that hold `threshold` of its mass, the first key block and its own among them.
"""

from __future__ import annotations

import math

import torch
from scores import for_heads, smallest_cover, wide
from torch import Tensor
from torch.nn.functional import pad


def select(
    layer: int, q: Tensor, k: Tensor, *, threshold: float = 0.9, stride: int = 16, block: int = 128
) -> dict[str, Tensor]:
    first, stop, a_block = k.shape[-2] - q.shape[-2], k.shape[-2], block // stride
    keys = groups(for_heads(k, q), stride, block)
    queries = groups(wide(q), stride, block, first, backwards=True)
    group = torch.arange(keys.shape[-2], device=q.device)
    masses = []
    for row in range(queries.shape[-2] // a_block):  # a row of tiles at a time: no matrix of all groups is kept
        own = first // block * a_block + row * a_block + group[:a_block, None]
        scores = queries[..., row * a_block : (row + 1) * a_block, :] @ keys.mT / (math.sqrt(q.shape[-1]) * stride)
        mass = scores.masked_fill((group > own) | (group * stride >= stop), -math.inf).softmax(-1)
        mass = mass * ((own + 1) * stride > first) * (own * stride < stop)  # groups without a query count for nothing
        masses.append(mass.sum(-2).unflatten(-1, (-1, a_block)).sum(-1))
    tiles = torch.stack(masses, -2)
    column = group[: tiles.shape[-1]]
    own = first // block + torch.arange(tiles.shape[-2], device=q.device)[:, None]
    return {"picks": smallest_cover(tiles, threshold, ((column == 0) | (column == own)).expand_as(tiles))}


def groups(x: Tensor, stride: int, block: int, first: int = 0, *, backwards: bool = False) -> Tensor:
    """Rows [B, H, N, D] from position `first` on -> [B, H, groups, stride * D], of whole blocks."""
    x = pad(x, (0, 0, first % block, -(first + x.shape[-2]) % block)).unflatten(-2, (-1, stride))
    return (x.flip(-2) if backwards else x).flatten(-2)
