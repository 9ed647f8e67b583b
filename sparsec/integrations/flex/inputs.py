"""The tensors of a run-time input -> a test of pairs by lookups in dense tables, as a user of FlexAttention writes it.

Invariant: a table is made from the input's tensors alone, before any pair is tested; nothing is read back to the host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from sparsec.sema.model import InputDecl, InputKind, InputUnit
from sparsec.sema.shapes import tile_of

PairTest = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(b, h, i, j): whether the input holds for the query at i of head h, in sequence b, and the key at j."""


@dataclass(frozen=True, slots=True)
class CallPlace:
    """The queries at start .. start + n_q - 1 of `heads` heads, and n_k keys; `block` is the pattern's."""

    heads: int
    start: int
    n_q: int
    n_k: int
    block: int


def input_test(decl: InputDecl, given: tuple[Tensor, ...], at: CallPlace) -> PairTest:
    """The test of a settled input that is a term."""
    tensors = tuple(_with_heads(tensor, decl) for tensor in given)
    first, block = tensors[0], at.block
    last = max(at.start + at.n_q - 1, 0)
    match decl.kind:
        case InputKind.TOKENS:
            return lambda b, h, i, j: first[*_row(first, b, h, at), j]
        case InputKind.COLUMNS:
            unit = block if decl.unit is InputUnit.BLOCKS else 1
            columns = _marks(first, 0, -(-at.n_k // unit))
            return lambda b, h, i, j: columns[*_row(columns, b, h, at), j // unit]
        case InputKind.SLASHES if decl.unit is InputUnit.TILES:
            # Distance s is listed for some t <= s < t + block with t = i // block * block - j.
            listed = _marks(first, 0, last + block)
            before = torch.nn.functional.pad(listed.cumsum(-1), (1, 0))
            width = before.shape[-1] - 1

            def in_tile(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
                low, row = i // block * block - j, _row(before, b, h, at)
                return before[*row, (low + block).clamp(0, width)] > before[*row, low.clamp(0, width)]

            return in_tile
        case InputKind.SLASHES:
            unit = block if decl.unit is InputUnit.BLOCKS else 1
            slashes = _marks(first, 0, last // unit + 1)

            def on_slash(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
                distance = i // unit - j // unit
                return (distance >= 0) & slashes[*_row(slashes, b, h, at), distance.clamp(min=0)]

            return on_slash
        case InputKind.ROWS:
            unit = block if decl.unit is InputUnit.BLOCKS else 1
            rows = _marks(first, 0, -(-at.n_k // unit))
            return lambda b, h, i, j: rows[*_row(rows, b, h, at), i - at.start, j // unit]
        case InputKind.BLOCKS:
            m, n = tile_of(decl)
            cells = first if len(tensors) == 1 else _listed_cells(first, tensors[1], -(-at.n_k // n))
            return lambda b, h, i, j: cells[*_row(cells, b, h, at), i // m - at.start // m, j // n]
        case InputKind.LABELS:
            of_keys = tensors[1]

            def same(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
                own = first[*_row(first, b, h, at), i - at.start]
                return (own == of_keys[*_row(of_keys, b, h, at), j]) & (own >= 0)

            return same
        case InputKind.TREE:
            seen = _ancestors(first)
            drafts, before_them = seen.shape[-1], at.n_k - seen.shape[-1]
            if not drafts:
                return lambda b, h, i, j: j < before_them

            def ancestor(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
                query, key = i - before_them, j - before_them
                inside = (query >= 0) & (query < drafts) & (key >= 0)
                places = query.clamp(0, drafts - 1), key.clamp(0, drafts - 1)
                return (key < 0) | (inside & seen[*_row(seen, b, h, at), *places])

            return ancestor
        case InputKind.LENGTH | InputKind.WEIGHTS:
            raise AssertionError("a length and weights are no terms")
        case _:
            assert_never(decl.kind)


def length_number(given: tuple[Tensor, ...], at: CallPlace) -> Callable[[Tensor, Tensor], Tensor]:
    """(b, h) -> the run-time length; what is negative counts as 0."""
    lengths = (given[0] if given[0].dim() == 2 else given[0][:, None]).to(torch.int64).clamp(0, 2**40)
    return lambda b, h: lengths[*_row(lengths, b, h, at)]


def _with_heads(tensor: Tensor, decl: InputDecl) -> Tensor:
    """[b, x, ...] of marks or a tree that may lack the heads."""
    bare = decl.kind is InputKind.TREE or (decl.kind is InputKind.TOKENS and tensor.dim() == 2)
    return tensor[:, None] if bare else tensor


def _row(table: Tensor, b: Tensor, h: Tensor, at: CallPlace) -> tuple[Tensor | int, Tensor | int]:
    """Where sequence b and head h are in a table whose batch may be 1 and whose heads may be fewer."""
    batch, heads = table.shape[:2]
    return (b if batch > 1 else 0), (h * heads // at.heads if heads > 1 else 0)


def _marks(entries: Tensor, first: int, count: int) -> Tensor:
    """bool [..., count]: which of the numbers first .. first + count - 1 are among the entries [..., c]."""
    inside = (entries >= first) & (entries < first + count)
    place = torch.where(inside, entries - first, count).to(torch.int64)
    marks = torch.zeros((*entries.shape[:-1], count + 1), dtype=torch.bool, device=entries.device)
    return marks.scatter_(-1, place, True)[..., :count]


def _listed_cells(counts: Tensor, indices: Tensor, columns: int) -> Tensor:
    place = torch.arange(indices.shape[-1], device=indices.device)
    return _marks(torch.where(place < counts[..., None], indices, -1), 0, columns)


def _ancestors(parents: Tensor) -> Tensor:
    """bool [b, 1, n, n]: whether one token is another's ancestor or itself; a parent after its child is none."""
    n = parents.shape[-1]
    token = torch.arange(n, device=parents.device)
    of = torch.where((parents >= 0) & (parents < token), parents, n)[..., None]
    step = torch.nn.functional.one_hot(of.squeeze(-1).to(torch.int64), n + 1)[..., :n].to(torch.float32)
    reach = torch.eye(n, device=parents.device) + step
    for _ in range(max(n, 1).bit_length()):
        reach = (reach @ reach).clamp(max=1.0)
    return reach > 0
