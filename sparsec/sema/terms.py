"""Builds `model` terms so that equal ones are one object; and what a term is made of.

Invariant: two equal terms from one `Terms` are the same object, so identity settles equality; `leaves` counts the
leaf terms of a term written out as a tree.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sparsec.sema import model
from sparsec.sema.builtins import printed
from sparsec.sema.model import Leaf, RunTimeLength, Term


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


def parts_of(term: Term) -> tuple[Term, ...]:
    """The terms directly inside `term`, in their order; none of a leaf."""
    match term:
        case model.Union(terms) | model.Intersection(terms):
            return terms
        case model.Difference(left, right):
            return (left, right)
        case model.Complement(inner) | model.At(inner):
            return (inner,)
        case _:
            return ()


def ordinals_of(leaf: Leaf) -> tuple[int, ...]:
    """The run-time inputs that a leaf's pairs depend on, by ordinal."""
    match leaf:
        case model.Input(ordinal):
            return (ordinal,)
        case model.Window(n) | model.Sink(n):
            return (n.ordinal,) if isinstance(n, RunTimeLength) else ()
        case model.Columns(start, stop) | model.Rows(start, stop):
            return tuple(end.ordinal for end in (start, stop) if isinstance(end, RunTimeLength))
        case _:
            return ()


def leaves(term: Term) -> tuple[Leaf, ...]:
    """The leaf terms of `term`, in order."""
    match term:
        case model.Union() | model.Intersection() | model.Difference() | model.Complement() | model.At():
            return tuple(leaf for part in parts_of(term) for leaf in leaves(part))
        case _:
            return (term,)
