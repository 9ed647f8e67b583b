"""The meaning of a pattern, pair by pair: each term's formula on the positions of every query and key.

Invariant: nothing here knows of bands, tiles or blocks of a kernel; a formula is the language's own, on i and j.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import assert_never

import torch

from sparsec.diagnostics.model import CallError
from sparsec.reference.inputs import GivenInputs, InputValue, Positions, Slices, given_inputs, holds, length_of
from sparsec.sema import model
from sparsec.sema.builtins import End
from sparsec.sema.inputs import settled
from sparsec.sema.model import InputDecl, ResolvedPattern, RunTimeLength, Term

MAX_PAIRS = 2**28
_WRAP = 2**64


def mask(
    heads: ResolvedPattern,
    n_q: int,
    n_k: int,
    q_offset: int | None = None,
    *,
    cu_seqlens: Sequence[int] | None = None,
    inputs: Mapping[str, InputValue] | None = None,
) -> torch.Tensor:
    """Bool [H, Nq, Nk] on the CPU: whether the query at position q_offset + i may attend to the key at j.

    `q_offset` is n_k - n_q if left out. `cu_seqlens`: where the documents start, and Nk last; n_q is then n_k.
    `inputs`: the tensor, or the pair, of each input that the pattern declares; the mask is then [B, H, Nq, Nk], B their
    batch. Raises CallError for negative counts, for more than 2^28 pairs a head, for inputs of other names or shapes,
    and for `documents` without cu_seqlens.
    """
    if n_q < 0 or n_k < 0:
        raise CallError(f"expected n_q and n_k of at least 0, got n_q={n_q} and n_k={n_k}")
    if n_q * n_k > MAX_PAIRS:
        raise CallError(f"expected at most {MAX_PAIRS} pairs a head, got {n_q} * {n_k} = {n_q * n_k}")
    if (cu_seqlens is None) != (heads.documents is model.Documents.NONE):
        raise CallError("expected cu_seqlens for patterns with documents and for no others")
    if cu_seqlens is not None and (
        n_q != n_k or list(cu_seqlens) != sorted(cu_seqlens) or cu_seqlens[0] != 0 or cu_seqlens[-1] != n_k
    ):
        raise CallError(f"expected n_q = n_k, and cu_seqlens from 0 up to it, got {n_q}, {n_k} and {list(cu_seqlens)}")
    start = n_k - n_q if q_offset is None or cu_seqlens is not None else q_offset
    given = given_inputs(heads, inputs, n_q, n_k, start)

    def sequence(number: int) -> torch.Tensor:
        if cu_seqlens is None:
            return _mask(heads, Positions(start, n_q, n_k, heads.block), given, number)
        return _in_documents(heads, n_k, cu_seqlens, given, number)

    masks = [sequence(number) for number in range(given.batch)]
    return torch.stack(masks) if heads.inputs else masks[0]


def _mask(heads: ResolvedPattern, at: Positions, given: GivenInputs, sequence: int) -> torch.Tensor:
    """[H, Nq, Nk] of one sequence of the batch."""
    out = torch.empty((heads.heads, at.n_q, at.n_k), dtype=torch.bool)
    done: dict[int, int] = {}
    inputs = settled(heads.inputs, heads.block)
    for head, term in enumerate(heads.terms):
        # Equal heads share one term object, and one mask where the inputs are those of all heads.
        same = head if given.by_head else done.setdefault(id(term), head)
        out[head] = out[same] if same != head else _holds(term, _Pairs(at, inputs, given.at(sequence, head)))
    return out


def _in_documents(
    heads: ResolvedPattern, tokens: int, cu_seqlens: Sequence[int], given: GivenInputs, sequence: int
) -> torch.Tensor:
    """The mask, cut to documents; or, where they restart, each document's own mask in its place."""
    whole = torch.zeros((heads.heads, tokens, tokens), dtype=torch.bool)
    separate = heads.documents is model.Documents.SEPARATE
    everywhere = _mask(heads, Positions(0, tokens, tokens, heads.block), given, sequence) if separate else None
    for start, stop in pairwise(cu_seqlens):
        here = Positions(0, stop - start, stop - start, heads.block, start)
        own = everywhere[:, start:stop, start:stop] if everywhere is not None else _mask(heads, here, given, sequence)
        whole[:, start:stop, start:stop] = own
    return whole


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Where a formula is evaluated: the positions, and the inputs of one sequence and head."""

    at: Positions
    inputs: Sequence[InputDecl]
    tensors: Slices

    def number(self, n: int | RunTimeLength) -> int:
        return length_of(self.tensors[n.ordinal]) if isinstance(n, RunTimeLength) else n


def _holds(term: Term, pairs: _Pairs) -> torch.Tensor:
    """The term's formula, in a shape that broadcasts to [Nq, Nk]."""
    at = pairs.at
    i, j = at.i, at.j
    match term:
        case model.At(inner):
            return _holds(inner, pairs)
        case model.Full():
            return torch.ones((1, 1), dtype=torch.bool)
        case model.Nothing():
            return torch.zeros((1, 1), dtype=torch.bool)
        case model.Causal():
            return j <= i
        case model.Window(n, ahead, blocks):
            distance = at.qb - at.kb if blocks else i - j
            length = pairs.number(n)
            return (
                (-ahead <= distance) & (distance < length) if length else torch.zeros_like(distance, dtype=torch.bool)
            )
        case model.Sink(n, blocks):
            return (at.kb if blocks else j) < pairs.number(n)
        case model.Stride(period, phase, blocks):
            return (at.kb if blocks else j) % period == phase % period
        case model.Dilated(period, phase, blocks):
            return (at.qb - at.kb if blocks else i - j) % period == phase % period
        case model.Chunk(n, back, ahead):
            chunks = i // n - j // n
            return (chunks >= -ahead) & (chunks <= back)
        case model.Near2d(width, rows, columns):
            return ((i // width - j // width).abs() <= rows) & ((i % width - j % width).abs() <= columns)
        case model.Columns(first, stop, blocks):
            return _between(at.kb if blocks else j, first, stop, at.key_blocks if blocks else at.n_k, pairs)
        case model.Rows(first, stop, blocks):
            return _between(at.qb if blocks else i, first, stop, at.key_blocks if blocks else at.n_k, pairs)
        case model.Global(n, blocks):
            return ((at.qb if blocks else i) < n) | ((at.kb if blocks else j) < n)
        case model.Random():
            return _random(term, at)
        case model.Union(terms):
            found = _holds(terms[0], pairs)
            for part in terms[1:]:
                found = found | _holds(part, pairs)
            return found
        case model.Intersection(terms):
            found = _holds(terms[0], pairs)
            for part in terms[1:]:
                found = found & _holds(part, pairs)
            return found
        case model.Difference(left, right):
            return _holds(left, pairs) & ~_holds(right, pairs)
        case model.Complement(part):
            return ~_holds(part, pairs)
        case model.Input(ordinal):
            return holds(pairs.inputs[ordinal], pairs.tensors[ordinal], at)
        case _:
            assert_never(term)


def _between(x: torch.Tensor, start: End, stop: End, end: int, pairs: _Pairs) -> torch.Tensor:
    """start <= x < stop; nothing where a run-time length of 0 is the stop."""
    found = torch.ones_like(x, dtype=torch.bool)
    if start is not None:
        found = found & (x >= _position(start, end, pairs))
    if stop is not None:
        found = found & (x < _position(stop, end, pairs))
    return found & False if isinstance(stop, RunTimeLength) and not pairs.number(stop) else found


def _position(edge: model.Edge | RunTimeLength, end: int, pairs: _Pairs) -> int:
    if isinstance(edge, RunTimeLength):
        return pairs.number(edge)
    return end + edge.at if edge.from_end else edge.at


def _random(term: model.Random, at: Positions) -> torch.Tensor:
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
