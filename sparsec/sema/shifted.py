"""A resolved pattern -> what is left of it from some key on, with that key counted as key 0.

Invariant: with `step` and `least` of the result, the pairs (i, j) of the pattern with i and j from `a` on are the pairs
(i - a, j - a) of the result, for every multiple `a` of `step` from `least` on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import lcm

from sparsec.sema.model import (
    At,
    Causal,
    Chunk,
    Columns,
    Complement,
    Difference,
    Dilated,
    Edge,
    Full,
    Global,
    Input,
    Intersection,
    Near2d,
    Nothing,
    Random,
    ResolvedPattern,
    Rows,
    RunTimeLength,
    Sink,
    Stride,
    Term,
    Union,
    Window,
)
from sparsec.sema.terms import leaves


@dataclass(frozen=True, slots=True)
class FromAKey:
    """`step`: what the key has to be a multiple of; `least`: the first one that it may be."""

    pattern: ResolvedPattern
    step: int
    least: int


def from_a_key_on(pattern: ResolvedPattern) -> FromAKey | None:
    """None for a pattern with inputs, random keys or ends that count from the end."""
    if pattern.inputs:
        return None
    steps, least = {1}, 0
    for term in pattern.terms:
        for leaf in leaves(term):
            found = _bounds(leaf, pattern.block)
            if found is None:
                return None
            steps.add(found[0])
            least = max(least, found[1])
    made = {id(term): _shifted(term) for term in pattern.terms}
    terms = tuple(made[id(term)] for term in pattern.terms)
    return FromAKey(replace(pattern, terms=terms), lcm(*steps), least)


def _bounds(leaf: Term, block: int) -> tuple[int, int] | None:
    """The step and the least key of a leaf; None where no key will do."""
    match leaf:
        case Full() | Nothing() | Causal():
            return 1, 0
        case Window(int(), _, blocks):
            return block if blocks else 1, 0
        case Dilated(_, _, blocks):
            return block if blocks else 1, 0
        case Stride(period, _, blocks):
            return period * (block if blocks else 1), 0
        case Chunk(n):
            return n, 0
        case Near2d(width):
            return width, 0
        case Sink(int(n), blocks) | Global(n, blocks):
            return 1, n * (block if blocks else 1)
        case Columns(start, stop, blocks) | Rows(start, stop, blocks):
            ends = [end for end in (start, stop) if end is not None]
            if any(isinstance(end, RunTimeLength) or end.from_end for end in ends):
                return None
            unit = block if blocks else 1
            return 1, max([0, *(end.at * unit for end in ends if isinstance(end, Edge))])
        case _:
            assert isinstance(leaf, Random | Input | Window | Sink), f"a leaf that is known, not {leaf}"
            return None


def _shifted(term: Term) -> Term:
    match term:
        case Union(terms):
            return Union(tuple(map(_shifted, terms)))
        case Intersection(terms):
            return Intersection(tuple(map(_shifted, terms)))
        case Difference(left, right):
            return Difference(_shifted(left), _shifted(right))
        case Complement(inner):
            return Complement(_shifted(inner))
        case At(inner, origin):
            return At(_shifted(inner), origin)
        case Sink() | Global():
            return Nothing()
        case Columns(_, stop) | Rows(_, stop):
            return Full() if stop is None else Nothing()
        case _:
            return term
