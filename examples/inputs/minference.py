"""MInference's selector (arXiv 2407.02490), for `minference.sparse` and what `sparsec import minference` writes.

A head lists the keys and the distances that the last 64 queries attend to most. The first 30 keys and the 100 nearest
distances come first, then the others by their mass. How many are listed is in MInference's table, head by head.
`block_sparse` heads take, for each block of queries, the 100 key blocks whose mean is nearest to that of the queries.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from scores import block_sums, by_distance, for_heads, last_queries, wide
from torch import Tensor

LAST, COLUMNS, DISTANCES = 64, 30, 100
BLOCK, TOP = 64, 100

Layer = list[tuple[str, int, int]]
"""For each head its type, its vertical size and its slash size."""


def read_table(path: str | Path) -> list[Layer]:
    """The layers of a table: a JSON list of objects `"head": [type, vertical size, slash size, score]`."""
    table = json.loads(Path(path).read_text(encoding="utf-8"))
    return [[tuple(layer[str(head)][:3]) for head in range(len(layer))] for layer in table]


def select(layer: int, q: Tensor, k: Tensor, *, table: list[Layer]) -> dict[str, Tensor]:
    """The inputs of a layer; `functools.partial(select, table=read_table("CONFIG.json"))` takes (layer, q, k) alone."""
    heads = table[layer]
    types = {kind for kind, _, _ in heads}
    inputs = {}
    if "vertical_and_slash" in types:
        lists = [(max(v, COLUMNS), max(s, 50)) if kind == "vertical_and_slash" else (0, 0) for kind, v, s in heads]
        mass = last_queries(q, k, LAST)
        inputs["vertical"] = largest(mass.sum(-2), COLUMNS, [v for v, _ in lists])
        inputs["slash"] = largest(by_distance(mass), DISTANCES, [s for _, s in lists])
    if "block_sparse" in types:
        inputs["picks"] = nearest_blocks(q, k)
    return inputs


def largest(mass: Tensor, forced: int, sizes: list[int]) -> Tensor:
    """The `sizes[h]` entries of head h with the largest mass, the first `forced` before all; -1 behind them."""
    mass[..., :forced] = math.inf
    order = mass.argsort(dim=-1, descending=True, stable=True)[..., : max(sizes)]
    rank = torch.arange(order.shape[-1], device=mass.device)
    return torch.where(rank < torch.tensor(sizes, device=mass.device)[:, None], order, -1)


def nearest_blocks(q: Tensor, k: Tensor) -> Tensor:
    """bool [B, H, Qb, Kb]; of means over blocks, where the end of the last block counts as zeros."""
    first = k.shape[-2] - q.shape[-2]
    queries = block_sums(wide(q).mT, BLOCK, first).mT
    keys = block_sums(for_heads(k, q).mT, BLOCK).mT
    scores = queries @ keys.mT
    own = first // BLOCK + torch.arange(scores.shape[-2], device=q.device)
    later = torch.arange(scores.shape[-1], device=q.device) > own[:, None]
    order = scores.masked_fill(later, -math.inf).argsort(dim=-1, descending=True, stable=True)[..., :TOP]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, True)
