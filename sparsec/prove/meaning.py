"""A checked term -> its condition on a pair (i, j): the language's formula of each term, stated once more.

Invariant: nothing here knows of bands, tiles or lowering; like the reference, it reads `sema.model` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from sparsec.diagnostics.model import InternalError
from sparsec.prove.linear import NO, YES, Condition, Flag, Linear, Space, every, never, some
from sparsec.sema import model
from sparsec.sema.model import Term


@dataclass(frozen=True, slots=True)
class Pair:
    """The positions of a query and a key, the number of keys, the block size, and what is drawn at their blocks."""

    space: Space
    i: Linear
    j: Linear
    n_keys: Linear
    block: int
    drawn: Callable[[model.Random], Condition]
    asked: Callable[[int, str], Condition]
    """What an input says of the pair, by its ordinal and by what is asked."""

    def query(self, blocks: bool) -> Linear:
        return self.space.divided(self.i, self.block)[0] if blocks else self.i

    def key(self, blocks: bool) -> Linear:
        return self.space.divided(self.j, self.block)[0] if blocks else self.j

    def end(self, blocks: bool) -> Linear:
        """The number of keys, or of their blocks, rounded up."""
        return self.space.divided(self.n_keys.plus(self.block - 1), self.block)[0] if blocks else self.n_keys


def input_says(space: Space, ordinal: int, asks: str) -> Flag:
    """What an input says of the pair at hand: anything, and the same wherever it is asked the same."""
    return space.flag("input", ordinal, asks)


def free(space: Space, term: model.Random) -> Condition:
    """What is drawn at a pair's blocks, where any draws are possible: the same for equal terms."""
    return space.flag("draws", term.k, term.seed, term.lane)


def holds(term: Term, at: Pair) -> Condition:
    """Whether the term has the pair."""
    space = at.space
    match term:
        case model.At(inner):
            return holds(inner, at)
        case model.Full():
            return YES
        case model.Nothing():
            return NO
        case model.Causal():
            return space.at_least(at.i, at.j)
        case model.Window(model.RunTimeLength(ordinal), ahead):
            return every((at.asked(ordinal, "near"), space.less(at.j, at.i.plus(ahead + 1))))
        case model.Window(int(n), ahead, blocks):
            return space.within(at.query(blocks) - at.key(blocks), Linear(-ahead), Linear(n))
        case model.Sink(model.RunTimeLength(ordinal)):
            return at.asked(ordinal, "key below")
        case model.Sink(int(n), blocks):
            return space.less(at.key(blocks), Linear(n))
        case model.Stride(period, phase, blocks):
            return space.equal(space.divided(at.key(blocks), period)[1], Linear(phase % period))
        case model.Dilated(period, phase, blocks):
            distance = at.query(blocks) - at.key(blocks)
            return space.equal(space.divided(distance, period)[1], Linear(phase % period))
        case model.Chunk(n, back, ahead):
            chunks = space.divided(at.i, n)[0] - space.divided(at.j, n)[0]
            return space.within(chunks, Linear(-ahead), Linear(back + 1))
        case model.Near2d(width, rows, columns):
            (row, column), (row_of_key, column_of_key) = space.divided(at.i, width), space.divided(at.j, width)
            return every(
                space.within(apart, Linear(-most), Linear(most + 1))
                for apart, most in ((row - row_of_key, rows), (column - column_of_key, columns))
            )
        case model.Columns(start, stop, blocks):
            return _between(at, at.key(blocks), start, stop, blocks, "key below")
        case model.Rows(start, stop, blocks):
            return _between(at, at.query(blocks), start, stop, blocks, "query below")
        case model.Global(n, blocks):
            return some((space.less(at.query(blocks), Linear(n)), space.less(at.key(blocks), Linear(n))))
        case model.Random():
            return at.drawn(term)
        case model.Union(terms):
            return some(holds(part, at) for part in terms)
        case model.Intersection(terms):
            return every(holds(part, at) for part in terms)
        case model.Difference(left, right):
            return every((holds(left, at), never(holds(right, at))))
        case model.Complement(part):
            return never(holds(part, at))
        case model.Input(ordinal):
            return at.asked(ordinal, "pair")
        case model.Window() | model.Sink():
            raise InternalError(f"expected a length, got {term}")
    assert_never(term)


def _between(
    at: Pair,
    x: Linear,
    start: model.Edge | model.RunTimeLength | None,
    stop: model.Edge | model.RunTimeLength | None,
    blocks: bool,
    asks: str,
) -> Condition:
    def before(edge: model.Edge | model.RunTimeLength) -> Condition:
        if isinstance(edge, model.RunTimeLength):
            return at.asked(edge.ordinal, asks)
        return at.space.less(x, at.end(blocks).plus(edge.at) if edge.from_end else Linear(edge.at))

    return every((YES if start is None else never(before(start)), YES if stop is None else before(stop)))
