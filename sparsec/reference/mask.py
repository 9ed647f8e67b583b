"""The meaning of a pattern, pair by pair: each term's formula on the positions of every query and key.

Invariant: nothing here knows of bands, tiles or blocks of a kernel; a formula is the language's own, on i and j.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import assert_never

import torch

from sparsec.diagnostics.model import CallError
from sparsec.sema import model
from sparsec.sema.model import ResolvedPattern, Term

MAX_PAIRS = 2**28
_WRAP = 2**64


def mask(
    heads: ResolvedPattern, n_q: int, n_k: int, q_offset: int | None = None, *, cu_seqlens: Sequence[int] | None = None
) -> torch.Tensor:
    """Bool [H, Nq, Nk] on the CPU: whether the query at position q_offset + i may attend to the key at j.

    `q_offset` is n_k - n_q if left out. `cu_seqlens`: where the documents start, and Nk last; n_q is then n_k. Raises
    CallError for negative counts, for more than 2^28 pairs a head, for patterns with run-time inputs, whose meaning
    their tensors complete, and for `documents` without cu_seqlens.
    """
    if n_q < 0 or n_k < 0:
        raise CallError(f"expected n_q and n_k of at least 0, got n_q={n_q} and n_k={n_k}")
    if n_q * n_k > MAX_PAIRS:
        raise CallError(f"expected at most {MAX_PAIRS} pairs a head, got {n_q} * {n_k} = {n_q * n_k}")
    if heads.inputs:
        raise CallError("expected a pattern known at compile time, got one with run-time inputs")
    if (cu_seqlens is None) != (heads.documents is model.Documents.NONE):
        raise CallError("expected cu_seqlens for patterns with documents and for no others")
    if cu_seqlens is not None:
        return _in_documents(heads, n_q, n_k, cu_seqlens)
    start = n_k - n_q if q_offset is None else q_offset
    positions = _Positions(start, n_q, n_k, heads.block)
    out = torch.empty((heads.heads, n_q, n_k), dtype=torch.bool)
    done: dict[int, int] = {}
    for head, term in enumerate(heads.terms):
        # Equal heads share one term object.
        same = done.setdefault(id(term), head)
        out[head] = out[same] if same != head else _holds(term, positions)
    return out


def _in_documents(heads: ResolvedPattern, n_q: int, n_k: int, cu_seqlens: Sequence[int]) -> torch.Tensor:
    """The mask, cut to documents; or, where they restart, each document's own mask in its place."""
    if n_q != n_k or list(cu_seqlens) != sorted(cu_seqlens) or cu_seqlens[0] != 0 or cu_seqlens[-1] != n_k:
        raise CallError(f"expected n_q = n_k, and cu_seqlens from 0 up to it, got {n_q}, {n_k} and {list(cu_seqlens)}")
    plain = replace(heads, documents=model.Documents.NONE)
    whole = torch.zeros((heads.heads, n_q, n_k), dtype=torch.bool)
    everywhere = mask(plain, n_q, n_k) if heads.documents is model.Documents.SEPARATE else None
    for start, stop in pairwise(cu_seqlens):
        own = mask(plain, stop - start, stop - start) if everywhere is None else everywhere[:, start:stop, start:stop]
        whole[:, start:stop, start:stop] = own
    return whole


class _Positions:
    """i and qb as columns [Nq, 1], j and kb as rows [1, Nk], all int64; `//` rounds toward minus infinity."""

    def __init__(self, start: int, n_q: int, n_k: int, block: int) -> None:
        self.n_k = n_k
        self.key_blocks = -(-n_k // block)
        self.i = torch.arange(start, start + n_q, dtype=torch.int64)[:, None]
        self.j = torch.arange(n_k, dtype=torch.int64)[None, :]
        self.qb = self.i // block
        self.kb = self.j // block


def _holds(term: Term, at: _Positions) -> torch.Tensor:
    """The term's formula, in a shape that broadcasts to [Nq, Nk]."""
    i, j = at.i, at.j
    match term:
        case model.At(inner):
            return _holds(inner, at)
        case model.Full():
            return torch.ones((1, 1), dtype=torch.bool)
        case model.Nothing():
            return torch.zeros((1, 1), dtype=torch.bool)
        case model.Causal():
            return j <= i
        case model.Window(n, ahead, blocks):
            distance = at.qb - at.kb if blocks else i - j
            return (-ahead <= distance) & (distance < n)
        case model.Sink(n, blocks):
            return (at.kb if blocks else j) < n
        case model.Stride(period, phase, blocks):
            return (at.kb if blocks else j) % period == phase % period
        case model.Dilated(period, phase, blocks):
            return (at.qb - at.kb if blocks else i - j) % period == phase % period
        case model.Chunk(n, back):
            chunks = i // n - j // n
            return (chunks >= 0) & (chunks <= back)
        case model.Columns(first, stop, blocks):
            return _between(at.kb if blocks else j, first, stop, at.key_blocks if blocks else at.n_k)
        case model.Rows(first, stop, blocks):
            return _between(at.qb if blocks else i, first, stop, at.key_blocks if blocks else at.n_k)
        case model.Global(n, blocks):
            return ((at.qb if blocks else i) < n) | ((at.kb if blocks else j) < n)
        case model.Random():
            return _random(term, at)
        case model.Union(terms):
            found = _holds(terms[0], at)
            for part in terms[1:]:
                found = found | _holds(part, at)
            return found
        case model.Intersection(terms):
            found = _holds(terms[0], at)
            for part in terms[1:]:
                found = found & _holds(part, at)
            return found
        case model.Difference(left, right):
            return _holds(left, at) & ~_holds(right, at)
        case model.Complement(part):
            return ~_holds(part, at)
        case model.Input():
            raise CallError("expected a pattern known at compile time, got one with run-time inputs")
        case _:
            assert_never(term)


def _between(x: torch.Tensor, start: model.Edge | None, stop: model.Edge | None, end: int) -> torch.Tensor:
    found = torch.ones_like(x, dtype=torch.bool)
    if start is not None:
        found = found & (x >= (end + start.at if start.from_end else start.at))
    if stop is not None:
        found = found & (x < (end + stop.at if stop.from_end else stop.at))
    return found


def _random(term: model.Random, at: _Positions) -> torch.Tensor:
    found = torch.zeros((at.i.shape[0], at.j.shape[1]), dtype=torch.bool)
    for query_block in sorted({int(qb) for qb in at.qb.flatten()}):
        if query_block < 0:
            continue
        drawn = sorted({mix(term.seed, term.lane, query_block, t) % (query_block + 1) for t in range(term.k)})
        kept = torch.isin(at.kb, torch.tensor(drawn, dtype=torch.int64))
        found |= (at.qb == query_block) & kept
    return found


def mix(seed: int, lane: int, query_block: int, draw: int) -> int:
    """The SplitMix64 finaliser of the draw's counter, mod 2^64."""
    z = seed * 0x9E3779B97F4A7C15 + lane * 0xBF58476D1CE4E5B9 + query_block * 0x94D049BB133111EB + draw + 1
    z %= _WRAP
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % _WRAP
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % _WRAP
    return z ^ (z >> 31)
