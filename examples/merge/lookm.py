"""LOOK-M's merging (arXiv 2406.18139): when a prompt ends, each key joins one of a few pivots, the one most like it.

Pivots are the latest keys and those with the most attention of the others. The key and value of a pivot become the
means over all that joined it (the paper's averaged merging), and its score gets the logarithm of their number.

    attn = sparsec.compile("examples/merge/lookm.sparse", heads=8, kv_heads=2, head_dim=64)
    out = prefill(attn, cache := attn.new_cache(1, max_len), q, k, v, important=0.1, recent=0.1)
    out = attn(q1, k1, v1, cache=cache, inputs=unmerged(k1))
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

import sparsec
from sparsec.runtime.kv.cache import KVCache


def unmerged(k: Tensor) -> dict[str, Tensor]:
    """The inputs of a call with keys [B, G, N, D] that each stand for themselves."""
    new = k.shape[2]
    return {
        "kept": torch.ones(1, new, dtype=torch.bool, device=k.device),
        "counts": torch.zeros(1, 1, new, device=k.device),
    }


def prefill(
    attn: sparsec.SparseAttention, cache: KVCache, q: Tensor, k: Tensor, v: Tensor, *, important: float, recent: float
) -> Tensor:
    """Attends densely to a prompt, stores it in the empty cache, and merges its keys; shares of the prompt's keys."""
    given, keys = unmerged(k), k.shape[2]
    out: Tensor = attn(q, k, v, cache=cache, inputs=given)
    _, mass = attn(q, k, v, inputs=given, return_mass=True)
    groups = pivots(k, mass, important=math.ceil(important * keys), recent=math.ceil(recent * keys))
    cache.merge("kept", groups)
    return out


def pivots(k: Tensor, mass: Tensor, *, important: int, recent: int) -> Tensor:
    """int64 [B, G, N]: which pivot each key [B, G, N, D] joins, itself if it is one; mass: [B, H, N]."""
    batch, groups, keys, width = k.shape
    scores = mass.view(batch, groups, -1, keys).sum(2)
    scores[..., max(keys - recent, 0) :] = math.inf
    chosen = scores.topk(min(important + recent, keys), dim=2).indices
    directions = normalize(k.float(), dim=3)
    likeness = directions @ directions.gather(2, chosen[..., None].expand(-1, -1, -1, width)).mT
    own = torch.arange(chosen.shape[2], device=k.device).expand_as(chosen)
    return likeness.argmax(3).scatter(2, chosen, own)
