"""One query's keys as the bits of an integer: what warnings look at on a few sample rows.

Invariant: bit j of `row` is set iff the formula of the term holds for (i, j), for 0 <= j < Nk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

from sparsec.sema import model
from sparsec.sema.builtins import End
from sparsec.sema.model import Edge, Leaf, RunTimeLength, Term

_SAMPLED = "a sampled term is known at compile time"


@dataclass(slots=True)
class Sample:
    """A length and a block size; `combs` keeps the periodic bit patterns made so far."""

    n_k: int
    block: int
    combs: dict[tuple[int, int, int], int] = field(default_factory=dict)

    @property
    def everything(self) -> int:
        return (1 << self.n_k) - 1

    def keys(self, start: int, stop: int) -> int:
        """The keys start <= j < stop that exist."""
        start, stop = max(start, 0), min(stop, self.n_k)
        return (1 << stop) - (1 << start) if start < stop else 0

    def comb(self, period: int, phase: int, width: int) -> int:
        """The keys whose unit of `width` tokens has index phase mod period."""
        if period * width >= self.n_k:
            return self.keys(phase * width, (phase + 1) * width)
        key = (period, phase, width)
        if key not in self.combs:
            teeth = self.n_k // (period * width) + 1
            every = ((1 << (period * width * teeth)) - 1) // ((1 << (period * width)) - 1)
            self.combs[key] = (every * ((1 << width) - 1) << (phase * width)) & self.everything
        return self.combs[key]

    def edge(self, edge: End, blocks: bool, open_end: int) -> int:
        """The position, in its own unit, where a range begins or ends."""
        if edge is None:
            return open_end
        if isinstance(edge, RunTimeLength):
            raise AssertionError(_SAMPLED)
        end = -(-self.n_k // self.block) if blocks else self.n_k
        return end + edge.at if edge.from_end else edge.at


def row(term: Term, i: int, at: Sample) -> int:
    """The keys of query i. `term` holds no run-time input and no random term."""
    block = at.block
    match term:
        case model.At(inner):
            return row(inner, i, at)
        case model.Full():
            return at.everything
        case model.Nothing():
            return 0
        case model.Causal():
            return at.keys(0, i + 1)
        case model.Window(int(n), ahead, blocks):
            unit = block if blocks else 1
            return at.keys((i // unit - n + 1) * unit, (i // unit + ahead + 1) * unit)
        case model.Sink(int(n), blocks):
            return at.keys(0, n * block if blocks else n)
        case model.Stride(period, phase, blocks):
            return at.comb(period, phase, block if blocks else 1)
        case model.Dilated(period, phase, blocks):
            unit = block if blocks else 1
            return at.comb(period, (i // unit - phase) % period, unit)
        case model.Chunk(n, back, ahead):
            return at.keys((i // n - back) * n, (i // n + ahead + 1) * n)
        case model.Near2d(width, rows, columns):
            x, y = i % width, i // width
            first, stop = max(0, x - columns), min(width, x + columns + 1, at.n_k)
            near = at.comb(width, 0, 1) * at.keys(first, stop)
            return near & at.keys((y - rows) * width, (y + rows + 1) * width)
        case model.Columns(start, stop, blocks):
            unit = block if blocks else 1
            return at.keys(at.edge(start, blocks, 0) * unit, at.edge(stop, blocks, at.n_k) * unit)
        case model.Rows(start, stop, blocks):
            x = i // block if blocks else i
            return at.everything if at.edge(start, blocks, x) <= x < at.edge(stop, blocks, x + 1) else 0
        case model.Global(n, blocks):
            x = i // block if blocks else i
            return at.everything if x < n else at.keys(0, n * block if blocks else n)
        case model.Union(terms):
            found = 0
            for part in terms:
                found |= row(part, i, at)
            return found
        case model.Intersection(terms):
            found = at.everything
            for part in terms:
                found &= row(part, i, at)
            return found
        case model.Difference(left, right):
            return row(left, i, at) & ~row(right, i, at)
        case model.Complement(part):
            return at.everything & ~row(part, i, at)
        case model.Random() | model.Input() | model.Window() | model.Sink():
            raise AssertionError(_SAMPLED)
        case _:
            assert_never(term)


def extent(leaf: Leaf, block: int) -> int:
    """A number of tokens after which a leaf has shown what it does, run-time lengths and lists aside."""
    match leaf:
        case model.Window(n, ahead, blocks):
            return ((n if isinstance(n, int) else 0) + ahead) * (block if blocks else 1)
        case (
            model.Sink(int(n), blocks)
            | model.Global(n, blocks)
            | model.Stride(n, _, blocks)
            | model.Dilated(n, _, blocks)
        ):
            return n * (block if blocks else 1)
        case model.Chunk(n, back, ahead):
            return n * (back + ahead + 1)
        case model.Near2d(width, rows):
            return width * (rows + 1)
        case model.Columns(start, stop, blocks) | model.Rows(start, stop, blocks):
            return max([abs(edge.at) for edge in (start, stop) if isinstance(edge, Edge)], default=0) * (
                block if blocks else 1
            )
        case model.Random(k):
            return (k + 1) * block
        case model.Full() | model.Nothing() | model.Causal() | model.Input() | model.Sink():
            return 0
        case _:
            assert_never(leaf)
