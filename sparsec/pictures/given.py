"""A pattern with the inputs of a call -> its mask, and how much of each distinct head is live, and where.

Invariant: what is live comes from the reference alone. Few rows of queries are held at a time, but for `live_mask`,
which gives all; heads that share their terms and their inputs are computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sparsec.analysis.coverage import TILE, HeadCoverage, Ints, View, cell_edges, whole_view
from sparsec.analysis.rows import GOLDEN
from sparsec.reference import mask
from sparsec.reference.inputs import given_inputs
from sparsec.reference.parts import InputTensors, heads_given, inputs_of_part
from sparsec.sema.model import Documents, ResolvedPattern

PAIRS = 1 << 29
"""Pairs of all heads that `given_coverage` looks at; beyond, tiles of queries are sampled in each row of cells."""


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
    view: View | None = None,
) -> tuple[HeadCoverage, ...]:
    """As `analysis.coverage.pattern_coverage`, for `length` queries on as many keys; the cells are of sequence 0."""
    view = view or whole_view(length)
    alike = shared(pattern, given)
    per_head, (top, bottom), (left, right) = pattern.heads // alike.heads, view.rows, view.columns
    edges, columns = cell_edges(top, bottom, cells[0]), cell_edges(left, right, cells[1])
    height, sizes = len(edges) - 1, np.diff(edges)
    live = np.zeros((alike.heads, height, len(columns) - 1))
    looked, pairs = np.zeros(height), np.zeros((alike.heads, height))
    ahead = np.zeros(alike.heads, np.bool_)
    for first, stop in _tiles(edges, max(PAIRS // (alike.heads * TILE * length), cells[0], 16)):
        at = np.arange(first, stop)
        rows = _rows(alike, given, (first, stop), length, 0)[..., left:right].numpy()
        cell = np.searchsorted(edges, at, side="right") - 1
        np.add.at(pairs.T, cell, rows.sum((0, 3)).T / len(rows))
        ahead |= (rows & (np.arange(left, right) > at[:, None])).any((0, 2, 3))
        seen = np.add.reduceat(rows[0].astype(np.int64), columns[:-1] - left, axis=2)
        np.add.at(looked, cell, 1)
        for own, counts in zip(live, seen, strict=True):
            np.add.at(own, cell, counts)
    live /= looked[:, None] * np.diff(columns)
    exact, shares = bool((looked == sizes).all()), pairs @ (sizes / looked)
    found: dict[object, HeadCoverage] = {}
    for head in range(alike.heads):
        heads = tuple(range(head * per_head, (head + 1) * per_head))
        share = float(shares[head])
        same = (live[head].tobytes(), share)
        if same in found:
            found[same] = replace(found[same], heads=found[same].heads + heads)
            continue
        found[same] = HeadCoverage(heads, edges, columns, live[head], share, not ahead[head], exact)
    return tuple(each for each in found.values() if only is None or only in each.heads)


def _tiles(edges: Ints, limit: int) -> Iterator[tuple[int, int]]:
    """All rows in tiles, if `limit` tiles hold them; or some tiles of each row of cells, at a varying place of each
    equal part of it."""
    top, bottom = int(edges[0]), int(edges[-1])
    if bottom - top <= limit * TILE:
        yield from ((first, min(first + TILE, bottom)) for first in range(top, bottom, TILE))
        return
    each = max(limit // (len(edges) - 1), 1)
    for number, (begin, end) in enumerate(pairwise(edges.tolist())):
        if end - begin <= each * TILE:
            yield from ((first, min(first + TILE, end)) for first in range(begin, end, TILE))
            continue
        for n in range(each):
            low, high = (begin + (end - begin) * part // each for part in (n, n + 1))
            first = low + int((number * each + n + 1) * GOLDEN % 1 * (high - low - TILE + 1))
            yield first, first + TILE


def on_cpu(pattern: ResolvedPattern, inputs: Mapping[str, InputTensors], length: int) -> dict[str, InputTensors]:
    """The inputs of a call of `length` queries on as many keys. Raises CallError where they do not fit."""
    given_inputs(pattern, inputs, length, length, 0)
    return {
        name: value.cpu() if isinstance(value, Tensor) else (value[0].cpu(), value[1].cpu())
        for name, value in inputs.items()
    }


def shared(pattern: ResolvedPattern, given: Mapping[str, InputTensors]) -> ResolvedPattern:
    """The pattern of one head, or of one for each KV group, where those of all or of a group see the same."""
    own = heads_given(pattern.inputs, given)
    for heads in (1, pattern.kv_heads):
        terms = pattern.terms[:: pattern.heads // heads]
        if own <= heads and all(term == terms[h * heads // pattern.heads] for h, term in enumerate(pattern.terms)):
            kv_heads = 1 if heads == 1 else pattern.kv_heads
            return replace(pattern, heads=heads, kv_heads=kv_heads, terms=terms)
    return pattern


def _rows(
    pattern: ResolvedPattern, given: Mapping[str, InputTensors], rows: tuple[int, int], n_k: int, start: int
) -> Tensor:
    """bool [B, heads, rows, n_k] of the call's queries `rows`, the first of the call being at `start`."""
    plainly = replace(pattern, documents=Documents.NONE)
    if not pattern.inputs:
        return mask(plainly, rows[1] - rows[0], n_k, start + rows[0])[None]
    part = inputs_of_part(pattern, given, queries=rows, keys=(0, n_k), start=start)
    return mask(plainly, rows[1] - rows[0], n_k, start + rows[0], inputs=part)
