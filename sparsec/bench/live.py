"""A pattern with the inputs of a call -> its mask, and how much of each distinct head is live, and where.

Invariant: what is live comes from the reference alone. Few rows of queries are held at a time, but for `live_mask`,
which gives all; heads that share their terms and their inputs are computed once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sparsec.analysis.coverage import TILE, HeadCoverage, spread
from sparsec.reference import mask
from sparsec.reference.parts import InputTensors, inputs_of_part
from sparsec.sema.model import Documents, InputDecl, InputKind, ResolvedPattern

PAIRS = 1 << 29
"""Pairs of all heads that `given_coverage` looks at; beyond, query tiles are sampled."""


def live_mask(pattern: ResolvedPattern, given: Mapping[str, InputTensors], n_q: int, n_k: int, start: int) -> Tensor:
    """bool [B or 1, X, n_q, n_k] on the CPU, X being 1, the KV heads or the query heads, as heads differ."""
    alike = shared(pattern, given)
    parts = [_rows(alike, given, (at, min(at + TILE, n_q)), n_k, start) for at in range(0, n_q, TILE)]
    return torch.cat(parts, dim=2)


def given_coverage(
    pattern: ResolvedPattern,
    given: Mapping[str, InputTensors],
    length: int,
    cells: tuple[int, int] = (1, 1),
    *,
    only: int | None = None,
) -> tuple[HeadCoverage, ...]:
    """As `analysis.coverage.pattern_coverage`, for `length` queries on as many keys; pictures are of sequence 0."""
    alike = shared(pattern, given)
    per_head = pattern.heads // alike.heads
    tiles = -(-length // TILE)
    per_cell = -(-tiles // cells[0]), -(-tiles // cells[1])
    shape = alike.heads, -(-tiles // per_cell[0]), -(-tiles // per_cell[1])
    full, partial, held = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape[1:], np.int64)
    column_cell = np.arange(tiles) // per_cell[1]
    widths = torch.full((tiles,), TILE).clamp(max=length)
    widths[-1] = length - (tiles - 1) * TILE
    live, queries, ahead = torch.zeros(alike.heads, dtype=torch.float64), 0, torch.zeros(alike.heads, dtype=torch.bool)
    for tile in spread(tiles, max(PAIRS // (alike.heads * TILE * length), cells[0], 16)):
        first, last = tile * TILE, min((tile + 1) * TILE, length)
        rows = _rows(alike, given, (first, last), length, 0)
        live += rows.sum((0, 2, 3)) / len(rows)
        queries += last - first
        ahead |= rows[..., first:].triu(1).any(-1).any(-1).any(0)
        columns = torch.nn.functional.pad(rows[0], (0, tiles * TILE - length))
        counts = columns.view(alike.heads, last - first, tiles, TILE).sum((1, 3))
        whole = counts == widths * (last - first)
        held[tile // per_cell[0]] += np.bincount(column_cell, minlength=shape[2])
        for sums, which in ((full, whole), (partial, (counts > 0) & ~whole)):
            for head, marks in enumerate(which.numpy()):
                sums[head, tile // per_cell[0]] += np.bincount(column_cell, weights=marks, minlength=shape[2]).astype(
                    int
                )
    found: dict[object, HeadCoverage] = {}
    for head in range(alike.heads):
        heads = tuple(range(head * per_head, (head + 1) * per_head))
        pairs = float(live[head]) * (length / queries)
        same = (full[head].tobytes(), partial[head].tobytes(), pairs)
        if same in found:
            found[same] = replace(found[same], heads=found[same].heads + heads)
            continue
        found[same] = HeadCoverage(
            heads,
            TILE,
            TILE,
            per_cell,
            full[head],
            partial[head],
            held,
            pairs,
            not bool(ahead[head]),
            queries == length,
        )
    return tuple(each for each in found.values() if only is None or only in each.heads)


def shared(pattern: ResolvedPattern, given: Mapping[str, InputTensors]) -> ResolvedPattern:
    """The pattern of one head, or of one for each KV group, where those of all or of a group see the same."""
    own = max((_heads_of(decl, given[decl.name]) for decl in pattern.inputs), default=1)
    for heads in (1, pattern.kv_heads):
        terms = pattern.terms[:: pattern.heads // heads]
        if own <= heads and all(term == terms[h * heads // pattern.heads] for h, term in enumerate(pattern.terms)):
            kv_heads = 1 if heads == 1 else pattern.kv_heads
            return replace(pattern, heads=heads, kv_heads=kv_heads, terms=terms)
    return pattern


def _heads_of(decl: InputDecl, value: InputTensors) -> int:
    """X of an input's tensors; 1 where they have no such axis."""
    pair = value if isinstance(value, tuple) else (value,)
    bare = {InputKind.LENGTH: 1, InputKind.TOKENS: 2, InputKind.TREE: 2}
    return max(1 if t.dim() == bare.get(decl.kind) else t.shape[1] for t in pair)


def _rows(
    pattern: ResolvedPattern, given: Mapping[str, InputTensors], rows: tuple[int, int], n_k: int, start: int
) -> Tensor:
    """bool [B, heads, rows, n_k] of the call's queries `rows`, the first of the call being at `start`."""
    plainly = replace(pattern, documents=Documents.NONE)
    if not pattern.inputs:
        return mask(plainly, rows[1] - rows[0], n_k, start + rows[0])[None]
    part = inputs_of_part(pattern, given, queries=rows, keys=(0, n_k), start=start)
    return mask(plainly, rows[1] - rows[0], n_k, start + rows[0], inputs=part)
