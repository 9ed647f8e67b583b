"""Builds `model` terms so that equal ones are one object, and prints the leaves.

Invariant: two equal terms from one `Terms` are the same object, so identity settles equality; `leaves` counts the
leaf terms of a term written out as a tree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

from sparsec.sema import model
from sparsec.sema.model import Term

Leaf = (
    model.Full
    | model.Nothing
    | model.Causal
    | model.Window
    | model.Sink
    | model.Stride
    | model.Dilated
    | model.Chunk
    | model.Columns
    | model.Rows
    | model.Global
    | model.Random
    | model.Input
)


@dataclass(frozen=True, slots=True)
class Sized:
    """A term and the number of its leaves."""

    term: Term
    leaves: int


@dataclass(slots=True)
class Terms:
    """The terms made so far, by their content."""

    _made: dict[object, Sized] = field(default_factory=dict)

    def leaf(self, term: Leaf, line: int) -> Sized:
        """`term` with its origin."""
        key = (line, term)
        if key not in self._made:
            self._made[key] = Sized(model.At(term, model.Origin(line, printed(term))), 1)
        return self._made[key]

    def union(self, parts: list[Sized]) -> Sized:
        return self._joined(model.Union, parts)

    def intersection(self, parts: list[Sized]) -> Sized:
        return self._joined(model.Intersection, parts)

    def difference(self, left: Sized, right: Sized) -> Sized:
        key = (model.Difference, id(left.term), id(right.term))
        if key not in self._made:
            self._made[key] = Sized(model.Difference(left.term, right.term), left.leaves + right.leaves)
        return self._made[key]

    def complement(self, part: Sized) -> Sized:
        key = (model.Complement, id(part.term))
        if key not in self._made:
            self._made[key] = Sized(model.Complement(part.term), part.leaves)
        return self._made[key]

    def _joined(self, kind: type[model.Union] | type[model.Intersection], parts: list[Sized]) -> Sized:
        """The parts as one n-ary term; a part of the same kind gives its own parts."""
        flat: list[Term] = []
        for part in parts:
            if isinstance(part.term, model.Union | model.Intersection) and isinstance(part.term, kind):
                flat.extend(part.term.terms)
            else:
                flat.append(part.term)
        key = (kind, *map(id, flat))
        if key not in self._made:
            self._made[key] = Sized(kind(tuple(flat)), sum(part.leaves for part in parts))
        return self._made[key]


def printed(term: Leaf) -> str:
    """The canonical text of a leaf: keywords and final integers, nothing that a user wrote."""
    match term:
        case model.Full():
            return "full"
        case model.Nothing():
            return "none"
        case model.Causal():
            return "causal"
        case model.Window(n, ahead, blocks):
            return f"window({_length(n, blocks)}{_option('ahead', ahead, blocks)})"
        case model.Sink(n, blocks):
            return f"sink({_length(n, blocks)})"
        case model.Stride(period, phase, blocks):
            return f"stride({_length(period, blocks)}{_option('phase', phase)})"
        case model.Dilated(period, phase, blocks):
            return f"dilated({_length(period, blocks)}{_option('phase', phase)})"
        case model.Chunk(n, back):
            return f"chunk({n}{_option('back', back)})"
        case model.Columns(start, stop, blocks):
            return f"columns({_edge(start, blocks)}..{_edge(stop, blocks)})"
        case model.Rows(start, stop, blocks):
            return f"rows({_edge(start, blocks)}..{_edge(stop, blocks)})"
        case model.Global(n, blocks):
            return f"global({_length(n, blocks)})"
        case model.Random(k, seed, lane):
            return f"random({k}, seed={seed}, lane={lane})"
        case model.Input(ordinal):
            return f"input {ordinal}"
        case _:
            assert_never(term)


def _length(count: int, blocks: bool) -> str:
    return f"{count}b" if blocks else str(count)


def _option(name: str, value: int, blocks: bool = False) -> str:
    return f", {name}={_length(value, blocks)}" if value else ""


def _edge(edge: model.Edge | None, blocks: bool) -> str:
    return "" if edge is None else _length(edge.at, blocks)
