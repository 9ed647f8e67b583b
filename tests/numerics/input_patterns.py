"""Patterns with inputs, tensors for these, and their masks by the table of the language alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsec.ir.bands.draws import drawn_blocks
from sparsec.sema import model as m

BLOCK = 16
BATCH, HEADS, KV_HEADS = 2, 4, 2
Tensors = dict[str, Tensor | tuple[Tensor, Tensor]]
INPUTS = (
    m.InputDecl("length", m.InputKind.LENGTH, 1, 1),
    m.InputDecl("tokens", m.InputKind.TOKENS, 1, 1),
    m.InputDecl("columns", m.InputKind.COLUMNS, 1, 1),
    m.InputDecl("column_blocks", m.InputKind.COLUMNS, 1, 1, m.InputUnit.BLOCKS),
    m.InputDecl("slashes", m.InputKind.SLASHES, 1, 1),
    m.InputDecl("slash_blocks", m.InputKind.SLASHES, 1, 1, m.InputUnit.BLOCKS),
    m.InputDecl("slash_tiles", m.InputKind.SLASHES, 1, 1, m.InputUnit.TILES),
    m.InputDecl("rows", m.InputKind.ROWS, 1, 1),
    m.InputDecl("pages", m.InputKind.ROWS, 1, 1, m.InputUnit.BLOCKS),
    m.InputDecl("blocks", m.InputKind.BLOCKS, 1, 1),
    m.InputDecl("cells", m.InputKind.BLOCKS, 1, 1, tile=(24, 10)),
    m.InputDecl("counted", m.InputKind.BLOCKS, 1, 1),
    m.InputDecl("labels", m.InputKind.LABELS, 1, 1),
    m.InputDecl("tree", m.InputKind.TREE, 1, 1),
)
ORDINALS = {input_.name: n for n, input_ in enumerate(INPUTS)}
LENGTH = m.RunTimeLength(ORDINALS["length"])


def named(name: str) -> m.Term:
    return m.Input(ORDINALS[name])


def causal(*terms: m.Term) -> m.Term:
    return m.Intersection((m.Causal(), *terms))


SINK_AND_WINDOW = m.Union((m.Sink(5, False), m.Window(20, 0, False)))
TERMS: dict[str, m.Term] = {
    **{name: named(name) for name in ORDINALS if name != "length"},
    **{f"causal {name}": causal(m.Union((SINK_AND_WINDOW, named(name)))) for name in ORDINALS if name != "length"},
    **{
        f"all but {name}": causal(m.Complement(named(name))) for name in ("tokens", "rows", "blocks", "slashes", "tree")
    },
    "run-time sink": causal(m.Union((m.Sink(LENGTH, False), m.Window(9, 0, False)))),
    "run-time window": m.Window(LENGTH, 3, False),
    "run-time ranges": m.Union((m.Columns(LENGTH, m.Edge(-3, True), False), m.Rows(None, LENGTH, False))),
    "two lists": causal(m.Union((named("rows"), named("pages"), m.Stride(3, 1, True)))),
    "one list less another": causal(m.Difference(named("pages"), named("rows"))),
    "pages alone": causal(named("pages")),
    "lists of a window": causal(named("rows"), m.Window(40, 0, False)),
    "vertical and slash": causal(m.Union((named("columns"), named("slash_tiles")))),
    "both": m.Intersection((named("tokens"), named("cells"))),
    "draws": causal(m.Union((m.Intersection((m.Random(2, 3, 1), named("cells"))), named("rows")))),
}


def pattern(name: str) -> m.ResolvedPattern:
    """Half of the heads see the named term, the others a window beside."""
    wider = m.Union((TERMS[name], m.Window(4, 0, False)))
    terms = (TERMS[name],) * (HEADS // 2) + (wider,) * (HEADS // 2)
    return m.ResolvedPattern(HEADS, KV_HEADS, terms, BLOCK, INPUTS, m.Documents.NONE, m.Score())


@dataclass(frozen=True, slots=True)
class Call:
    """Queries at q_offset .. q_offset + n_q - 1 on n_k keys, with inputs from a seed."""

    n_q: int
    n_k: int
    q_offset: int
    seed: int = 0

    def tensors(self, *, heads: int = KV_HEADS) -> Tensors:
        g = torch.Generator().manual_seed(self.seed)

        def integers(low: int, high: int, *shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.randint(low, high, shape, generator=g, dtype=dtype)

        def distinct(low: int, high: int, count: int, *shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            """Lists without an entry twice, unsorted, of any strides."""
            keys = torch.rand((*shape, high - low), generator=g)
            return (
                (keys.argsort(-1)[..., : min(count, high - low)] + low)
                .to(dtype)
                .transpose(0, 1)
                .contiguous()
                .transpose(0, 1)
            )

        blocks = -(-self.n_k // BLOCK)
        rows = (self.q_offset + self.n_q - 1) // BLOCK - self.q_offset // BLOCK + 1
        cell_rows = (self.q_offset + self.n_q - 1) // 24 - self.q_offset // 24 + 1
        n = min(self.n_k, 7)
        return {
            "length": integers(-2, 40, BATCH, heads),
            "tokens": torch.rand((BATCH, self.n_k), generator=g) < 0.1,
            "columns": distinct(-3, self.n_k + 3, 6, BATCH, heads),
            "column_blocks": distinct(-1, blocks + 1, 2, 1, HEADS, dtype=torch.int64),
            "slashes": distinct(-self.n_k, self.n_k, 9, BATCH, 1, dtype=torch.int64),
            "slash_blocks": distinct(-blocks, blocks, 2, BATCH, heads),
            "slash_tiles": distinct(-9, self.n_k, 3, BATCH, HEADS),
            "rows": distinct(-3, self.n_k + 3, 5, BATCH, heads, self.n_q),
            "pages": distinct(-1, blocks + 1, 2, 1, 1, self.n_q, dtype=torch.int64),
            "blocks": torch.rand((BATCH, heads, rows + 1, blocks + 2), generator=g) < 0.3,
            "cells": torch.rand((1, 1, cell_rows, -(-self.n_k // 10)), generator=g) < 0.3,
            "counted": (integers(0, 3, BATCH, 1, rows), distinct(-1, blocks + 1, 3, BATCH, 1, rows)),
            "labels": (integers(-1, 4, BATCH, heads, self.n_q), integers(-1, 4, BATCH, 1, self.n_k)),
            "tree": torch.cat([integers(-1, max(t, 0), BATCH, 1) for t in range(n)], dim=1),
        }


def visible(name: str, call: Call, given: Tensors) -> Tensor:
    """bool [B, H, Nq, Nk]: the table of the language, on positions that broadcast."""
    i = torch.arange(call.q_offset, call.q_offset + call.n_q)[:, None]
    j = torch.arange(call.n_k)[None, :]
    result = torch.zeros(BATCH, HEADS, call.n_q, call.n_k, dtype=torch.bool)
    for b in range(BATCH):
        for h in range(HEADS):
            of_head = holds(TERMS[name], call, {key: _mine(value, b, h) for key, value in given.items()}, i, j)
            result[b, h] = of_head | ((i - j >= 0) & (i - j < 4) & (h >= HEADS // 2))
    return result


def _mine(value: Tensor | tuple[Tensor, ...], b: int, h: int) -> list[Tensor]:
    parts = value if isinstance(value, tuple) else (value,)
    found = []
    for part in parts:
        of_sequence = part[b if len(part) > 1 else 0]
        found.append(
            of_sequence[h * len(of_sequence) // HEADS]
            if part.dim() > 2 or part.shape[1] in (KV_HEADS, HEADS)
            else of_sequence
        )
    return found


def holds(term: m.Term, call: Call, given: dict[str, list[Tensor]], i: Tensor, j: Tensor) -> Tensor:
    """bool, of one sequence and head."""

    def again(part: m.Term) -> Tensor:
        return holds(part, call, given, i, j)

    qb, kb = i // BLOCK, j // BLOCK
    everything = torch.ones(len(i), j.shape[1], dtype=torch.bool)
    length = max(int(given["length"][0]), 0)

    def listed(entries: Tensor, x: Tensor) -> Tensor:
        return (entries == x[..., None]).any(-1)

    match term:
        case m.Union(terms):
            return torch.stack([again(part) for part in terms]).any(0)
        case m.Intersection(terms):
            return torch.stack([again(part) for part in terms]).all(0)
        case m.Difference(left, right):
            return again(left) & ~again(right)
        case m.Complement(inner):
            return ~again(inner)
        case m.Causal():
            return j <= i
        case m.Window(m.RunTimeLength(), ahead):
            return (i - j >= -ahead) & (i - j < length) & bool(length)
        case m.Window(int(n), ahead):
            return (i - j >= -ahead) & (i - j < n)
        case m.Sink(n):
            return everything & (j < (length if isinstance(n, m.RunTimeLength) else n))
        case m.Stride(period, phase, True):
            return everything & (kb % period == phase)
        case m.Columns(m.RunTimeLength(), m.Edge(at, True)):
            return everything & (j >= length) & (j < call.n_k + at)
        case m.Rows(None, m.RunTimeLength()):
            return everything & (i < length)
        case m.Random(k, seed, lane):
            drawn = [drawn_blocks(k, seed, lane, block) for block in qb[:, 0].tolist()]
            return torch.tensor([[key in row for key in kb[0].tolist()] for row in drawn])
        case m.Input(ordinal):
            name = INPUTS[ordinal].name
            first, *rest = given[name]
            match name:
                case "tokens":
                    return everything & first[None, : call.n_k]
                case "columns":
                    return everything & listed(first, j)
                case "column_blocks":
                    return everything & listed(first, kb)
                case "slashes":
                    return listed(first[first >= 0], i - j)
                case "slash_blocks":
                    return listed(first[first >= 0], qb - kb)
                case "slash_tiles":
                    of_each = [(j >= qb * BLOCK - s) & (j < qb * BLOCK - s + BLOCK) for s in first.tolist() if s >= 0]
                    return torch.stack([~everything, *of_each]).any(0)
                case "rows":
                    return (first[:, None, :] == j[..., None]).any(-1)
                case "pages":
                    return (first[:, None, :] == kb[..., None]).any(-1)
                case "blocks":
                    return first[qb - call.q_offset // BLOCK, kb]
                case "cells":
                    return first[i // 24 - call.q_offset // 24, j // 10]
                case "counted":
                    (indices,) = rest
                    at = (qb - call.q_offset // BLOCK)[:, 0]
                    used = torch.arange(indices.shape[-1]) < first[at][:, None]
                    return ((indices[at][:, None, :] == kb[..., None]) & used[:, None, :]).any(-1)
                case "labels":
                    return (first[:, None] == rest[0][None, : call.n_k]) & (first[:, None] >= 0)
                case "tree":
                    return _tree(first.tolist(), call, everything)
    raise AssertionError(f"no meaning of {term}")


def _tree(parents: list[int], call: Call, everything: Tensor) -> Tensor:
    start = call.n_k - len(parents)
    found = everything & (torch.arange(call.n_k) < start)
    for token in range(len(parents)):
        row = start + token - call.q_offset
        above = token
        while above >= 0:
            if 0 <= row < call.n_q:
                found[row, start + above] = True
            above = parents[above]
    return found
