"""What selectors share: probabilities of the last queries, sums by distance, means of blocks, and covers of a mass.

Invariant: nothing is read back to the host, and no matrix of all queries and keys is made.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad


def wide(x: Tensor) -> Tensor:
    """In float32 at least: scores are summed up."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def for_heads(k: Tensor, q: Tensor) -> Tensor:
    """Keys [B, G, N, D], repeated for the query heads of their group."""
    return wide(k).repeat_interleave(q.shape[1] // k.shape[1], 1)


def last_queries(q: Tensor, k: Tensor, count: int) -> Tensor:
    """Attention probabilities [B, H, rows, Nk] of the last `count` queries, with every key up to the query."""
    q = wide(q)[:, :, -count:]
    scores = q @ for_heads(k, q).mT / math.sqrt(q.shape[-1])
    rows, keys = scores.shape[-2:]
    seen = torch.ones(rows, keys, dtype=torch.bool, device=q.device).tril(keys - rows)
    return scores.masked_fill(~seen, -math.inf).softmax(-1)


def by_distance(probabilities: Tensor) -> Tensor:
    """The mass [B, H, Nk] of each distance i - j, of the last queries."""
    rows, keys = probabilities.shape[-2:]
    mass = torch.zeros_like(probabilities[..., 0, :])
    for row in range(rows):  # its own key stands at distance 0
        own = keys - rows + row
        mass[..., : own + 1] += probabilities[..., row, : own + 1].flip(-1)
    return mass


def block_sums(x: Tensor, block: int, first: int = 0) -> Tensor:
    """Sums over blocks of the last dimension, whose entries stand at positions `first`, `first` + 1, ..."""
    x = pad(x, (first % block, -(first + x.shape[-1]) % block))
    return x.unflatten(-1, (-1, block)).sum(-1)


def block_means(x: Tensor, block: int, first: int = 0) -> Tensor:
    """Means [B, H, blocks, D] of rows [B, H, N, D] at positions `first`, `first` + 1, ..."""
    rows = torch.ones_like(x[0, 0, :, 0])
    return block_sums(x.mT, block, first).mT / block_sums(rows, block, first)[:, None]


def smallest_cover(mass: Tensor, share: float, forced: Tensor | None = None) -> Tensor:
    """Which entries of the last dimension hold `share` of its mass: the largest ones, as few as do.

    `forced` entries are taken first and count. Of equal ones the first is taken.
    """
    first = mass if forced is None else mass.masked_fill(forced, math.inf)
    order = first.argsort(dim=-1, descending=True, stable=True)
    ordered = mass.gather(-1, order)
    wanted = (ordered.cumsum(-1) - ordered) < share * mass.sum(-1, keepdim=True)
    taken = torch.zeros_like(wanted).scatter(-1, order, wanted)
    return taken if forced is None else taken | forced


def listed(taken: Tensor) -> Tensor:
    """The entries of the last dimension that are taken, as a list with -1 in the other places."""
    places = torch.arange(taken.shape[-1], device=taken.device)
    return torch.where(taken, places, -1)
